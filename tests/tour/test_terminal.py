"""Commands as they are typed, run as real processes."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.forked import ROOT
from tests.support.process import wait_until
from tour.terminal import CommandError, Process, split

LIMIT = 20.0


class Watched:
    """A process and what it tells."""

    def __init__(self, command: str, folder: Path) -> None:
        self.told: queue.SimpleQueue[str | int] = queue.SimpleQueue()
        self.process = Process(command, os.environ, folder, self.told.put, self.told.put)

    def rest(self) -> list[str | int]:
        """Everything up to and with the exit code."""
        found: list[str | int] = []
        while not found or isinstance(found[-1], str):
            found.append(self.told.get(timeout=LIMIT))
        return found


@pytest.fixture
def started() -> Iterator[list[Watched]]:
    running: list[Watched] = []
    yield running
    for watched in running:
        watched.process.kill()


@pytest.mark.parametrize(
    ("command", "argv", "variables"),
    [
        ("python -m broker", [sys.executable, "-m", "broker"], {}),
        ("python3 a.py", [sys.executable, "a.py"], {}),
        ("A=1 B='x y' python a.py", [sys.executable, "a.py"], {"A": "1", "B": "x y"}),
        ("make test A=1", ["make", "test", "A=1"], {}),
        ("echo 'a | b' \"c; d\" e\\&f", ["echo", "a | b", "c; d", "e&f"], {}),
        ("echo Letter...", ["echo", "Letter..."], {}),
        ("echo a | cat", ["/bin/sh", "-c", "echo a | cat"], {}),
        ("echo $HOME", ["/bin/sh", "-c", "echo $HOME"], {}),
        ('echo "$HOME"', ["/bin/sh", "-c", 'echo "$HOME"'], {}),
        ("echo '$HOME'", ["echo", "$HOME"], {}),
        ("echo a  # why", ["/bin/sh", "-c", "echo a  # why"], {}),
        ("echo a#b", ["echo", "a#b"], {}),
        ("kill -9 4711", ["/bin/sh", "-c", "kill -9 4711"], {}),
    ],
)
def test_a_shell_is_used_only_where_it_is_needed(command: str, argv: list[str], variables: dict[str, str]) -> None:
    assert split(command) == (argv, variables)


@pytest.mark.parametrize(
    ("command", "told"),
    [("echo don't", 'cannot read "echo don\'t": No closing quotation'), ("A=1", "'A=1' runs nothing")],
)
def test_what_cannot_be_typed_is_told(command: str, told: str) -> None:
    with pytest.raises(CommandError) as caught:
        split(command)
    assert str(caught.value) == told


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"^cannot run 'no-such-program': No such file or directory$"):
        Watched("no-such-program", tmp_path)


def test_output_and_errors_come_in_their_order(tmp_path: Path, started: list[Watched]) -> None:
    code = "import sys; print(1); print(2, file=sys.stderr); print('x\\r3'); sys.stdout.buffer.write(b'\\xff'); exit(4)"
    started.append(Watched(f'python -c "{code}"', tmp_path))
    assert started[0].rest() == ["1", "2", "3", "\ufffd", 4]


def test_it_runs_in_the_folder_with_its_variables_and_the_same_python(tmp_path: Path, started: list[Watched]) -> None:
    started.append(Watched("NAME=value /bin/sh -c 'pwd; echo $NAME; command -v python'", tmp_path))
    assert started[0].rest() == [str(tmp_path), "value", str(Path(sys.executable).parent / "python"), 0]


def test_keys_reach_the_whole_group(tmp_path: Path, started: list[Watched]) -> None:
    child = (
        "import signal, time; signal.signal(2, lambda *_: exit(print('child stops'))); print('ready'); time.sleep(60)"
    )
    parent = (
        f"import subprocess, sys, signal; signal.signal(2, signal.SIG_IGN); subprocess.run({['python', '-c', child]})"
    )
    (tmp_path / "parent.py").write_text(parent, encoding="utf-8")
    started.append(Watched("python parent.py", tmp_path))
    assert started[0].told.get(timeout=LIMIT) == "ready"
    started[0].process.interrupt()
    assert started[0].rest() == ["child stops", 0]


def test_which_processes_are_its_own(tmp_path: Path, started: list[Watched]) -> None:
    started.append(Watched("echo $$ && sleep 60 & echo $! && wait", tmp_path))
    pids = {int(started[0].told.get(timeout=LIMIT)) for _ in range(2)}
    process = started[0].process
    assert all(process.owns(pid) for pid in pids)
    assert not process.owns(os.getpid())
    process.kill()
    assert not any(process.owns(pid) for pid in pids)


def test_what_it_leaves_behind_is_killed(tmp_path: Path, started: list[Watched]) -> None:
    started.append(Watched("sleep 60 & echo $!", tmp_path))
    pid, code = started[0].rest()
    assert code == 0
    wait_until(lambda: not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE)


def test_a_daemon_that_keeps_the_output_open_does_not_hold_it_up(tmp_path: Path, started: list[Watched]) -> None:
    daemon = "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid)"
    started.append(Watched(f'python -c "{daemon}"', tmp_path))
    pid, code = started[0].rest()
    assert code == 0
    # A session of its own is how a daemon says that it is to stay.
    os.kill(int(pid), signal.SIGKILL)


def test_ctrl_c_works_where_the_caller_ignores_it() -> None:
    code = (
        "import os, queue; from pathlib import Path\n"
        "from tour.terminal import Process\n"
        "told = queue.SimpleQueue()\n"
        "child = 'python -c \"import time; print(1); time.sleep(60)\"'\n"
        "process = Process(child, os.environ, Path('.'), told.put, told.put)\n"
        "assert told.get(timeout=20) == '1'\n"
        "process.interrupt()\n"
        "code = next(item for item in iter(lambda: told.get(timeout=20), None) if isinstance(item, int))\n"
        "print('ended with', code)\n"
    )
    script = f"trap '' INT; exec {sys.executable} -c '{code.replace(chr(39), chr(39) + chr(92) + chr(39) * 2)}'"
    done = subprocess.run(["/bin/sh", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("ended with 130\n", "")
