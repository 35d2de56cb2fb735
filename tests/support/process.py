"""Scripts as real processes: start one, read its lines with a limit, signal it; and waiting for a condition."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import TypeVar

from tests.support.forked import ROOT, Forked, may_fork

LIMIT = 30.0

Value = TypeVar("Value")


def wait_until(condition: Callable[[], Value], limit: float = LIMIT, every: float = 0.05) -> Value:
    """What ``condition`` returns as soon as that is true; fails after ``limit`` seconds with what it returned last."""
    deadline = time.monotonic() + limit
    while not (value := condition()):
        assert time.monotonic() < deadline, f"still {value!r} after {limit:g} s"
        time.sleep(every)
    return value


@dataclass(frozen=True)
class Finished:
    """A script that has ended."""

    code: int
    out: str
    err: str


def run_script(
    *arguments: str,
    environ: Mapping[str, str],
    stdin: bytes = b"",
    limit: float = LIMIT,
    folder: Path = ROOT,
) -> Finished:
    """Run ``python <arguments>`` to its end, which must come within ``limit`` seconds."""
    if may_fork(arguments, environ):
        with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
            given.write(stdin)
            given.seek(0)
            process = Forked(arguments, environ, folder, (given.fileno(), out.fileno(), err.fileno()))
            try:
                code = process.wait(limit)
            finally:
                process.kill()
            out.seek(0)
            err.seek(0)
            return Finished(code, out.read().decode(), err.read().decode())
    done = subprocess.run(
        [sys.executable, *arguments],
        input=stdin,
        env=dict(environ),
        cwd=folder,
        capture_output=True,
        timeout=limit,
        check=False,
    )
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


class Script:
    """``python <arguments>``, running; standard output and error in one stream of lines.

    Use it with ``with``: whatever still runs at the end is killed.
    """

    def __init__(self, *arguments: str, environ: Mapping[str, str], folder: Path = ROOT) -> None:
        environ = {**environ, "PYTHONUNBUFFERED": "1"}
        readable, writable = os.pipe()
        self._stream = open(readable, "rb")  # noqa: SIM115  the thread that reads closes it
        self._process: subprocess.Popen[bytes] | Forked
        with open(os.devnull, "rb") as nothing, open(writable, "wb") as output:
            if may_fork(arguments, environ):
                streams = nothing.fileno(), output.fileno(), output.fileno()
                self._process = Forked(arguments, environ, folder, streams)
            else:
                command = [sys.executable, *arguments]
                self._process = subprocess.Popen(
                    command, env=environ, cwd=folder, stdin=nothing, stdout=output, stderr=output
                )
        self._lines: list[str] = []
        self._next = 0
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Script:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(LIMIT)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def lines(self) -> list[str]:
        """All lines so far."""
        with self._news:
            return list(self._lines)

    @property
    def code(self) -> int | None:
        """Its exit code, None while it runs; negative for the signal that ended it."""
        return self._process.poll()

    def expect(self, pattern: str, limit: float = LIMIT) -> re.Match[str]:
        """Pass over lines until one in which the regular expression is found.

        Fails, with all lines so far, after ``limit`` seconds or when the script ends without it.
        """
        deadline = time.monotonic() + limit
        while True:
            line = self._line(deadline)
            if line is None:
                reason = f"ended with {self._process.wait(LIMIT)}" if self._ended else f"{limit:g} s have passed"
                raise AssertionError("\n".join([f"no line with {pattern!r}: {reason}", *self.lines]))
            if match := re.search(pattern, line):
                return match

    def follow(self) -> Iterator[str]:
        """The lines that were not passed over yet, each as it comes, until the script ends."""
        while (line := self._line(time.monotonic() + 86400)) is not None:
            yield line

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def pause(self) -> None:
        """Hold it (SIGSTOP) until ``resume``."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self._process.send_signal(signal.SIGCONT)

    def wait(self, limit: float = LIMIT) -> int:
        """Its exit code. Fails, with all lines so far, if it has not ended within ``limit`` seconds."""
        try:
            code = self._process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError("\n".join([f"still running after {limit:g} s", *self.lines])) from None
        self._reader.join(LIMIT)
        return code

    def _line(self, deadline: float) -> str | None:
        with self._news:
            while self._next == len(self._lines):
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    return None
                self._news.wait(left)
            self._next += 1
            return self._lines[self._next - 1]

    def _read(self) -> None:
        with self._stream as stream:
            for raw in stream:
                with self._news:
                    self._lines.append(raw.decode("utf-8", "replace").rstrip("\r\n"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()
