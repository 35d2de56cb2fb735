"""The exchanges of this example and the queues behind them; declaring what is there already is harmless."""

from common.declaring import DeclaringChannel

EXCHANGE = "routing.logs"
LABELLED = "routing.labelled_logs"
UNROUTED = "routing.unrouted"
SEVERITIES = ("info", "warning", "error")
DEAD_LETTERS = f"{EXCHANGE}.dead_letters"


def declare(channel: DeclaringChannel) -> str:
    """Declare the direct exchange, and the one that gets what it has no queue for; return the former's name."""
    channel.exchange_declare(UNROUTED, exchange_type="fanout", durable=True)
    channel.exchange_declare(EXCHANGE, exchange_type="direct", durable=True, arguments={"alternate-exchange": UNROUTED})
    return EXCHANGE


def declare_labelled(channel: DeclaringChannel) -> str:
    """Declare the headers exchange; return its name."""
    channel.exchange_declare(LABELLED, exchange_type="headers", durable=True)
    return LABELLED


def declare_temporary(channel: DeclaringChannel) -> str:
    """Declare a queue that lives as long as its receiver's connection, bound to nothing yet; return its name."""
    channel.queue_declare(DEAD_LETTERS, durable=True, arguments={"x-queue-type": "quorum"})
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DEAD_LETTERS}
    # No name given: RabbitMQ makes one up.
    queue: str = channel.queue_declare("", exclusive=True, arguments=arguments).method.queue
    return queue


def declare_unrouted(channel: DeclaringChannel) -> str:
    """Declare and bind the queue for messages that nobody wanted; return its name."""
    declare(channel)
    dead_letters = f"{UNROUTED}.dead_letters"
    channel.queue_declare(dead_letters, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_declare(
        UNROUTED,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": 20,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead_letters,
            # A message leaves the queue only when it has arrived among the dead letters; that needs the overflow mode.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )
    channel.queue_bind(UNROUTED, UNROUTED)
    return UNROUTED
