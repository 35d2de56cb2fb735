"""Bodies and properties: how the examples encode what they publish, and decode what others have written."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from pika import BasicProperties, DeliveryMode

from robust_pika.errors import BadMessage
from robust_pika.messages import MAX_BODY_BYTES, check_size, decode_json, decode_text

__all__ = ["MAX_BODY_BYTES", "BadMessage", "decode_json", "decode_text", "encode_json", "encode_text", "properties"]


def properties(
    content_type: str = "text/plain", *, type: str | None = None, headers: dict[str, Any] | None = None, **more: Any
) -> BasicProperties:
    """Properties of a persistent message with an id (UUID) and a timestamp (seconds since 1970).

    ``more`` goes to ``pika.BasicProperties`` as it is: ``correlation_id``, ``expiration`` (milliseconds, as text), …
    """
    more.setdefault("delivery_mode", DeliveryMode.Persistent)
    more.setdefault("timestamp", int(time.time()))
    if "message_id" not in more:
        more["message_id"] = str(uuid.uuid4())
    return BasicProperties(content_type, type=type, headers=headers, **more)


def encode_text(text: str) -> bytes:
    """Text as UTF-8. Raises BadMessage if it is empty, larger than MAX_BODY_BYTES or cannot be encoded."""
    try:
        body = text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadMessage("the text is not valid UTF-8; send text in UTF-8") from None
    check_size(body, "text")
    return body


def encode_json(value: Any) -> bytes:
    """A value as compact JSON. Raises BadMessage if it has no JSON form or is larger than MAX_BODY_BYTES."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadMessage(f"the value cannot be written as JSON: {error}") from None
    return encode_text(text)
