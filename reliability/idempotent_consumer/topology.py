"""The queue of this example. Both ends declare it, so that either may start first; a second time does no harm."""

from robust_pika import DeclaringChannel

QUEUE = "idempotent_consumer.orders"
DEAD_LETTERS = f"{QUEUE}.dead_letters"


def declare(channel: DeclaringChannel) -> str:
    """Declare the queue of orders and the one for those that cannot be booked; return the former's name."""
    channel.queue_declare(DEAD_LETTERS, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_declare(
        QUEUE,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": 20,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": DEAD_LETTERS,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )
    return QUEUE
