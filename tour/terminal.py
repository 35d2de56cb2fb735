"""One terminal of a scenario: a command that runs in it, what it prints, the keys pressed in it."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import ExitCode, Failure
from tour.scenario import Block

# A program that a shell starts in the background ignores SIGINT, and so would its children.
_LISTENING = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"
)
_DRAIN = 1.0
_REAP = 10.0


class CommandError(Failure):
    """A command that cannot be started; the text names it."""

    exit_code = ExitCode.CONFIG


class Process:
    """A typed command, running in a process group of its own.

    ``on_line(text)`` is called for each line that it prints, standard error included, and ``on_exit(code)`` once,
    after the last line; both on threads of its own. A code is what a shell would show: 130 for a death by SIGINT.
    Whatever the command leaves behind in its group is killed when it ends.
    """

    def __init__(
        self,
        command: str,
        environ: Mapping[str, str],
        folder: Path,
        on_line: Callable[[str], None],
        on_exit: Callable[[int], None],
    ) -> None:
        """Start ``command`` in ``folder``. Raises CommandError."""
        argv, extra = split(command)
        values = {**environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "80"}
        # `python` and what is installed beside it are the ones that run the tour, in a shell too.
        values["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), values.get("PATH", os.defpath)))
        values.update(extra)
        if shutil.which(argv[0], path=values["PATH"]) is None and os.sep not in argv[0]:
            raise CommandError(f"cannot run {command!r}: {os.strerror(errno.ENOENT)}")
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            argv = [sys.executable, "-c", _LISTENING, *argv]
        self._on_line, self._on_exit = on_line, on_exit
        self._lock = threading.Lock()
        self._reaped = False
        self._over = False
        self._count = 0
        try:
            self._popen = subprocess.Popen(
                argv,
                cwd=folder,
                env=values,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise CommandError(f"cannot run {command!r}: {error.strerror or error}") from None
        self._reader = threading.Thread(target=self._read, name=f"read {argv[0]}", daemon=True)
        self._reader.start()
        self._waiter = threading.Thread(target=self._wait, name=f"wait for {argv[0]}", daemon=True)
        self._waiter.start()

    def interrupt(self) -> None:
        """Send SIGINT to the command and its children, as a terminal does when Ctrl-C is pressed."""
        self._signal(signal.SIGINT)

    def owns(self, pid: int) -> bool:
        """Whether this is the id of the command, or of one of its children, and it still runs."""
        with self._lock, suppress(ProcessLookupError, PermissionError):
            return not self._reaped and os.getpgid(pid) == self._popen.pid
        return False

    def kill(self) -> None:
        """End it and its children at once, and wait until they are gone."""
        self._signal(signal.SIGKILL)
        self._waiter.join(_REAP)

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            # Once it is reaped, its id may be somebody else's.
            if not self._reaped:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._popen.pid, number)

    def _read(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as stream:
            for raw in stream:
                if self._over:
                    return
                text = raw.decode("utf-8", "replace").rstrip("\r\n")
                self._count += 1
                # A carriage return begins the line anew, as in a terminal.
                self._on_line(text.rsplit("\r", 1)[-1])

    def _wait(self) -> None:
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT)
            self._signal(signal.SIGKILL)
        else:
            self._popen.wait()
        with self._lock:
            code = self._popen.wait()
            self._reaped = True
        # A daemon that it has started may hold the pipe open for ever; what that prints is not the command's.
        before = -1
        while self._reader.is_alive() and self._count != before:
            before = self._count
            self._reader.join(_DRAIN)
        self._over = True
        self._on_exit(128 - code if code < 0 else code)


@dataclass(slots=True, eq=False)
class Terminal:
    """The state of a terminal: what its command has printed, and how much of that the README has told.

    ``lines`` is all that the command printed, ``unread`` what no block has told yet. ``anything`` is true below a line
    ``…``, and then ``passed`` is what has been passed over. ``code`` is the command's exit code once it has returned,
    ``done`` that this was expected. ``stopped`` is the key or the command that has asked it to end, ``killed`` that
    it has no time for anything, so that its exit code does not matter. ``last`` is the last block that happened here.
    """

    number: int
    role: str = ""
    process: Process | None = None
    lines: list[str] = field(default_factory=list)
    unread: deque[str] = field(default_factory=deque)
    anything: bool = False
    passed: list[str] = field(default_factory=list)
    stopped: str = ""
    killed: bool = False
    code: int | None = None
    done: bool = False
    last: Block | None = None

    def started(self) -> None:
        """A new command begins in it."""
        self.lines.clear()
        self.unread.clear()
        self.passed.clear()
        self.anything, self.stopped, self.killed, self.code, self.done = False, "", False, None, False

    @property
    def label(self) -> str:
        """What to call it in a column: ``1 worker``."""
        return f"{self.number} {self.role}".rstrip()

    @property
    def name(self) -> str:
        """What to call it in a sentence."""
        return f"terminal {self.number} ({self.role})" if self.role else f"terminal {self.number}"

    def read(self) -> None:
        """The next line is told by a block."""
        self.unread.popleft()
        self.passed.clear()
        self.anything = False

    def pass_over(self) -> None:
        """The next line falls under a line ``…``."""
        self.passed.append(self.unread.popleft())

    @property
    def excess(self) -> bool:
        """Whether it has printed what no block tells, so far."""
        return bool(self.unread) and not self.anything

    def printed(self, line: str) -> None:
        """A line came out; blank ones only set others apart."""
        line = line.rstrip()
        if line:
            self.lines.append(line)
            self.unread.append(line)


def split(command: str) -> tuple[list[str], dict[str, str]]:
    """The program and arguments of a typed line, and the variables set before it.

    ``python`` becomes the one that runs this. A line that only a shell understands (pipes, redirections, variables,
    patterns) is given to ``sh``, and so is ``kill``: not every system has it as a program. Raises CommandError for a
    quote that is not closed.
    """
    if _needs_shell(command):
        return ["/bin/sh", "-c", command], {}
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise CommandError(f"cannot read {command!r}: {error}") from None
    variables: dict[str, str] = {}
    while words and (match := re.fullmatch(r"([A-Za-z_]\w*)=(.*)", words[0], re.DOTALL)):
        variables[match[1]] = match[2]
        words.pop(0)
    if not words:
        raise CommandError(f"{command!r} runs nothing")
    if words[0] == "kill":
        return ["/bin/sh", "-c", command], {}
    if words[0] in ("python", "python3"):
        words[0] = sys.executable
    return words, variables


def _needs_shell(command: str) -> bool:
    """Whether it has a character outside quotes that means something to a shell."""
    bare = re.sub(r"\\.|'[^']*'", "", command)
    return bool(re.search(r"[$`]|(^|\s)#", bare) or re.search(r"[|&;<>()*?\[~{]", re.sub(r'"[^"]*"', "", bare)))
