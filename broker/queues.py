"""What waits in which queue, as RabbitMQ knows it at this moment."""

from __future__ import annotations

from pika.exceptions import ChannelClosedByBroker

from common.config import Settings
from common.connection import Connection, connect
from extras.management import Management

PLAYGROUND = "playground.firehose."
"""How the name of the playground's own queue begins. It is not listed: no lesson has declared it."""


def table(settings: Settings) -> list[str]:
    """The queues of the virtual host: a heading, then a line each, by name. Raises a Failure if they cannot be had."""
    with Management(settings) as management:
        queues = [queue for queue in management.queues() if not queue.name.startswith(PLAYGROUND)]
    found = sorted(queues, key=lambda queue: queue.name)
    rows = [("QUEUE", "READY", "CONSUMERS")]
    with connect("broker queues", settings) as connection:
        for queue in found:
            # The management API's own counts are up to some seconds old.
            ready, consumers = _count(connection, queue.name) or (queue.ready, queue.consumers)
            rows.append((queue.name, f"{ready:,}", str(consumers)))
    first, second, third = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [f"{name:<{first}}  {ready:>{second}}  {consumers:>{third}}" for name, ready, consumers in rows]


def _count(connection: Connection, name: str) -> tuple[int, int] | None:
    """Messages that nobody has got yet, and consumers; None for a queue that only its own connection may see."""
    channel = connection.channel()
    try:
        answer = channel.queue_declare(name, passive=True).method
    except ChannelClosedByBroker:
        return None
    channel.close()
    return answer.message_count, answer.consumer_count
