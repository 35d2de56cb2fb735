"""What a reader does to the broker with the page: publish a message, fill a queue, cut a connection."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from common import messages
from common.config import Settings
from common.errors import BadMessage, ExitCode, Failure
from extras.management import Management, NotFound
from robust_pika import Publisher
from robust_pika.messages import check_name

USER = "you"
"""The name of the user who publishes for the reader; see broker_side."""
RESTART = "python -m broker restart"
MOST_BYTES = 64 * 1024
MOST_FILL = 5000
_HEADERS = 30


class NotPublished(Failure):
    """What the reader typed cannot be a message; the text says which part."""

    exit_code = ExitCode.DATA


@dataclass(frozen=True, slots=True)
class Typed:
    """A message that a reader has typed."""

    exchange: str
    key: str
    headers: dict[str, Any]
    body: str


def message(request: dict[str, Any]) -> Typed:
    """Read the page's form. Raises NotPublished or BadMessage."""
    values = [request.get(name, "") for name in ("exchange", "key", "headers", "body")]
    if not all(isinstance(value, str) for value in values):
        raise NotPublished("the form cannot be read")
    exchange, key, headers, body = map(str, values)
    check_name("name of the exchange", exchange)
    check_name("routing key", key)
    if not body:
        raise NotPublished("the body is empty; give it at least one character")
    if len(body.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise NotPublished(f"the body is larger than the {MOST_BYTES // 1024} KiB that can be published by hand")
    return Typed(exchange, key, _headers(headers), body)


def _headers(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotPublished(f'the headers are not JSON ({error}); write for example {{"colour": "red"}}') from None
    if not isinstance(found, dict) or len(found) > _HEADERS:
        raise NotPublished(f'the headers must be a JSON object of up to {_HEADERS} names, such as {{"colour": "red"}}')
    for name, value in found.items():
        number = isinstance(value, int) and abs(value) < 2**63
        if len(name.encode("utf-8", "replace")) > 128 or not (number or isinstance(value, (str, float))):
            raise NotPublished(f"the header {name[:40]!r} must be a text, a number, true or false")
    return found


def filling(queue: str, count: Any) -> list[Typed]:
    """``count`` messages for one queue. Raises NotPublished."""
    if not isinstance(count, int) or not 1 <= count <= MOST_FILL:
        raise NotPublished(f"the number of messages must be a whole number from 1 to {MOST_FILL}")
    return [Typed("", queue, {}, f"{number}: a message to fill the queue") for number in range(1, count + 1)]


def publish(settings: Settings, *typed: Typed) -> None:
    """Publish, and wait for RabbitMQ's confirms. Raises NotPublished, or a RobustPikaError if RabbitMQ refuses."""
    with Publisher("playground: you", settings) as publisher:
        for item in typed:
            properties = messages.properties("text/plain", headers=item.headers or None)
            try:
                body = messages.encode_text(item.body)
            except BadMessage as error:
                raise NotPublished(str(error)) from None
            publisher.publish(item.exchange, item.key, body, properties)
        publisher.flush()


def cut(api: Management, wanted: Callable[[str], bool]) -> int:
    """Close the connections whose user is ``wanted``; return how many there were."""
    count = 0
    for connection in api.connections():
        if wanted(connection.user):
            try:
                api.close_connection(connection.name, "cut by the playground")
            except NotFound:
                continue
            count += 1
    return count
