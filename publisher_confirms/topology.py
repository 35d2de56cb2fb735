"""The queue of this example, and the exclusive ones of some scripts. A second declaration does no harm."""

from common.connection import Channel

MEASURED = "publisher_confirms.measured"
ROOM = 200_000


def declare(channel: Channel) -> str:
    """Declare the queue into which the rates are measured; return its name."""
    # No program takes these messages out. When the queue is full, RabbitMQ refuses more and tells the publisher.
    arguments = {"x-max-length": ROOM, "x-overflow": "reject-publish"}
    channel.queue_declare(MEASURED, durable=True, arguments=arguments)
    return MEASURED


def small_queue(channel: Channel, room: int, overflow: str) -> str:
    """Declare a queue for ``room`` messages that RabbitMQ deletes with the connection; return its name."""
    arguments = {"x-max-length": room, "x-overflow": overflow}
    # No name given: RabbitMQ chooses one.
    queue: str = channel.queue_declare("", exclusive=True, arguments=arguments).method.queue
    return queue
