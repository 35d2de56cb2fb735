"""The exchanges of this example and the queues behind them; declaring what is there already is harmless."""

import uuid

from common.declaring import DeclaringChannel

EXCHANGE = "topics.logs"
ALARMS = "topics.alarms"
DEAD_LETTERS = f"{EXCHANGE}.dead_letters"


def declare(channel: DeclaringChannel) -> str:
    """Declare the topic exchange; return its name."""
    channel.exchange_declare(EXCHANGE, exchange_type="topic", durable=True)
    return EXCHANGE


def declare_alarms(channel: DeclaringChannel) -> str:
    """Declare the fanout exchange for alarms, bound to nothing yet; return its name."""
    channel.exchange_declare(ALARMS, exchange_type="fanout", durable=True)
    return ALARMS


def declare_trial(channel: DeclaringChannel) -> str:
    """Declare a topic exchange that nobody else knows, and that goes with its last binding; return its name."""
    name = f"topics.trial.{uuid.uuid4().hex}"
    channel.exchange_declare(name, exchange_type="topic", durable=True, auto_delete=True)
    return name


def declare_temporary(channel: DeclaringChannel) -> str:
    """Declare a queue that lives as long as its receiver's connection, bound to nothing yet; return its name."""
    channel.queue_declare(DEAD_LETTERS, durable=True, arguments={"x-queue-type": "quorum"})
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DEAD_LETTERS}
    # No name given: RabbitMQ makes one up.
    queue: str = channel.queue_declare("", exclusive=True, arguments=arguments).method.queue
    return queue
