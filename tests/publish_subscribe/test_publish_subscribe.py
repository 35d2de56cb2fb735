"""publish_subscribe, where its README does not look."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from common.management import Management
from tests.support.process import ROOT, Script, run_script, wait_until
from tests.support.queues import take

EXCHANGE = "publish_subscribe.logs"
EMIT_LOG = "publish_subscribe/emit_log.py"
RECEIVE_LOGS = "publish_subscribe/receive_logs.py"
ARCHIVE = "publish_subscribe.subscriber.archive"


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("test", settings) as connection:
        yield connection.channel()


def tell(channel: BlockingChannel, *bodies: bytes, properties: BasicProperties | None = None) -> None:
    channel.confirm_delivery()
    for body in bodies:
        channel.basic_publish(EXCHANGE, "", body, properties, mandatory=True)


@pytest.mark.parametrize("script", ["emit_log.py", "receive_logs.py"])
@pytest.mark.parametrize("folder", [ROOT, ROOT / "publish_subscribe"], ids=["root", "own folder"])
def test_help_says_how_it_is_called(script: str, folder: Path, offline: dict[str, str]) -> None:
    path = str((ROOT / "publish_subscribe" / script).relative_to(folder))
    result = run_script(path, "--help", environ=offline, folder=folder)
    assert f"python publish_subscribe/{script}" in result.out
    assert (result.code, result.err) == (0, "")


def test_both_work_from_their_own_folder(environ: dict[str, str]) -> None:
    folder = ROOT / "publish_subscribe"
    with Script("receive_logs.py", environ=environ, folder=folder) as subscriber:
        subscriber.expect("Waiting")
        assert run_script("emit_log.py", "over", "here", environ=environ, folder=folder).code == 0
        subscriber.expect(r"^ \[x\] over here$")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--durable-name", ""),
        ("--durable-name", "a.dead_letters"),
        ("--durable-name", "ä"),
        ("--durable-name", "x" * 101),
        ("--slow", "-1"),
        ("--slow", "a bit"),
        ("--forget",),
    ],
)
def test_a_bad_argument_is_told_in_one_line(arguments: tuple[str, ...], offline: dict[str, str]) -> None:
    result = run_script(RECEIVE_LOGS, *arguments, environ=offline)
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert result.err.count("\n") == 1
    assert arguments[0] in result.err


@pytest.mark.parametrize("stop", [Script.interrupt, Script.terminate], ids=["SIGINT", "SIGTERM"])
def test_a_subscriber_stops_with_0_and_its_temporary_queue_goes(
    stop: object, environ: dict[str, str], management: Management
) -> None:
    with Script(RECEIVE_LOGS, environ=environ) as subscriber:
        subscriber.expect("Waiting")
        assert len([queue for queue in management.queues() if queue.exclusive]) == 1
        stop(subscriber)  # type: ignore[operator]
        assert subscriber.wait() == 0
        assert len(subscriber.lines) == 1
    wait_until(lambda: [queue.name for queue in management.queues()] == [f"{EXCHANGE}.dead_letters"])
    assert run_script(EMIT_LOG, environ=environ).code == ExitCode.UNROUTABLE


def test_a_killed_subscriber_takes_its_temporary_queue_with_it(environ: dict[str, str], management: Management) -> None:
    with Script(RECEIVE_LOGS, environ=environ) as subscriber:
        subscriber.expect("Waiting")
        subscriber.kill()
        subscriber.wait()
    wait_until(lambda: not any(queue.exclusive for queue in management.queues()))


def test_a_durable_subscriber_misses_nothing_while_it_is_away(
    environ: dict[str, str], channel: BlockingChannel
) -> None:
    """Killed in the middle, away for a while: every message, in order; those it had in hand, again."""
    with Script(RECEIVE_LOGS, "--durable-name", "archive", environ=environ) as archive:
        archive.expect("Waiting")
        tell(channel, *(b"%d" % number for number in range(100)))
        archive.expect(r"^ \[x\] 50$")
        archive.kill()
        archive.wait()
        before = [int(line[5:]) for line in archive.lines[1:]]
    tell(channel, *(b"%d" % number for number in range(100, 200)))
    with Script(RECEIVE_LOGS, "--durable-name", "archive", environ=environ) as archive:
        archive.expect(r"^ \[x\] 199$")
        archive.terminate()
        assert archive.wait() == 0
        after = [int(line[5:]) for line in archive.lines[1:]]
    assert before == list(range(len(before)))
    assert after == list(range(after[0], 200))
    assert after[0] <= len(before)
    assert take(channel, ARCHIVE, 0) == []


def test_subscribers_of_one_name_share_the_messages(environ: dict[str, str], channel: BlockingChannel) -> None:
    with (
        Script(RECEIVE_LOGS, "--durable-name", "archive", environ=environ) as one,
        Script(RECEIVE_LOGS, "--durable-name", "archive", environ=environ) as other,
    ):
        one.expect("Waiting")
        other.expect("Waiting")
        tell(channel, *(b"%d" % number for number in range(100)))
        wait_until(lambda: len(one.lines) + len(other.lines) >= 102)
        seen = sorted(int(line[5:]) for line in one.lines[1:] + other.lines[1:])
        assert min(len(one.lines), len(other.lines)) > 1
    assert seen == list(range(100))


def test_a_full_archive_is_told_and_costs_the_others_nothing(
    environ: dict[str, str], management: Management, channel: BlockingChannel
) -> None:
    with Script(RECEIVE_LOGS, "--durable-name", "archive", environ=environ) as archive:
        archive.expect("Waiting")
    management.set_policy("small", "archive$", {"max-length": 1})
    with Script(RECEIVE_LOGS, environ=environ) as screen:
        screen.expect("Waiting")
        codes = []
        while ExitCode.NOT_CONFIRMED not in codes:
            result = run_script(EMIT_LOG, f"number {len(codes)}", environ=environ)
            screen.expect(f"number {len(codes)}")
            codes.append(result.code)
            assert len(codes) < 10
    assert codes[:-1] == [0] * (len(codes) - 1)
    assert "did not take the message" in result.err
    assert len(take(channel, ARCHIVE, len(codes) - 1)) == len(codes) - 1


def test_forgetting_deletes_the_queue_and_says_what_was_lost(
    environ: dict[str, str], channel: BlockingChannel, management: Management
) -> None:
    forget = (RECEIVE_LOGS, "--durable-name", "archive", "--forget")
    with Script(RECEIVE_LOGS, "--durable-name", "archive", environ=environ) as archive:
        archive.expect("Waiting")
    tell(channel, b"1", b"2")
    result = run_script(*forget, environ=environ)
    assert (result.code, result.out) == (0, " [x] Forgot 'archive'; messages that it had not read: 2\n")
    assert ARCHIVE not in [queue.name for queue in management.queues()]
    # Saying goodbye twice does no harm.
    assert run_script(*forget, environ=environ).out == " [x] Forgot 'archive'; messages that it had not read: 0\n"
    assert run_script(EMIT_LOG, environ=environ).code == ExitCode.UNROUTABLE


@pytest.mark.parametrize("durable", [False, True], ids=["temporary", "durable"])
def test_what_foreign_clients_send(durable: bool, environ: dict[str, str], channel: BlockingChannel) -> None:
    options = ("--durable-name", "archive") if durable else ()
    dead_letters = f"{ARCHIVE if durable else EXCHANGE}.dead_letters"
    with Script(RECEIVE_LOGS, *options, environ=environ) as subscriber:
        subscriber.expect("Waiting")
        tell(channel, b"no text", properties=BasicProperties(content_type="image/png"))
        tell(channel, b"\x80", b"")
        tell(channel, b"text")
        subscriber.expect(r"^ \[x\] text$")
        kept = take(channel, dead_letters, 3)
        subscriber.terminate()
        assert subscriber.wait() == 0
    assert [body for _properties, body in kept] == [b"no text", b"\x80", b""]
    assert len([line for line in subscriber.lines if "rejected" in line]) == 3
    assert len(subscriber.lines) == 5
