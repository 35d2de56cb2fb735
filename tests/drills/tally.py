"""What a drill counts, and the one line that tells it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

SECTION = "Failure drills"
"""The title of the drills' lines in the summary of the run."""


class Tally:
    """Messages by their number: sent, confirmed by the broker, seen by a consumer. Safe to use from several threads."""

    def __init__(self) -> None:
        self.sent = 0
        self.kills = 0
        self._confirmed: set[int] = set()
        self._seen: Counter[int] = Counter()
        self._change = threading.Condition()
        self._started = time.monotonic()

    def confirm(self, number: int) -> None:
        """The broker has taken responsibility for this message."""
        with self._change:
            self._confirmed.add(number)
            self._change.notify_all()

    def see(self, number: int) -> None:
        """A consumer was given this message."""
        with self._change:
            self._seen[number] += 1
            self._change.notify_all()

    @property
    def confirmed(self) -> int:
        """How many messages are confirmed."""
        return len(self._confirmed)

    @property
    def seen(self) -> int:
        """How many different messages were seen."""
        return len(self._seen)

    @property
    def total(self) -> int:
        """How often a message was seen, each time counted."""
        with self._change:
            return self._seen.total()

    @property
    def missing(self) -> list[int]:
        """The messages that are confirmed and were not seen: each of them is a lost message."""
        with self._change:
            return sorted(self._confirmed - self._seen.keys())

    @property
    def duplicates(self) -> int:
        """How often a message was seen again."""
        with self._change:
            return self._seen.total() - len(self._seen)

    def wait(self, condition: Callable[[], bool], limit: float, what: str) -> None:
        """Wait until ``condition`` holds; it is looked at when a count changes, and ten times a second.

        Raises AssertionError, with the counts, if it does not within ``limit`` seconds.
        """
        deadline = time.monotonic() + limit
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {limit:.0f} s for {what}; {self}")
            with self._change:
                self._change.wait(0.1)

    def __str__(self) -> str:
        seconds = time.monotonic() - self._started
        return (
            f"{self.sent:,} sent, {self.confirmed:,} confirmed, {self.seen:,} seen, {len(self.missing)} missing, "
            f"{self.duplicates:,} duplicates, {self.kills} kills, {seconds:.1f} s"
        )
