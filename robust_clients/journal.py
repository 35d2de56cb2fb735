"""What became of each order, in a file: lines such as ``confirmed 17``, which outlive the program that wrote them.

Each line is given to the operating system at once, so that SIGKILL takes none of them back. A power cut may, as
nothing is synced to the disk here, and that does no harm: an order whose line is lost is sent once more.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from common.errors import ExitCode, Failure

LINE = re.compile(rb"(sent|confirmed|received) ([1-9][0-9]{0,6})\n")
TORN = re.compile(rb"[a-z]{1,9}( [0-9]{0,7})?")


class JournalFailure(Failure):
    """The file cannot be used; the text says why."""

    exit_code = ExitCode.DATA


class Journal:
    """The journal of one producer; use it with ``with``. A second program that wants it meanwhile is refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sent: set[int] = set()
        self.confirmed: set[int] = set()
        self.received: Counter[int] = Counter()

    def __enter__(self) -> Journal:
        if self.path.exists() and not self.path.is_file():
            raise JournalFailure(f"journal {str(self.path)!r} is not a file; name another one")
        try:
            self._file = self.path.open("a+b", buffering=0)
        except OSError as error:
            raise JournalFailure(f"journal {str(self.path)!r} cannot be opened: {error.strerror}") from None
        try:
            # SIGKILL ends this lock too.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read()
        except BlockingIOError:
            self._file.close()
            raise JournalFailure(f"journal {str(self.path)!r} is in use by another program; wait for it") from None
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def note(self, event: str, number: int) -> None:
        """Write down that order ``number`` was ``sent``, ``confirmed`` or ``received``."""
        line = b"%s %d\n" % (event.encode(), number)
        try:
            written = self._file.write(line)
        except OSError as error:
            raise JournalFailure(f"journal {str(self.path)!r} cannot be written: {error.strerror}") from None
        if written != len(line):
            raise JournalFailure(f"journal {str(self.path)!r} cannot be written: the disk is full")
        self._count(event, number)

    def _count(self, event: str, number: int) -> None:
        if event == "received":
            self.received[number] += 1
        else:
            (self.sent if event == "sent" else self.confirmed).add(number)

    def _read(self) -> None:
        self._file.seek(0)
        end = 0
        for place, line in enumerate(self._file, 1):
            if match := LINE.fullmatch(line):
                self._count(match[1].decode(), int(match[2]))
            elif TORN.fullmatch(line):
                # The last line, cut short when the disk was full: "confirmed 1" may have been meant as 17.
                os.ftruncate(self._file.fileno(), end)
            else:
                raise JournalFailure(f"{str(self.path)!r} is no journal (line {place}); name another file")
            end += len(line)


def ranges(numbers: Iterable[int]) -> str:
    """The numbers in their order, runs of them shortened: ``1-3, 7``; ``none`` if there are none."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs) or "none"
