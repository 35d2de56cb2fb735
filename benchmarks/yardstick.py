"""The C client: compiled when there is a compiler and librabbitmq, else left out with a sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measure import Lab
from common.config import Settings

SOURCE = Path(__file__).with_name("yardstick.c")
MISSING = "the C yardstick needs gcc and librabbitmq (Debian, Ubuntu: sudo apt-get install gcc librabbitmq-dev)"


class Yardstick:
    """The compiled program."""

    def __init__(self, program: Path, settings: Settings) -> None:
        self._program = program
        self._settings = settings

    def publish(self, queue: str, count: int, size: int, window: int) -> float:
        """The seconds it takes to publish so many messages and have them confirmed."""
        return self._run("publish", queue, count, size, window)

    def consume(self, queue: str, count: int, prefetch: int, ack_every: int) -> float:
        """The seconds it takes to consume so many messages."""
        return self._run("consume", queue, count, prefetch, ack_every)

    def _run(self, what: str, queue: str, *numbers: int) -> float:
        at = self._settings.addresses[0]
        arguments = [what, at.host, at.port, self._settings.user, self._settings.vhost, queue, *numbers]
        done = subprocess.run(
            [str(self._program), *map(str, arguments)],
            env={**os.environ, "YARDSTICK_PASSWORD": self._settings.password},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        return float(done.stdout)


@contextmanager
def compiled(lab: Lab) -> Iterator[Yardstick | None]:
    """The yardstick for this lab's broker; None, with the reason among those of the lab, if it cannot be had."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    with TemporaryDirectory(prefix="yardstick.") as folder:
        program = Path(folder) / "yardstick"
        if compiler is None or lab.settings.tls is not None:
            lab.skip(MISSING if compiler is None else "the C yardstick does not speak TLS")
            yield None
            return
        command = [compiler, "-O2", "-o", str(program), str(SOURCE), "-lrabbitmq"]
        if subprocess.run(command, capture_output=True, timeout=60, check=False).returncode:
            lab.skip(MISSING)
            yield None
            return
        yield Yardstick(program, lab.settings)
