"""The book in which all consumers write what they have done: what happened in which order, whoever did it."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.errors import BadMessage, CannotWork, ExitCode


@dataclass(frozen=True)
class Event:
    """The ``step`` of a parcel, from 1; ``of``: how many it has, as far as its sender knew."""

    parcel: str
    step: int
    of: int

    @classmethod
    def read(cls, data: Any) -> "Event":
        """The event in decoded JSON. Raises BadMessage if it is none."""
        match data:
            # In Python, true is a number too.
            case {"parcel": str(parcel), "step": int(step), "of": int(of)} if 1 <= step <= of < 2**31 and parcel:
                if not isinstance(step, bool) and not isinstance(of, bool):
                    return cls(parcel, step, of)
        raise BadMessage("this is no event: it needs a parcel, and a step from 1 to of")

    def __str__(self) -> str:
        return f"{self.parcel}: step {self.step} of {self.of}"


class BookFailure(CannotWork):
    """The book cannot be written or read."""

    exit_code = ExitCode.OUTPUT


def write(book: Path, event: Event, queue: str) -> None:
    """Add a line. Raises BookFailure."""
    line = json.dumps({**asdict(event), "queue": queue}) + "\n"
    try:
        # Appended in one go, so that the lines of several programs do not get mixed up.
        with book.open("ab", buffering=0) as file:
            file.write(line.encode())
    except OSError as error:
        raise BookFailure(f"{book} cannot be written: {error.strerror}") from None


def read(book: Path) -> Iterator[tuple[Event, str]]:
    """The events in the order in which they were done, each with its queue. Raises BookFailure."""
    try:
        lines = book.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BookFailure(f"{book} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        try:
            data = json.loads(line)
            yield Event.read(data), str(data.get("queue"))
        except (ValueError, BadMessage):
            raise BookFailure(f"{book} has no event in line {number}; is this another file?") from None
