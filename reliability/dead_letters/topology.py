"""The queues of this example and the exchange for what dies in them; declaring what is there already is harmless."""

from robust_pika import DeclaringChannel

ORDERS = "dead_letters.orders"
TEMPERATURES = "dead_letters.temperatures"
EXCHANGE = "dead_letters.dead"
DEAD_LETTERS = f"{ORDERS}.dead_letters"
DELIVERY_LIMIT = 3
"""How often an order may come back to its queue."""


def declare_dead_letters(channel: DeclaringChannel) -> str:
    """Declare the dead-letter exchange with the queue behind it; return the queue's name."""
    # A fanout exchange takes them all, whatever their routing key was.
    channel.exchange_declare(EXCHANGE, exchange_type="fanout", durable=True)
    # RabbitMQ 4 gives up on a message that has come back 20 times, in this queue too, and here nobody would get it.
    # (-1 lifts the limit on 4.x; on 3.10 it means none at all.)
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
    """Declare the queue of temperatures, which says nothing of dead letters: a policy does; return its name."""
    declare_dead_letters(channel)
    channel.queue_declare(TEMPERATURES, durable=True, arguments={"x-queue-type": "quorum"})
    return TEMPERATURES
