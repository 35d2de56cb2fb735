"""The exchange of this example and the queues of its subscribers; declaring what is there already is harmless."""

from common.declaring import DeclaringChannel

EXCHANGE = "publish_subscribe.logs"
DEAD_LETTERS = f"{EXCHANGE}.dead_letters"
SUBSCRIBER = "publish_subscribe.subscriber."


def declare(channel: DeclaringChannel) -> str:
    """Declare the exchange, which copies each message to every queue that is bound to it; return its name."""
    channel.exchange_declare(EXCHANGE, exchange_type="fanout", durable=True)
    return EXCHANGE


def declare_temporary(channel: DeclaringChannel) -> str:
    """Declare and bind a queue that lives as long as its subscriber's connection; return its name."""
    declare(channel)
    channel.queue_declare(DEAD_LETTERS, durable=True, arguments={"x-queue-type": "quorum"})
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DEAD_LETTERS}
    # No name given: RabbitMQ makes one up.
    queue: str = channel.queue_declare("", exclusive=True, arguments=arguments).method.queue
    channel.queue_bind(queue, EXCHANGE)
    return queue


def declare_durable(channel: DeclaringChannel, name: str) -> str:
    """Declare and bind a queue that collects messages while its subscriber is away; return its name."""
    declare(channel)
    queue = SUBSCRIBER + name
    dead_letters = f"{queue}.dead_letters"
    channel.queue_declare(dead_letters, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_declare(
        queue,
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
    channel.queue_bind(queue, EXCHANGE)
    return queue
