"""Erlang's port mapper, by which the nodes of one machine find each other: a private one, on loopback.

Erlang would start one by itself: as a daemon that listens on all addresses and outlives the nodes.
"""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

from broker.daemon import Daemon, surroundings
from broker.ports import is_listening
from common.errors import ExitCode, Failure

TIMEOUT = 10.0


class EpmdFailure(Failure):
    """Erlang's port mapper is not there, or did not start."""

    exit_code = ExitCode.UNAVAILABLE


class Epmd:
    """A port mapper at ``port``; its note and output are in ``directory``."""

    def __init__(self, directory: Path, port: int) -> None:
        self.port = port
        self._daemon = Daemon(directory, "epmd")

    @property
    def running(self) -> bool:
        """Whether the one that we started is there."""
        return self._daemon.find() is not None

    def exposed(self) -> list[str]:
        """The addresses at which ours listens, but those that only this machine can reach."""
        return self._daemon.exposed()

    def start(self) -> None:
        """Start it and wait until it listens; no-op if one does. Raises EpmdFailure."""
        if is_listening("127.0.0.1", self.port):
            return
        self._daemon.start([_program(), "-port", str(self.port), "-address", "127.0.0.1"], surroundings())
        end = time.monotonic() + TIMEOUT
        while not is_listening("127.0.0.1", self.port):
            if self._daemon.find() is None or time.monotonic() > end:
                self.stop()
                raise EpmdFailure(f"Erlang's port mapper did not start: {self._daemon.told().strip()[:200]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it if we started it."""
        self._daemon.end(signal.SIGTERM, TIMEOUT)


def _program() -> str:
    """It is on the PATH, or beside the Erlang that is."""
    if path := shutil.which("epmd"):
        return path
    erl = shutil.which("erl")
    found = sorted(Path(erl).resolve().parent.parent.glob("erts-*/bin/epmd")) if erl else []
    if not found:
        raise EpmdFailure("epmd, a program of Erlang, is not found; is Erlang installed?")
    return str(found[-1])
