"""The names and the exchange of this lesson, which both ends declare."""

from common.connection import Channel

EXCHANGE = "topics.logs"
ALARMS = "topics.alarms"
ON_DUTY = "topics.on_duty"


def declare(channel: Channel) -> str:
    """Declare the topic exchange; return its name."""
    channel.exchange_declare(EXCHANGE, exchange_type="topic", durable=True)
    return EXCHANGE
