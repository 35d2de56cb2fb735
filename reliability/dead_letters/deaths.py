"""What a dead letter says of its deaths, in the headers that RabbitMQ writes; and the message without them."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pika import BasicProperties

WRITTEN_BY_RABBITMQ = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
SENDER_SELECTED = ("CC", "BCC")
"""In these headers a publisher may name more routing keys: sent again, the message would go there again."""


@dataclass(frozen=True)
class Death:
    """``count`` deaths for the same reason in the same queue; ``time`` (UTC) is that of the first of them."""

    reason: str
    queue: str
    count: int
    time: datetime | None


def deaths(properties: BasicProperties) -> list[Death]:
    """The deaths of a message, the last one first; none if it did not die but was just put there."""
    entries = (properties.headers or {}).get("x-death")
    # Anybody may put a message into a queue, with any header.
    return [_death(entry) for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []


def revived(properties: BasicProperties) -> BasicProperties:
    """The properties as they were before the first death, with all that the publisher had set."""
    fresh = copy.copy(properties)
    fresh.headers = {
        name: value
        for name, value in (properties.headers or {}).items()
        if not name.startswith(WRITTEN_BY_RABBITMQ) and name not in SENDER_SELECTED
    }
    # RabbitMQ lets only this user publish in this user's name.
    fresh.user_id = None
    return fresh


def _death(entry: Mapping[str, Any]) -> Death:
    count, time = entry.get("count"), entry.get("time")
    return Death(
        str(entry.get("reason", "")),
        str(entry.get("queue", "")),
        count if isinstance(count, int) else 1,
        time if isinstance(time, datetime) else None,
    )
