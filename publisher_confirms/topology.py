"""The queues of this example. Every script declares what it uses; a second time does no harm."""

from common.declaring import DeclaringChannel

MEASURED = "publisher_confirms.measured"
ORDERS = "publisher_confirms.orders"
DEAD_LETTERS = f"{ORDERS}.dead_letters"


def declare(channel: DeclaringChannel) -> str:
    """Declare the queue into which the rates are measured; return its name."""
    arguments = {
        "x-queue-type": "quorum",
        # Nobody takes these messages out. When it is full it refuses more, and the producer hears of it.
        "x-max-length": 200_000,
        "x-overflow": "reject-publish",
    }
    channel.queue_declare(MEASURED, durable=True, arguments=arguments)
    return MEASURED


def declare_orders(channel: DeclaringChannel) -> str:
    """Declare the queue of orders, and the one for what is no order; return the former's name."""
    channel.queue_declare(DEAD_LETTERS, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_declare(
        ORDERS,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-max-length": 1_000_000,
            "x-overflow": "reject-publish",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": DEAD_LETTERS,
        },
    )
    return ORDERS


def declare_small(channel: DeclaringChannel) -> str:
    """Declare a queue that has room for one message, and that goes with its connection; return its name."""
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    # No name given: RabbitMQ makes one up.
    queue: str = channel.queue_declare("", exclusive=True, arguments=arguments).method.queue
    return queue
