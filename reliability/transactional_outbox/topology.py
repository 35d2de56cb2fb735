"""The exchange and the queue of this example; declaring what is there already is harmless."""

from robust_pika import DeclaringChannel

EXCHANGE = "transactional_outbox.orders"
QUEUE = "transactional_outbox.received"
DEAD_LETTERS = f"{QUEUE}.dead_letters"


def declare(channel: DeclaringChannel) -> str:
    """Declare the exchange for orders, and a queue that gets them all; return the queue's name."""
    # A fanout: whoever is interested in orders binds a queue of his own.
    channel.exchange_declare(EXCHANGE, exchange_type="fanout", durable=True)
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
    channel.queue_bind(QUEUE, EXCHANGE)
    return QUEUE
