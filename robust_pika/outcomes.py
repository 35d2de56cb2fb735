"""What a consumer's handler says about its message."""

from __future__ import annotations

from enum import Enum, auto

from pika.spec import BasicProperties

from robust_pika._io.ledger import Encoded
from robust_pika.messages import check_name


class Outcome(Enum):
    """What becomes of a message when its handler has returned."""

    ACK = auto()
    """Done: the broker deletes the message (``basic.ack``)."""
    REJECT = auto()
    """Not usable: to the queue's dead-letter exchange, or dropped if it has none (``basic.reject``)."""
    REQUEUE = auto()
    """Not now: back to the queue. Counts towards a quorum queue's delivery limit (``basic.reject``, requeue)."""


class OnError(Enum):
    """What ``consume`` does when a handler raises an error that is no Reject and no StopConsuming: a bug, probably."""

    REQUEUE = auto()
    """Back to the queue after a pause, which doubles with each failure in a row (0.1 s to 30 s)."""
    REJECT = auto()
    """Reject the message. A bug then moves a whole queue to the dead letters as fast as it can."""
    STOP = auto()
    """Give the message back, stop, and raise the error."""


class Answer:
    """What a handler returns instead of ``Outcome.ACK`` to publish a message, such as a reply, before acknowledging.

    The answer goes to the queue ``address``, on the channel that the message came on and right before its
    acknowledgement. RabbitMQ handles a channel's commands in order, so a message that it takes as done has been
    answered; one that is delivered again, because the channel broke, may be answered twice. A ``mandatory`` answer
    that no queue takes is logged. Raises BadMessage for what AMQP cannot carry.
    """

    exchange = ""

    def __init__(self, address: str, body: bytes, properties: BasicProperties, *, mandatory: bool = False) -> None:
        # Checked here and not when it is sent: what is wrong with one answer must not end the consumer.
        check_name("address of the answer", address)
        self.routing_key = address
        self.body = body
        self.properties = Encoded(properties)
        self.mandatory = mandatory
