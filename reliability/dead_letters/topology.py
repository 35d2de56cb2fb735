"""The queues of this example, and the exchange to which their dead letters go."""

from robust_pika import DeclaringChannel

PLAIN = "dead_letters.plain"
ORDERS = "dead_letters.orders"
TEMPERATURES = "dead_letters.temperatures"
EXCHANGE = "dead_letters.dead"
DEAD_LETTERS = f"{ORDERS}.dead_letters"
DELIVERY_LIMIT = 3
"""How often an order may come back to its queue."""


def declare_plain(channel: DeclaringChannel) -> str:
    """Declare a queue as lesson 2 does, without dead letters; return its name."""
    channel.queue_declare(PLAIN, durable=True)
    return PLAIN


def declare_dead_letters(channel: DeclaringChannel) -> str:
    """Declare the dead-letter exchange and the queue behind it; return the queue's name."""
    # A fanout exchange sends them all to the queue, whatever their routing key was.
    channel.exchange_declare(EXCHANGE, exchange_type="fanout", durable=True)
    # Without a limit of its own, this queue would drop a dead letter that has come back 20 times on RabbitMQ 4.
    # (-1 lifts the limit there, but on 3.10 it means that no message may come back at all.)
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
    channel.queue_declare(DEAD_LETTERS, durable=True, arguments=arguments)
    channel.queue_bind(DEAD_LETTERS, EXCHANGE)
    return DEAD_LETTERS


def declare(channel: DeclaringChannel) -> str:
    """Declare the queue of orders, which names its dead-letter exchange in its arguments; return its name."""
    declare_dead_letters(channel)
    channel.queue_declare(
        ORDERS,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": EXCHANGE,
            # An order leaves this queue only when it has arrived among the dead letters; that needs the overflow mode.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )
    return ORDERS


def declare_temperatures(channel: DeclaringChannel) -> str:
    """Declare the queue of temperatures, which gets its dead-letter exchange from a policy; return its name."""
    declare_dead_letters(channel)
    channel.queue_declare(TEMPERATURES, durable=True, arguments={"x-queue-type": "quorum"})
    return TEMPERATURES
