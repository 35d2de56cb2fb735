"""What is in a queue, and putting something there, as a foreign client would: with pika alone."""

from __future__ import annotations

from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel

from tests.support.process import LIMIT


def put(channel: BlockingChannel, queue: str, *bodies: bytes, properties: BasicProperties | None = None) -> None:
    """Publish to ``queue``, which must exist; all are confirmed on return."""
    channel.confirm_delivery()
    for body in bodies:
        channel.basic_publish("", queue, body, properties, mandatory=True)


def take(channel: BlockingChannel, queue: str, count: int, limit: float = LIMIT) -> list[tuple[BasicProperties, bytes]]:
    """Take ``count`` messages, waiting for them; fails if there are fewer after ``limit`` seconds, or more."""
    taken: list[tuple[BasicProperties, bytes]] = []
    channel.basic_qos(prefetch_count=100)
    if count:
        for method, properties, body in channel.consume(queue, inactivity_timeout=limit):
            assert method is not None, f"{len(taken)} of {count} messages in {queue} after {limit:g} s"
            channel.basic_ack(method.delivery_tag)
            taken.append((properties, body))
            if len(taken) == count:
                break
        # What was delivered beyond that goes back, and is counted now.
        channel.cancel()
    assert channel.queue_declare(queue, passive=True).method.message_count == 0
    return taken


def take_all(channel: BlockingChannel, queue: str) -> list[tuple[BasicProperties, bytes]]:
    """Take whatever is in ``queue`` now, which may be nothing."""
    taken: list[tuple[BasicProperties, bytes]] = []
    while True:
        method, properties, body = channel.basic_get(queue)
        if method is None:
            return taken
        channel.basic_ack(method.delivery_tag)
        taken.append((properties, body))
