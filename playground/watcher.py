"""Outlives a server that is killed, and tidies up after it: ``python -m playground.watcher``, started by the server.

It reads its standard input, which ends when the server does, however that happens.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from common.config import Settings
from common.errors import Failure
from playground import leftovers
from playground.identity import Identity

_DONE = b"done"
_PATIENCE = 20.0


class Watcher:
    """The server's side of it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "playground.watcher", str(Identity.own())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).resolve().parent.parent,
            # Ctrl-C in the terminal is for the server.
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """All is tidied up already; the watcher has nothing to do and ends."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(_DONE)
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    server = sys.argv[1]
    if sys.stdin.buffer.read() == _DONE:
        return
    leftovers.kill(lambda mark: mark == server)
    # If the broker is away, the next start finds what is left.
    with suppress(Failure):
        leftovers.sweep(Settings.load())


if __name__ == "__main__":
    main()
