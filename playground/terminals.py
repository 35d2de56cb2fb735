"""The terminals of a session: one process each, its output kept within bounds, and the signals a reader can send."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from common import console
from playground.identity import TERMINAL
from playground.leftovers import marked
from tour.scenario import CTRL_C
from tour.terminal import Process

KEPT_LINES = 400
"""Lines of a terminal that are kept, and that a browser which joins late is shown."""
LONGEST_LINE = 1000
"""Characters of a line that are shown."""
SENT_LINES = 150
"""Lines of a terminal that are sent at once; of more, the last."""


class Terminal:
    """One terminal. Everything but the two callbacks of its process happens on the event loop's thread.

    ``number`` is the one that it has in the README, or one that no terminal has there; ``role`` is what runs in it.
    ``lasting`` says that it is a place of its own on the stage, whatever script runs in it. ``code`` is None while its
    process runs.
    """

    def __init__(self, number: int, role: str, lasting: bool, changed: Callable[[Terminal], None]) -> None:
        self.number, self.role, self.lasting = number, role, lasting
        self.command = ""
        self.process: Process | None = None
        self.code: int | None = None
        self.paused = False
        self.killed = False
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.unread: deque[str] = deque(maxlen=KEPT_LINES)
        self.unsent: deque[str] = deque(maxlen=SENT_LINES)
        self.skipped = 0
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._pending: deque[str | tuple[int, int]] = deque(maxlen=KEPT_LINES * 2)
        self._dropped = 0
        self._scheduled = False
        self._news = asyncio.Event()
        self._run = 0

    @property
    def id(self) -> str:
        """Its number, in writing."""
        return f"{self.number}"

    @property
    def title(self) -> str:
        """What the page calls it: ``1 worker``."""
        return f"{self.number} {self.role}".rstrip()

    @property
    def running(self) -> bool:
        """Whether its process runs, paused or not."""
        return self.process is not None and self.code is None

    @property
    def busy(self) -> bool:
        """Whether its process runs, or is about to."""
        return bool(self.command) and self.code is None

    @property
    def script(self) -> str:
        """The name of the script that its command runs, such as worker.py."""
        return script_of(self.command)

    def start(self, command: str, environ: Mapping[str, str], folder: Path, mark: str) -> None:
        """Run ``command``, a README's. Raises CommandError. To be called from any thread, after prepare()."""
        run = self._run

        def on_line(text: str) -> None:
            self._put(console.printable(text[:LONGEST_LINE]) + ("…" if len(text) > LONGEST_LINE else ""))

        def on_exit(code: int) -> None:
            self._put((run, code))

        self.process = Process(command, {**environ, TERMINAL: mark}, folder, on_line, on_exit)

    def prepare(self, command: str) -> None:
        """A new command begins: forget what the one before has printed and nobody has read."""
        self._run += 1
        self.command, self.code, self.paused, self.killed = command, None, False, False
        self.process = None
        self.unread.clear()
        self.note(f"$ {command}")

    def failed(self, reason: str) -> None:
        """Its command could not be started."""
        self.note(reason)
        self.code = 127
        self._tell()

    def note(self, line: str) -> None:
        """Show a line that the process has not printed."""
        self.lines.append(line)
        self.unsent.append(line)
        self._tell()

    def _put(self, what: str | tuple[int, int]) -> None:
        """Called on the process's threads."""
        with self._lock:
            if len(self._pending) == self._pending.maxlen:
                self._dropped += 1
            self._pending.append(what)
            if self._scheduled:
                return
            self._scheduled = True
        # The loop is closed while the server ends.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.call_later, 0.02, self._take)

    def _take(self) -> None:
        with self._lock:
            items, dropped = list(self._pending), self._dropped
            self._pending.clear()
            self._dropped, self._scheduled = 0, False
        self.skipped += dropped
        for item in items:
            if isinstance(item, str):
                if len(self.unsent) == self.unsent.maxlen:
                    self.skipped += 1
                self.lines.append(item)
                self.unsent.append(item)
                if item.strip():
                    self.unread.append(item)
            elif item[0] == self._run:
                self.code = item[1]
                self.paused = False
                self.note(ended(item[1]))
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._changed(self)

    async def news(self, seconds: float) -> None:
        """Wait until something happens in it, ``seconds`` at most."""
        self._news.clear()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._news.wait(), max(0.0, seconds))

    def sent(self) -> tuple[list[str], int]:
        """The lines that no browser has been sent yet, and how many were left out before them."""
        lines, skipped = list(self.unsent), self.skipped
        self.unsent.clear()
        self.skipped = 0
        return lines, skipped

    def interrupt(self) -> None:
        """Ctrl-C."""
        if self.process and self.running:
            self.note(CTRL_C)
            self.process.interrupt()

    def kill(self) -> None:
        """SIGKILL to it and its children; returns when they are gone. For any thread."""
        if self.process:
            self.process.kill()

    def state(self) -> dict[str, Any]:
        """What the page shows of it, its lines aside."""
        return {
            "id": self.id,
            "title": self.title,
            "role": self.role,
            "command": self.command,
            "script": self.script,
            "running": self.running,
            "paused": self.paused,
            "code": self.code,
        }


def pause(mark: str, on: bool) -> int:
    """Stop or continue the processes of the terminal that is marked so; return how many they were."""
    count = 0
    for process in marked(TERMINAL, lambda value: value == mark):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGSTOP if on else signal.SIGCONT)
            count += 1
    return count


def ended(code: int) -> str:
    """How the end of a process is told."""
    if code > 128 and code - 128 in signal.valid_signals():
        return f"(ended by {signal.Signals(code - 128).name})"
    return f"(exit code {code})"


def script_of(command: str) -> str:
    """The script that a README's command runs, as a reader would call it."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    while words and re.match(r"[A-Za-z_]\w*=", words[0]):
        words.pop(0)
    for place, word in enumerate(words):
        if word.endswith(".py"):
            return word.rpartition("/")[2]
        if word == "-m" and place + 1 < len(words):
            return words[place + 1]
    return words[0] if words else ""
