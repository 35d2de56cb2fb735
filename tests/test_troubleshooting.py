"""The root README's table of first failures: each of our own messages in it is provoked, and must read as quoted."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from common.config import Address, Settings, Tls
from common.connection import connect
from tests.support.tls import Authority, TlsProxy
from tour.vhost import environment

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "send_and_receive" / "send.py"
TIMEOUT = 60

# Its own text between backquotes, and its exit code.
QUOTED = re.findall(r"`(error: [^`]*)` \((\d+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))


@contextmanager
def nobody(settings: Settings) -> Iterator[Settings]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield replace(settings, addresses=(Address("127.0.0.1", held.getsockname()[1]),))


@contextmanager
def not_rabbitmq(settings: Settings) -> Iterator[Settings]:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield replace(settings, addresses=(Address("127.0.0.1", silent.getsockname()[1]),))


@contextmanager
def declared_otherwise(settings: Settings) -> Iterator[Settings]:
    with connect("tests.troubleshooting", settings) as connection:
        connection.channel().queue_declare("send_and_receive.hello", durable=True, arguments={"x-max-length": 1})
    yield settings


CASES: dict[str, Callable[[Settings], object]] = {
    "nothing answers": nobody,
    "no address is known": lambda settings: replace(settings, addresses=(Address("rabit.invalid", 5672),)),
    "wrong user name or password": lambda settings: replace(settings, password="hush-hush"),
    "virtual host": lambda settings: replace(settings, vhost="shop"),
    "exists with another": declared_otherwise,
    "TLS with": lambda settings: replace(settings, tls=Tls()),
    "does not speak AMQP": not_rabbitmq,
}


def quoted(key: str) -> tuple[re.Pattern[str], int]:
    """The README's line with these words, as a pattern, and its exit code."""
    [(text, code)] = [(text, code) for text, code in QUOTED if key in text]
    return re.compile(".*".join(map(re.escape, re.split(" ?… ?", text)))), int(code)


def send(settings: Settings) -> tuple[int, str]:
    """Exit code and standard error of the script, with the address and the user that the README shows."""
    environ = environment(settings) | {"RABBITMQ_CONNECT_TIMEOUT": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, "x"], env=environ, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    [line] = done.stderr.splitlines()
    shown = line.replace(repr(settings.user), "'guest'").replace("rabit.invalid", "rabit")
    return done.returncode, shown.replace(str(settings.addresses[0]), "localhost:5672")


@pytest.mark.parametrize("key", CASES)
def test_a_message_reads_as_it_is_quoted(key: str, settings: Settings) -> None:
    pattern, code = quoted(key)
    with ExitStack() as stack:
        case = CASES[key](settings)
        broken = case if isinstance(case, Settings) else stack.enter_context(case)  # type: ignore[call-overload]
        returned, line = send(broken)
    assert pattern.fullmatch(line), f"the README says {pattern.pattern!r}, and {SCRIPT.name} says {line!r}"
    assert returned == code


def test_a_certificate_that_cannot_be_trusted_reads_as_it_is_quoted(settings: Settings, tmp_path: Path) -> None:
    pattern, code = quoted("certificate")
    server = Authority(tmp_path / "authority").issue("server", "IP:127.0.0.1")
    with TlsProxy(settings.addresses[0], server) as proxy:
        returned, line = send(replace(settings, addresses=(Address("127.0.0.1", proxy.port),), tls=Tls()))
    assert pattern.fullmatch(line), f"the README says {pattern.pattern!r}, and {SCRIPT.name} says {line!r}"
    assert returned == code


def test_nothing_is_quoted_that_is_not_provoked() -> None:
    assert len(QUOTED) == len(CASES) + 1


def test_a_python_without_our_packages() -> None:
    # -S leaves out what is installed, -E what the environment adds: the system's Python, as far as we are concerned.
    done = subprocess.run(
        [sys.executable, "-S", "-E", SCRIPT, "x"], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last == "ModuleNotFoundError: No module named 'common'"
    assert f"`{last}`" in (ROOT / "README.md").read_text(encoding="utf-8")
