"""The library without the rest of the repository: installed into an empty environment, used by a foreign program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.config import Settings
from extras.management import Management
from tests.support.process import wait_until

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "robust_pika"

PROGRAM = """
import logging
import sys
import threading

from robust_pika import ConnectionSettings, Outcome, Publisher, consume

if "--log" in sys.argv:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("pika").setLevel(logging.CRITICAL)
settings = ConnectionSettings.from_url(sys.argv[1])
stop = threading.Event()
seen = set()


def declare(channel):
    channel.queue_declare("foreign.queue", durable=True)
    return "foreign.queue"


def handle(message):
    number = int(message.text())
    if number == 7 and not message.redelivered:
        raise KeyError("a bug in the handler")
    if number == 50 and not message.redelivered:
        # Until the connection is cut, and for a moment longer: this message comes again.
        open(sys.argv[2] + ".ready", "w").close()
        cut.wait(60)
    seen.add(number)
    if len(seen) == 100:
        stop.set()
    return Outcome.ACK


cut = threading.Event()
connected = []


def on_ready(queue):
    connected.append(queue)
    if len(connected) == 2:
        cut.set()


with Publisher("foreign producer", settings, declare=declare) as publisher:
    for number in range(100):
        publisher.publish("", "foreign.queue", b"%d" % number)
consume("foreign consumer", settings, declare, handle, prefetch=10, on_ready=on_ready, stop=stop)
assert len(connected) == 2, connected
assert seen == set(range(100)), sorted(set(range(100)) - seen)
open(sys.argv[2], "w").write("all seen")
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment in which nothing but the library is installed."""
    folder = tmp_path_factory.mktemp("alone")
    # A copy, because setuptools builds beside the source.
    source = shutil.copytree(LIBRARY, folder / "robust_pika", ignore=shutil.ignore_patterns("__pycache__", "build"))
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    found: Path = folder / "venv" / "bin" / "python"
    install = [found, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", source]
    done = subprocess.run(install, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return found


def run(python: Path, settings: Settings, management: Management, folder: Path, *options: str) -> tuple[str, str]:
    """Run the program, cut its connections in mid-run; what it printed on standard output and standard error."""
    program, result = folder / "program.py", folder / "result"
    program.write_text(PROGRAM, encoding="utf-8")
    address = settings.addresses[0]
    url = f"amqp://{settings.user}:{settings.password}@{address}/{settings.vhost}"
    command = [python, program, url, result, *options]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(
        command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: Path(f"{result}.ready").exists(), 30)
        wait_until(lambda: cut(management), 30)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert result.read_text(encoding="utf-8") == "all seen"
    return out, err


def cut(management: Management) -> bool:
    found = [connection for connection in management.connections() if connection.label == "foreign consumer"]
    for connection in found:
        management.close_connection(connection.name, "a test")
    return bool(found)


@pytest.mark.long
def test_it_prints_nothing(python: Path, settings: Settings, management: Management, tmp_path: Path) -> None:
    assert run(python, settings, management, tmp_path) == ("", "")


@pytest.mark.long
def test_its_log_has_the_reconnect_and_the_traceback(
    python: Path, settings: Settings, management: Management, tmp_path: Path
) -> None:
    out, err = run(python, settings, management, tmp_path, "--log")
    assert out == ""
    assert "ERROR robust_pika the handler failed on message (no id) with KeyError: 'a bug in the handler'" in err
    assert 'raise KeyError("a bug in the handler")' in err
    assert "; connecting again" in err


def test_it_names_nothing_of_the_course() -> None:
    words = ("make broker", "make demo", "common", "RABBITMQ_", "AMQP_URL", "exit_code", "print(", "sys.exit", ".env")
    for path in LIBRARY.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert [word for word in words if word in text] == [], path
