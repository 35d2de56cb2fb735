"""The names and the exchanges of this lesson; each script declares the exchange that it uses."""

from common.connection import Channel

SEVERITIES = ("info", "warning", "error")
EXCHANGE = "routing.logs"
UNROUTED = "routing.unrouted"
LABELLED = "routing.labelled_logs"


def declare(channel: Channel) -> str:
    """Declare the direct exchange, and the alternate exchange for what it cannot route; return the former's name."""
    channel.exchange_declare(UNROUTED, exchange_type="fanout", durable=True)
    channel.exchange_declare(EXCHANGE, exchange_type="direct", durable=True, arguments={"alternate-exchange": UNROUTED})
    return EXCHANGE


def declare_labelled(channel: Channel) -> str:
    """Declare the headers exchange; return its name."""
    channel.exchange_declare(LABELLED, exchange_type="headers", durable=True)
    return LABELLED
