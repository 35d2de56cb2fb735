"""The exchange of this lesson, which both ends declare, and how the queues of durable subscribers are named."""

from common.connection import Channel

EXCHANGE = "publish_subscribe.logs"
SUBSCRIBER = "publish_subscribe.subscriber."


def declare(channel: Channel) -> str:
    """Declare the exchange, which copies each message to every queue that is bound to it; return its name."""
    channel.exchange_declare(EXCHANGE, exchange_type="fanout", durable=True)
    return EXCHANGE
