"""How long, and until when: delays in milliseconds, moments in milliseconds since 1970."""

import argparse
import math
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from datetime import time as time_of_day

import topology
from pika import BasicProperties

DUE = "x-due"
"""Our own header: when a message is due."""
LONGEST = topology.STEP * (2**topology.LEVELS - 1)
"""What all levels of the ladder add up to."""
LONGEST_TTL = 315_360_000_000
"""The longest time to live that RabbitMQ accepts, ten years; a longer one is refused, 3.10 and 4.3 alike."""


@dataclass(frozen=True)
class Route:
    """Where a message is published so that it waits, and the delays that it waits for one after the other."""

    exchange: str
    key: str
    delays: list[int]


def route(delay: int, address: str) -> Route:
    """The way down the ladder for ``delay``, at most LONGEST, to the queue that is bound to DUE for ``address``.

    It is never shorter than asked for: what is left over below the lowest level counts as a whole one.
    """
    steps = math.ceil(delay / topology.STEP)
    digits = f"{steps:0{topology.LEVELS}b}"
    levels = [level for level in reversed(range(topology.LEVELS)) if steps >> level & 1]
    # In at the highest level of those in which it waits; those above it would only pass it on.
    exchange = topology.level_name(levels[0]) if levels else topology.DUE
    return Route(exchange, ".".join([*digits, address]), [topology.STEP * 2**level for level in levels])


def now() -> int:
    """This moment; the fraction of a millisecond is cut off."""
    return time.time_ns() // 1_000_000


def lateness(properties: BasicProperties) -> int | None:
    """How late a message is; less than 0 if it is too early; None if it does not say when it is due."""
    due = (properties.headers or {}).get(DUE)
    return now() - due if isinstance(due, int) else None


def seconds(text: str) -> int:
    """A ``type`` for an argument: a number of seconds that the ladder can wait. In milliseconds."""
    return _seconds(text, LONGEST)


def seconds_of_one_queue(text: str) -> int:
    """A ``type`` for an argument: a number of seconds that one queue can wait. In milliseconds."""
    return _seconds(text, LONGEST_TTL)


def moment(text: str) -> int:
    """A ``type`` for an argument: a time of day, the next one, or a date and time; local unless it says otherwise."""
    today = datetime.now().astimezone()
    try:
        try:
            due = datetime.combine(today, time_of_day.fromisoformat(text)).astimezone()
            if due <= today:
                due += timedelta(days=1)
        except ValueError:
            due = datetime.fromisoformat(text).astimezone()
        left = (due - today).total_seconds()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"must be a time such as 18:30 or 2030-12-24T18:30, not {text!r}") from None
    if left < 0:
        raise argparse.ArgumentTypeError(f"must be a time to come, {text} is past")
    if left * 1000 > LONGEST:
        raise argparse.ArgumentTypeError(
            f"must be within {_in_words(LONGEST)}, what the ladder adds up to; {text} is in {_in_words(left * 1000)}"
        )
    return round(due.timestamp() * 1000)


def _seconds(text: str, longest: int) -> int:
    try:
        delay = float(text) * 1000
    except ValueError:
        delay = math.nan
    if not 0 <= delay <= longest:
        raise argparse.ArgumentTypeError(
            f"must be a number of seconds from 0 to {longest / 1000:.0f} ({_in_words(longest)}), not {text!r}"
        )
    return math.ceil(delay)


def _in_words(delay: float) -> str:
    return f"{delay / 86_400_000:,.0f} days"
