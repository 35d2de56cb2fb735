"""Which server made a process, a user or a virtual host, and whether that server still lives.

What a session makes carries a name that begins with its server's: ``playground.<host>.<pid>.<time of start>``.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from dataclasses import dataclass

import psutil

MARK = "PLAYGROUND_SERVER"
"""The variable by which a process that a server started is known, and its children."""
TERMINAL = "PLAYGROUND_TERMINAL"
"""The variable that names the terminal in which a process runs."""
_NAME = re.compile(r"playground\.(?P<host>[0-9a-f]{8})\.(?P<pid>\d{1,10})\.(?P<started>\d{1,20})(?=\.|$)")


@dataclass(frozen=True, slots=True)
class Identity:
    """A server: the machine it runs on (a hash of its name), its process id, and when that began (ms since 1970)."""

    host: str
    pid: int
    started: int

    def __str__(self) -> str:
        return f"playground.{self.host}.{self.pid}.{self.started}"

    @classmethod
    def own(cls) -> Identity:
        """This process's."""
        return cls(_host(), os.getpid(), _started(os.getpid()) or 0)

    @classmethod
    def of(cls, name: str) -> Identity | None:
        """The server that made what is called ``name``; None if none did."""
        match = _NAME.match(name)
        return cls(match["host"], int(match["pid"]), int(match["started"])) if match else None

    @property
    def dead(self) -> bool:
        """Whether it ran on this machine and is gone; of other machines' servers nothing is known."""
        return self.host == _host() and _started(self.pid) != self.started


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _started(pid: int) -> int | None:
    """When a process began; a process id is used again, this is not."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return round(process.create_time() * 1000)
    except psutil.Error:
        return None
