"""send_and_receive, where its README does not look."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from common.management import Management
from tests.support.process import ROOT, Script, run_script
from tests.support.queues import put, take

QUEUE = "send_and_receive.hello"
DEAD_LETTERS = f"{QUEUE}.dead_letters"
SEND = "send_and_receive/send.py"
RECEIVE = "send_and_receive/receive.py"


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("test", settings) as connection:
        yield connection.channel()


@pytest.mark.parametrize("script", ["send.py", "receive.py", "send_rubbish.py"])
@pytest.mark.parametrize("folder", [ROOT, ROOT / "send_and_receive"], ids=["root", "own folder"])
def test_help_says_how_it_is_called(script: str, folder: Path, offline: dict[str, str]) -> None:
    path = str((ROOT / "send_and_receive" / script).relative_to(folder))
    result = run_script(path, "--help", environ=offline, folder=folder)
    assert f"python send_and_receive/{script}" in result.out
    assert (result.code, result.err) == (0, "")


def test_both_work_from_their_own_folder(environ: dict[str, str]) -> None:
    folder = ROOT / "send_and_receive"
    assert run_script("send.py", "over", "here", environ=environ, folder=folder).code == 0
    with Script("receive.py", environ=environ, folder=folder) as receiver:
        receiver.expect(r"^ \[x\] Received 'over here'$")


def test_what_is_sent_says_what_it_is(environ: dict[str, str], channel: BlockingChannel) -> None:
    result = run_script(SEND, "-", environ=environ, stdin="Grüße\n".encode())
    assert (result.code, result.out) == (0, " [x] Sent 'Grüße'\n")
    [(properties, body)] = take(channel, QUEUE, 1)
    assert body.decode() == "Grüße"
    assert (properties.content_type, properties.content_encoding) == ("text/plain", "utf-8")
    assert properties.delivery_mode == 2
    assert uuid.UUID(properties.message_id)
    assert abs(properties.timestamp - time.time()) < 60


def test_a_full_queue_is_told(environ: dict[str, str], management: Management) -> None:
    management.set_policy("small", "hello$", {"max-length": 1})
    for _ in range(5):
        result = run_script(SEND, environ=environ)
        if result.code:
            break
        assert result.out == " [x] Sent 'Hello World!'\n"
    assert (result.code, result.out) == (ExitCode.NOT_CONFIRMED, "")
    assert result.err.startswith("error: ")
    assert "did not take the message" in result.err


@pytest.mark.parametrize("stop", [Script.interrupt, Script.terminate], ids=["SIGINT", "SIGTERM"])
def test_the_receiver_stops_with_0(stop: str, environ: dict[str, str]) -> None:
    with Script(RECEIVE, environ=environ) as receiver:
        receiver.expect("Waiting")
        stop(receiver)  # type: ignore[operator]
        assert receiver.wait() == 0
        assert receiver.lines == [" [*] Waiting for messages. To exit press CTRL+C"]


def test_what_foreign_clients_send(environ: dict[str, str], channel: BlockingChannel) -> None:
    """Text is text, whether or not it says so; everything else is kept, in one place, as it was."""
    text = [BasicProperties(), BasicProperties(content_type="TEXT/PLAIN; charset=utf-8")]
    rubbish = [
        (BasicProperties(content_type="image/png"), b"no text"),
        (BasicProperties(content_type="application/json"), b'"no text"'),
        (BasicProperties(message_id="7"), b"\x80"),
        (BasicProperties(content_type="text/plain", headers={"a": "b"}), b""),
    ]
    with Script(RECEIVE, environ=environ) as receiver:
        receiver.expect("Waiting")
        for properties, body in rubbish:
            put(channel, QUEUE, body, properties=properties)
        for number, properties in enumerate(text):
            put(channel, QUEUE, b"text %d" % number, properties=properties)
        for number in range(len(text)):
            receiver.expect(f"Received 'text {number}'")
        kept = take(channel, DEAD_LETTERS, len(rubbish))
        receiver.terminate()
        assert receiver.wait() == 0
    assert [(properties.content_type, body) for properties, body in kept] == [
        (properties.content_type, body) for properties, body in rubbish
    ]
    assert [properties.headers["x-first-death-reason"] for properties, _body in kept] == ["rejected"] * len(rubbish)
    told = [line for line in receiver.lines if "rejected" in line]
    assert len(told) == len(rubbish)
    assert "image/png" in told[0]
    assert "message 7" in told[2]
    assert len(receiver.lines) == 1 + len(told) + len(text)
    assert take(channel, QUEUE, 0) == []


def test_a_message_cannot_play_with_the_terminal(environ: dict[str, str], channel: BlockingChannel) -> None:
    run_script(SEND, "first", environ=environ)
    put(channel, QUEUE, b"\x1b[2J\x07")
    with Script(RECEIVE, environ=environ) as receiver:
        receiver.expect("first")
        line = receiver.expect("Received").string
    assert line.isprintable()
