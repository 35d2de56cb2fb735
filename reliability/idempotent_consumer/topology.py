"""The queue of this example. Both ends declare it, so that either may start first; a second time does no harm."""

from robust_pika import DeclaringChannel, declare_queue

QUEUE = "idempotent_consumer.orders"


def declare(channel: DeclaringChannel) -> str:
    """Declare the queue of orders, and its dead letters: orders that cannot be booked; return the queue's name."""
    return declare_queue(channel, QUEUE)
