"""The journal of what was booked, in the order in which it happened: a text file with a line for each movement."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from common.errors import ExitCode, Failure
from robust_pika import StopConsuming


class BadJournal(Failure):
    """The file cannot be read or written, or is no journal."""

    exit_code = ExitCode.DATA


class JournalGone(StopConsuming):
    """What was booked can no longer be noted."""

    exit_code = ExitCode.OUTPUT


class Journal:
    """Lines are appended in one go, which the system does not mix with those of others, and so they are in order."""

    def __init__(self, path: Path) -> None:
        """Raises BadJournal if the file cannot be opened."""
        self._path = path
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise BadJournal(f"the journal {path} cannot be written: {error.strerror}") from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        os.close(self._file)

    def note(self, account: str, number: int) -> None:
        """This movement is booked. Raises JournalGone."""
        try:
            os.write(self._file, f"{number} {account}\n".encode())
        except OSError as error:
            raise JournalGone(f"the journal {self._path} cannot be written: {error.strerror}") from None


@dataclass
class Account:
    """What a journal says of one account."""

    booked: set[int] = field(default_factory=set)
    due: int = 1
    """The smallest number that is not booked."""
    early: list[tuple[int, int]] = field(default_factory=list)
    """What was booked too early: (number, the one that was due)."""
    again: int = 0
    """How often a movement was booked that had been booked before."""

    def note(self, number: int) -> None:
        """The next line about this account."""
        if number in self.booked:
            self.again += 1
            return
        if number > self.due:
            self.early.append((number, self.due))
        self.booked.add(number)
        while self.due in self.booked:
            self.due += 1

    @property
    def missing(self) -> list[int]:
        """Those that are not booked although a later one is."""
        return sorted(set(range(self.due, max(self.booked, default=0))) - self.booked)


def read(path: Path) -> dict[str, Account]:
    """What the journal says, by account. Raises BadJournal."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadJournal(
            f"the journal {path} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}"
        ) from None
    accounts: dict[str, Account] = {}
    for place, line in enumerate(lines, 1):
        number, _, name = line.partition(" ")
        if not (number.isdecimal() and name):
            raise BadJournal(f"{path}, line {place}, is no line of a journal: {line[:60]!r}")
        accounts.setdefault(name, Account()).note(int(number))
    return accounts
