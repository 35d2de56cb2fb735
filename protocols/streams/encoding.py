"""A sale in the form of AMQP 1.0, which is that of messages in a stream; RabbitMQ translates it for AMQP 0-9-1."""

import sale

from common.errors import BadMessage
from extras.optional import packages_for

with packages_for(__file__):
    from rstream import AMQPMessage, Properties, amqp_decoder


def encode(till: str, number: int) -> bytes:
    """The bytes that go into the stream."""
    message = AMQPMessage(
        # As bytes: a text becomes another kind of body, which rstream itself cannot read back.
        body=sale.text_of(till, number).encode(),
        properties=Properties(message_id=f"{till}-{number}", content_type="text/plain"),
        # These are what AMQP 0-9-1 calls headers.
        application_properties={"till": till, "number": number},
    )
    return bytes(message)


def decode(data: bytes) -> sale.Sale:
    """Raises BadMessage if it is no sale: anybody may write anything into a stream."""
    try:
        message = amqp_decoder(data)
        properties = message.application_properties or {}
        return sale.Sale(properties[b"till"].decode(), int(properties[b"number"]), bytes(message.body).decode())
    except Exception as error:
        # There is no end to what a decoder can trip over in bytes that are something else.
        raise BadMessage(f"it is not a sale: {type(error).__name__}") from None
