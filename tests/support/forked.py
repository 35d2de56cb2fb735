"""Scripts as forks of a process that has imported what most of them import: they start in a tenth of the time.

To a script it makes no difference, because importing does nothing (tests/test_architecture.py sees to that): it is a
process with its own id, arguments, environment, folder and streams, which can be killed. What only the start of an
interpreter does (``-c``, PYTHON… in the environment, another locale) is left to a new one, as ``may_fork`` says; so are
all scenarios of the READMEs, which start every script as its reader does.
"""

from __future__ import annotations

import gc
import io
import multiprocessing
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

OURS = ("common", "broker", "deploy", "tour")
IMPORTED = (
    *(f"{name}.{path.stem}" for name in OURS for path in (ROOT / name).glob("[a-z]*.py")),
    "aio_pika",
    "paho.mqtt.client",
    "rstream",
    "sqlalchemy.dialects.sqlite",
    "stomp",
)
"""What is imported beforehand, if it is installed. Not our folders of scripts: their files are named alike."""

STREAMS = ("stdin", "stdout", "stderr")

READ_AT_THE_START = re.compile(r"PYTHON(?!UNBUFFERED$|DONTWRITEBYTECODE$)|LC_|LANG|LD_|TZ$")
"""Variables that an interpreter or the C library reads once."""


def may_fork(arguments: tuple[str, ...], environ: Mapping[str, str]) -> bool:
    """Whether a fork is as good as a new interpreter for ``python <arguments>`` in this environment."""
    changed = {name for name in {*environ, *os.environ} if environ.get(name) != os.environ.get(name)}
    return not any(map(READ_AT_THE_START.match, changed)) and (arguments[0].endswith(".py") or arguments[0] == "-m")


class Forked:
    """``python <arguments>`` in a fork; what tests use of ``subprocess.Popen``."""

    def __init__(
        self, arguments: tuple[str, ...], environ: Mapping[str, str], folder: Path, streams: tuple[int, int, int]
    ) -> None:
        """``streams``: what it reads, prints and complains to; these descriptors stay open here. Raises OSError."""
        given = (arguments, dict(environ), str(folder), [DupFd(stream) for stream in streams])
        self._process = _server().Process(target=_run, args=given, daemon=True)
        self._asking = threading.Lock()
        self._process.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code, None while it runs; negative for the signal that ended it."""
        with self._asking:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired after ``timeout`` seconds."""
        wait([self._process.sentinel], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


@cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*IMPORTED, __name__])
    return context


def _run(arguments: tuple[str, ...], environ: dict[str, str], folder: str, streams: list[Any]) -> None:
    """Become ``python <arguments>``; in the fork."""
    # The memory that is shared with the other forks is not looked through for garbage, which would make copies of it.
    gc.freeze()
    for number, stream in enumerate(streams):
        opened = stream.detach()
        os.dup2(opened, number)
        os.close(opened)
    unbuffered = "PYTHONUNBUFFERED" in environ
    for number, name in enumerate(STREAMS):
        inherited = getattr(sys, f"__{name}__")
        mode, buffering = ("wb", 0 if unbuffered else -1) if number else ("rb", -1)
        fresh = io.TextIOWrapper(
            open(number, mode, buffering, closefd=False),  # noqa: SIM115  it is the script's to close
            encoding=inherited.encoding,
            errors=inherited.errors,
            line_buffering=name == "stderr",
            write_through=unbuffered,
        )
        setattr(sys, name, fresh)
        setattr(sys, f"__{name}__", fresh)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    # As a new interpreter has it: our packages come last.
    sys.path[:] = [*(entry for entry in sys.path if entry and Path(entry) != ROOT), str(ROOT)]
    name = arguments[0]
    if name == "-m":
        sys.path.insert(0, folder)
        sys.argv = list(arguments[1:])
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(name).resolve().parent))
        sys.argv = list(arguments)
        runpy.run_path(name, run_name="__main__")
