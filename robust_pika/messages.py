"""A delivered message, and how a body that a stranger wrote is read safely."""

from __future__ import annotations

import json
from typing import Any

from pika import BasicProperties

from robust_pika.errors import BadMessage

MAX_BODY_BYTES = 16 * 1024 * 1024
"""The default ``max_message_size`` of RabbitMQ 4.x, in bytes (3.x: 128 MiB)."""


class Message:
    """A delivered message: its body in bytes, its properties, and where it came from."""

    # Thousands wait at once.
    __slots__ = ("_properties", "body", "exchange", "redelivered", "routing_key")

    def __init__(
        self,
        body: bytes,
        properties: BasicProperties | bytes,
        exchange: str,
        routing_key: str,
        redelivered: bool = False,
    ) -> None:
        self.body = body
        self.exchange = exchange
        self.routing_key = routing_key
        self.redelivered = redelivered
        self._properties = properties

    def __repr__(self) -> str:
        return f"Message({self.name}, {len(self.body):,} bytes, from {self.exchange!r} with key {self.routing_key!r})"

    @property
    def properties(self) -> BasicProperties:
        """The properties, decoded when they are first asked for. Raises BadMessage if they cannot be decoded."""
        found = self._properties
        if isinstance(found, bytes):
            decoded = BasicProperties()
            try:
                decoded.decode(found)
            except Exception as error:  # pika raises struct errors, index errors and its own, depending on the field
                raise BadMessage(
                    f"the message's properties cannot be decoded: {error or type(error).__name__}"
                ) from None
            found = self._properties = decoded
        return found

    @property
    def name(self) -> str:
        """Its message id, for a line about it; "(no id)" if it has none, or none that can be decoded."""
        try:
            return str(self.properties.message_id or "(no id)")
        except BadMessage:
            return "(no id)"

    def text(self) -> str:
        """The body as UTF-8 text. Raises BadMessage if it is empty, too large, not UTF-8, or declared to be no text."""
        declared = self.properties.content_type
        # Many clients do not say what they send; those that do are taken at their word.
        if declared and not str(declared).lower().startswith("text/"):  # pika gives bytes if it is not UTF-8
            raise BadMessage(f"the body is {declared!r}, not text")
        return decode_text(self.body)

    def json(self) -> Any:
        """The body as JSON (RFC 8259). Raises BadMessage if it is empty, too large or not JSON."""
        return decode_json(self.body)


def decode_text(body: bytes) -> str:
    """A body as UTF-8 text. Raises BadMessage if it is empty, larger than MAX_BODY_BYTES or not UTF-8."""
    check_size(body, "message")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadMessage(f"the body is not UTF-8 text (byte {error.start})") from None


def decode_json(body: bytes) -> Any:
    """A body as JSON (RFC 8259). Raises BadMessage if it is empty, too large or not JSON."""
    text = decode_text(body)
    try:
        # RFC 8259 has no NaN and no Infinity; Python would accept them.
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"the body is not JSON: {error}") from None


def check_name(what: str, name: str) -> None:
    """Raise BadMessage unless AMQP can carry this name of an exchange or queue, or this routing key."""
    if name.isascii() and len(name) <= 255:
        return  # almost all of them
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise BadMessage(f"the {what} is not valid UTF-8") from None
    if size > 255:
        raise BadMessage(f"the {what} has {size} bytes; AMQP allows 255")


def check_size(body: bytes, what: str) -> None:
    """Raise BadMessage if a body is empty, or larger than RabbitMQ accepts."""
    if not body:
        raise BadMessage(f"the {what} is empty; give it at least one character")
    if len(body) > MAX_BODY_BYTES:
        raise BadMessage(
            f"the {what} has {len(body):,} bytes, more than the {MAX_BODY_BYTES:,} that RabbitMQ accepts; "
            "store large data elsewhere and send where it is"
        )


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
