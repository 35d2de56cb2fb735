"""A process that outlives the program which started it, and that a later one finds again by its folder."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

_INHERITED = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER")


def surroundings() -> dict[str, str]:
    """What a server needs of our environment. It outlives us: what else is there speaks of us, or of who started us."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}


def encoded(environment: Mapping[str, str]) -> dict[bytes, bytes]:
    """An environment for a child process, in UTF-8; Python itself would encode it by the locale, which may be ASCII."""
    return {os.fsencode(name): text.encode("utf-8", "surrogateescape") for name, text in environment.items()}


class Daemon:
    """The process of one ``role`` in ``directory``: noted in ``<role>.json``, its output in ``log/<role>.out``."""

    def __init__(self, directory: Path, role: str) -> None:
        self.directory = directory
        self.output = directory / "log" / f"{role}.out"
        self._note = directory / f"{role}.json"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, command: list[str], environment: Mapping[str, str]) -> None:
        """Start it, in a session of its own: a Ctrl-C in the reader's terminal is not meant for it."""
        self.output.parent.mkdir(parents=True, exist_ok=True)
        with self.output.open("wb") as output:
            self._child = subprocess.Popen(
                command,
                env=encoded(environment),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = psutil.Process(self._child.pid)
        # With the time, because process ids are used again.
        note = {"pid": process.pid, "created": process.create_time()}
        self._note.write_text(json.dumps(note), encoding="utf-8")

    def find(self) -> psutil.Process | None:
        """The process, if it is alive."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            process = psutil.Process(note["pid"])
            # The kernel counts in ticks, and the clock may have been adjusted since.
            alive = abs(process.create_time() - note["created"]) < 2 and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, KeyError, TypeError, psutil.NoSuchProcess):
            return None
        return process if alive else None

    def exposed(self) -> list[str]:
        """The addresses at which it or its helpers listen, but those that only this machine can reach."""
        found = set()
        if process := self.find():
            with suppress(psutil.NoSuchProcess):
                for member in [process, *process.children(recursive=True)]:
                    with suppress(psutil.Error):
                        sockets = member.net_connections("inet")
                        found |= {each.laddr for each in sockets if each.status == psutil.CONN_LISTEN}
        return sorted(f"{address.ip}:{address.port}" for address in found if not _is_loopback(address.ip))

    def end(self, number: signal.Signals, timeout: float) -> None:
        """Signal it, wait until it and its helpers are gone, kill what remains after ``timeout`` seconds."""
        if process := self.find():
            family = [process]
            # It may go by itself in this moment, which is what was asked for.
            with suppress(psutil.NoSuchProcess):
                family += process.children(recursive=True)
                process.send_signal(number)
            if self._child is not None:
                # Ours to be reaped; psutil would see it as a zombie until then.
                with suppress(subprocess.TimeoutExpired):
                    self._child.wait(timeout)
            stragglers = psutil.wait_procs(family, timeout)[1]
            for straggler in stragglers:
                with suppress(psutil.NoSuchProcess):
                    straggler.kill()
            psutil.wait_procs(stragglers, 10)
        if self._child is not None:
            self._child.wait(10)
            self._child = None
        self._note.unlink(missing_ok=True)

    def told(self) -> str:
        """What it has printed."""
        return self.output.read_text(encoding="utf-8", errors="replace") if self.output.is_file() else ""


def _is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
