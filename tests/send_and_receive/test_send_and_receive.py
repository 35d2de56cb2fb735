"""send_and_receive, where its README does not look."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.config import Settings
from common.connection import Channel, connect
from common.errors import ExitCode
from extras.management import Management
from tests.support.own_broker import OwnBroker
from tests.support.process import Script, run_script
from tests.support.queues import put, take, take_all
from tour.vhost import environment, fresh_vhost

ROOT = Path(__file__).resolve().parents[2]
QUEUE = "send_and_receive.hello"
SEND = "send_and_receive/send.py"
SEND_SAFELY = "send_and_receive/send_safely.py"
RECEIVE = "send_and_receive/receive.py"
WAITING = " [*] Waiting for messages. To exit press CTRL+C"
PERSISTENT = 2


@pytest.fixture
def channel(settings: Settings) -> Iterator[Channel]:
    with connect("test", settings) as connection:
        yield connection.channel()


@pytest.mark.parametrize("script", ["send.py", "send_safely.py", "receive.py"])
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


@pytest.mark.parametrize(("script", "delivery_mode"), [(SEND, None), (SEND_SAFELY, PERSISTENT)])
def test_only_send_safely_sends_a_persistent_message(
    script: str, delivery_mode: int | None, environ: dict[str, str], channel: Channel
) -> None:
    result = run_script(script, "-", environ=environ, stdin="Grüße\n".encode())
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(" [x] Sent 'Grüße'")
    [(properties, body)] = take(channel, QUEUE, 1)
    assert body.decode() == "Grüße"
    assert properties.delivery_mode == delivery_mode


def test_only_send_safely_knows_that_a_full_queue_refused_its_message(
    environ: dict[str, str], management: Management, channel: Channel
) -> None:
    assert run_script(SEND, environ=environ).code == 0
    management.set_policy("full", "hello$", {"max-length": 1, "overflow": "reject-publish"})
    for script, code in ((SEND, 0), (SEND_SAFELY, ExitCode.NOT_CONFIRMED)):
        result = run_script(script, "refused", environ=environ)
        assert result.code == code, result.err
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert "did not take the message" in result.err
    assert [body for _properties, body in take(channel, QUEUE, 1)] == [b"Hello World!"]


def test_the_receiver_gets_every_message_in_order_and_acknowledges_each(
    environ: dict[str, str], channel: Channel
) -> None:
    channel.queue_declare(QUEUE, durable=True)
    put(channel, QUEUE, *(b"%d" % number for number in range(500)))
    with Script(RECEIVE, environ=environ) as receiver:
        receiver.expect("Received '499'")
        receiver.terminate()
        assert receiver.wait() == 0
    assert receiver.lines == [WAITING, *(f" [x] Received '{number}'" for number in range(500))]
    # It may have been stopped after it had printed the last one, and before it had acknowledged it.
    assert [body for _properties, body in take_all(channel, QUEUE)] in ([], [b"499"])


def test_the_receiver_shows_any_bytes_and_goes_on(environ: dict[str, str], channel: Channel) -> None:
    channel.queue_declare(QUEUE, durable=True)
    put(channel, QUEUE, b"caf\xe9", b"", b"\x1b[2J\x07", b"next")
    with Script(RECEIVE, environ=environ) as receiver:
        receiver.expect("Received 'next'")
        receiver.terminate()
        assert receiver.wait() == 0
    assert receiver.lines[1:4] == [
        " [x] Received 'caf\ufffd'",
        " [x] Received ''",
        # A message cannot clear or recolour the terminal.
        r" [x] Received '\x1b[2J\x07'",
    ]
    assert [body for _properties, body in take_all(channel, QUEUE)] in ([], [b"next"])


@pytest.mark.parametrize("stop", [Script.interrupt, Script.terminate], ids=["SIGINT", "SIGTERM"])
def test_the_receiver_stops_with_0(stop: object, environ: dict[str, str]) -> None:
    with Script(RECEIVE, environ=environ) as receiver:
        receiver.expect("Waiting")
        stop(receiver)  # type: ignore[operator]
        assert receiver.wait() == 0
        assert receiver.lines == [WAITING]


def test_when_its_queue_is_deleted_the_receiver_says_so_and_ends(environ: dict[str, str], channel: Channel) -> None:
    with Script(RECEIVE, environ=environ) as receiver:
        receiver.expect("Waiting")
        channel.queue_delete(QUEUE)
        assert receiver.wait() == ExitCode.UNAVAILABLE
    [line] = receiver.lines[1:]
    assert line.startswith("error: RabbitMQ cancelled the consumer: its queue was deleted")


@pytest.mark.timeout(600)
@pytest.mark.xdist_group("own broker 0")
def test_a_restart_loses_what_send_has_sent_and_keeps_what_send_safely_has_sent(own_broker: OwnBroker) -> None:
    with fresh_vhost(own_broker.settings, "test.restart") as settings:
        environ = environment(settings)
        with Script(RECEIVE, environ=environ) as receiver:
            receiver.expect("Waiting")
            assert own_broker.run("restart").code == 0
            assert receiver.wait() == ExitCode.UNAVAILABLE
        assert len(receiver.lines) == 2
        assert receiver.lines[1].startswith("error: ")

        for script, text in ((SEND, "lost"), (SEND_SAFELY, "kept"), (SEND, "lost, too")):
            assert run_script(script, text, environ=environ).code == 0
        assert own_broker.run("restart").code == 0
        with connect("test", settings) as connection:
            # Passive, so it would fail if the queue were not there.
            assert [body for _properties, body in take(connection.channel(), QUEUE, 1)] == [b"kept"]


def test_send_imports_little_so_that_it_starts_fast() -> None:
    """Its first message is to be out within 0.35 s. The HTTP client and the database are slow to import."""
    code = "import send, sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "send_and_receive",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "pika" in loaded
    assert loaded.isdisjoint({"httpx", "sqlalchemy", "rich", "markdown_it", "psutil"})
