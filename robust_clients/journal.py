"""What became of each order, in a file: lines such as ``confirmed 17``, which outlive the program that wrote them."""

import fcntl
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from itertools import groupby
from pathlib import Path

from common.errors import ExitCode, Failure

LINE = re.compile(rb"(sent|confirmed|received) ([1-9][0-9]{0,6})\n")
TORN = re.compile(rb"[a-z]{1,9}( [0-9]{0,7})?")


class JournalFailure(Failure):
    exit_code = ExitCode.DATA


class Journal:
    def __init__(self, path: Path, file: FileIO) -> None:
        self.events = {"sent": Counter[int](), "confirmed": Counter[int](), "received": Counter[int]()}
        self._path, self._file = path, file
        for place, line in enumerate(file.readlines(), 1):
            if match := LINE.fullmatch(line):
                self.events[match[1].decode()][int(match[2])] += 1
            elif TORN.fullmatch(line):
                # The last line, cut short when the disk was full: "confirmed 1" could have become 17.
                file.truncate(file.tell() - len(line))
            else:
                raise JournalFailure(f"{str(path)!r} is no journal (line {place}); name another file")

    def orders(self, event: str) -> set[int]:
        """The orders that were ``sent``, ``confirmed`` or ``received``."""
        return set(self.events[event])

    def note(self, event: str, order: int) -> None:
        line = b"%s %d\n" % (event.encode(), order)
        try:
            if self._file.write(line) != len(line):
                raise OSError(0, "the disk is full")
        except OSError as error:
            raise JournalFailure(f"journal {str(self._path)!r} cannot be written: {error.strerror}") from None
        self.events[event][order] += 1


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Open the journal, or begin one. A second program that wants it meanwhile is refused."""
    try:
        if path.exists() and not path.is_file():
            raise OSError(0, "it is not a file")
        # Unbuffered, so that SIGKILL loses no line. A power cut may, and then an order is sent once more.
        file = path.open("a+b", buffering=0)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        why = "another program uses it" if isinstance(error, BlockingIOError) else error.strerror
        raise JournalFailure(f"journal {str(path)!r} cannot be opened: {why}") from None
    with file:
        file.seek(0)
        yield Journal(path, file)


def ranges(orders: Iterable[int]) -> str:
    """The orders as text, with runs shortened: ``1-3, 7``; ``none`` if there are none."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(sorted(orders)), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs) or "none"
