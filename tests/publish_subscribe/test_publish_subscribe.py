"""publish_subscribe: who gets a log, what is lost and what is not, counted; and how the plain scripts end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pika import BasicProperties, DeliveryMode
from pika.adapters.blocking_connection import BlockingChannel

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from extras.management import Management
from tests.support.forked import ROOT
from tests.support.process import Script, run_script, wait_until
from tests.support.queues import take, take_all

EXCHANGE = "publish_subscribe.logs"
EMIT_LOG = "publish_subscribe/emit_log.py"
RECEIVE_LOGS = "publish_subscribe/receive_logs.py"
RECEIVE_LOGS_DURABLE = "publish_subscribe/receive_logs_durable.py"
ARCHIVE = "publish_subscribe.subscriber.archive"
SUBSCRIBERS = {"exclusive": (RECEIVE_LOGS,), "durable": (RECEIVE_LOGS_DURABLE, "archive")}

each_subscriber = pytest.mark.parametrize("subscriber", SUBSCRIBERS.values(), ids=SUBSCRIBERS)


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("test", settings) as connection:
        yield connection.channel()


def publish(channel: BlockingChannel, *bodies: bytes, properties: BasicProperties | None = None) -> None:
    """Publish to the exchange as a foreign client would; all are confirmed on return, and in some queue."""
    channel.confirm_delivery()
    for body in bodies:
        channel.basic_publish(EXCHANGE, "", body, properties, mandatory=True)


def numbers(script: Script) -> list[int]:
    """The numbers that a subscriber has shown, in their order; its first line is that it waits."""
    return [int(line.removeprefix(" [x] ")) for line in script.lines[1:]]


@pytest.mark.parametrize("script", [EMIT_LOG, RECEIVE_LOGS, RECEIVE_LOGS_DURABLE])
@pytest.mark.parametrize("folder", [ROOT, ROOT / "publish_subscribe"], ids=["root", "own folder"])
def test_help_says_how_it_is_called(script: str, folder: Path, offline: dict[str, str]) -> None:
    path = str((ROOT / script).relative_to(folder))
    result = run_script(path, "--help", environ=offline, folder=folder)
    assert f"python {script}" in result.out
    assert (result.code, result.err) == (0, "")


def test_they_work_from_their_own_folder(environ: dict[str, str]) -> None:
    folder = ROOT / "publish_subscribe"
    with (
        Script("receive_logs.py", environ=environ, folder=folder) as screen,
        Script("receive_logs_durable.py", "archive", environ=environ, folder=folder) as archive,
    ):
        screen.expect("Waiting")
        archive.expect("Waiting")
        assert run_script("emit_log.py", "over", "here", environ=environ, folder=folder).code == 0
        screen.expect(r"^ \[x\] over here$")
        archive.expect(r"^ \[x\] over here$")


@pytest.mark.parametrize(
    "arguments",
    [
        (RECEIVE_LOGS, "--slow", "-1"),
        (RECEIVE_LOGS, "--slow", "a bit"),
        (RECEIVE_LOGS_DURABLE,),
        (RECEIVE_LOGS_DURABLE, ""),
        (RECEIVE_LOGS_DURABLE, "a.b"),
        (RECEIVE_LOGS_DURABLE, "ä"),
        (RECEIVE_LOGS_DURABLE, "x" * 51),
        (RECEIVE_LOGS_DURABLE, "--unsubscribe"),
    ],
)
def test_a_bad_argument_gives_one_line(arguments: tuple[str, ...], offline: dict[str, str]) -> None:
    result = run_script(*arguments, environ=offline)
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert result.err.count("\n") == 1
    assert (arguments[1] if arguments[0] == RECEIVE_LOGS else "NAME") in result.err


def test_every_subscriber_gets_every_log_in_order(environ: dict[str, str], channel: BlockingChannel) -> None:
    with (
        Script(RECEIVE_LOGS, environ=environ) as one,
        Script(RECEIVE_LOGS, environ=environ) as two,
        Script(RECEIVE_LOGS_DURABLE, "archive", environ=environ) as three,
    ):
        subscribers = one, two, three
        for subscriber in subscribers:
            subscriber.expect("Waiting")
        publish(channel, *(b"%d" % number for number in range(300)))
        for subscriber in subscribers:
            subscriber.expect(r"^ \[x\] 299$")
            subscriber.interrupt()
            assert subscriber.wait() == 0
            assert numbers(subscriber) == list(range(300))


def test_a_log_is_persistent(environ: dict[str, str], channel: BlockingChannel) -> None:
    assert run_script(EMIT_LOG, environ=environ).code == 0
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, EXCHANGE)
    assert run_script(EMIT_LOG, "info:", "kept", environ=environ).code == 0
    [(properties, body)] = take(channel, queue, 1)
    assert (properties.delivery_mode, body) == (DeliveryMode.Persistent.value, b"info: kept")


# What is lost


def test_a_log_for_nobody_is_lost_and_the_exit_code_is_0(environ: dict[str, str], channel: BlockingChannel) -> None:
    for number in range(3):
        result = run_script(EMIT_LOG, str(number), environ=environ)
        assert (result.code, result.out, result.err) == (0, f" [x] Sent '{number}'\n", "")
    with Script(RECEIVE_LOGS, environ=environ) as screen:
        screen.expect("Waiting")
        publish(channel, b"3")
        screen.expect(r"\[x\] 3$")
        assert numbers(screen) == [3]


def test_a_subscriber_that_is_away_misses_logs(environ: dict[str, str], channel: BlockingChannel) -> None:
    for round_ in range(2):
        with Script(RECEIVE_LOGS, environ=environ) as screen:
            screen.expect("Waiting")
            publish(channel, b"%d" % (round_ * 10))
            screen.expect(rf"\[x\] {round_ * 10}$")
            screen.interrupt()
            assert screen.wait() == 0
            assert numbers(screen) == [round_ * 10]
        assert run_script(EMIT_LOG, "5", environ=environ).code == 0


@pytest.mark.parametrize("stop", [Script.interrupt, Script.terminate, Script.kill], ids=["SIGINT", "SIGTERM", "kill"])
def test_an_exclusive_queue_goes_with_its_subscriber(
    stop: Callable[[Script], None], environ: dict[str, str], management: Management
) -> None:
    with Script(RECEIVE_LOGS, environ=environ) as screen:
        screen.expect("Waiting")
        assert [queue.exclusive for queue in management.queues()] == [True]
        stop(screen)
        assert screen.wait() == (-9 if stop is Script.kill else 0)
        assert len(screen.lines) == 1
    wait_until(lambda: management.queues() == [])


# What is not


def test_a_durable_subscriber_misses_nothing(environ: dict[str, str], channel: BlockingChannel) -> None:
    """Killed in the middle, away for a while: every log, in order; what it had not acknowledged comes again."""
    with Script(RECEIVE_LOGS_DURABLE, "archive", environ=environ) as archive:
        archive.expect("Waiting")
        publish(channel, *(b"%d" % number for number in range(100)))
        archive.expect(r"^ \[x\] 50$")
        archive.kill()
        archive.wait()
        before = numbers(archive)
    publish(channel, *(b"%d" % number for number in range(100, 200)))
    with Script(RECEIVE_LOGS_DURABLE, "archive", environ=environ) as archive:
        archive.expect(r"^ \[x\] 199$")
        archive.terminate()
        assert archive.wait() == 0
        after = numbers(archive)
    assert before == list(range(len(before)))
    assert after == list(range(after[0], 200))
    assert after[0] <= len(before), f"{after[0] - len(before)} logs are missing"
    # Stopped between showing a log and acknowledging it, it would get that one again.
    assert [body for _properties, body in take_all(channel, ARCHIVE)] in ([], [b"199"])


def test_subscribers_of_one_name_share_the_logs(environ: dict[str, str], channel: BlockingChannel) -> None:
    with (
        Script(RECEIVE_LOGS_DURABLE, "archive", environ=environ) as one,
        Script(RECEIVE_LOGS_DURABLE, "archive", environ=environ) as other,
    ):
        one.expect("Waiting")
        other.expect("Waiting")
        publish(channel, *(b"%d" % number for number in range(100)))
        wait_until(lambda: len(one.lines) + len(other.lines) >= 102)
        assert sorted(numbers(one) + numbers(other)) == list(range(100))
        assert min(len(numbers(one)), len(numbers(other))) > 0


def test_a_slow_subscriber_delays_nobody(environ: dict[str, str], channel: BlockingChannel) -> None:
    with (
        Script(RECEIVE_LOGS, environ=environ) as screen,
        Script(RECEIVE_LOGS, "--slow", "0.02", environ=environ) as slow,
        Script(RECEIVE_LOGS, "--slow", "600", environ=environ) as stuck,
    ):
        for subscriber in (screen, slow, stuck):
            subscriber.expect("Waiting")
        publish(channel, *(b"%d" % number for number in range(200)))
        for subscriber in (screen, slow):
            subscriber.expect(r"^ \[x\] 199$")
            assert numbers(subscriber) == list(range(200))
        assert numbers(stuck) == []
        stuck.interrupt()
        assert stuck.wait() == 0


# How they end, and how a subscription does


def test_unsubscribing_deletes_the_queue_and_says_what_was_in_it(
    environ: dict[str, str], channel: BlockingChannel, management: Management
) -> None:
    unsubscribe = (RECEIVE_LOGS_DURABLE, "archive", "--unsubscribe")
    with Script(RECEIVE_LOGS_DURABLE, "archive", environ=environ) as archive:
        archive.expect("Waiting")
    publish(channel, b"1", b"2")
    result = run_script(*unsubscribe, environ=environ)
    assert (result.code, result.out) == (0, " [x] Unsubscribed 'archive'. Unread logs that were deleted: 2\n")
    assert management.queues() == []
    # A second time does no harm.
    again = run_script(*unsubscribe, environ=environ)
    assert (again.code, again.out) == (0, " [x] Unsubscribed 'archive'. Unread logs that were deleted: 0\n")


def test_unsubscribing_ends_a_running_subscriber_with_one_line(environ: dict[str, str]) -> None:
    with Script(RECEIVE_LOGS_DURABLE, "archive", environ=environ) as archive:
        archive.expect("Waiting")
        assert run_script(RECEIVE_LOGS_DURABLE, "archive", "--unsubscribe", environ=environ).code == 0
        assert archive.wait() == ExitCode.UNAVAILABLE
        assert len(archive.lines) == 2
        assert "error: RabbitMQ cancelled the consumer: its queue was deleted" in archive.lines[1]


@each_subscriber
def test_a_broken_connection_ends_a_subscriber_with_one_line(
    subscriber: tuple[str, ...], environ: dict[str, str], management: Management, channel: BlockingChannel
) -> None:
    """After that the exclusive queue is gone with its logs; the durable one has them all."""
    with Script(*subscriber, environ=environ) as script:
        script.expect("Waiting")
        publish(channel, b"0")
        script.expect(r"\[x\] 0$")
        found = wait_until(lambda: [c for c in management.connections() if c.label == subscriber[0]])
        management.close_connection(found[0].name)
        assert script.wait() == ExitCode.UNAVAILABLE
        assert len(script.lines) == 3
        assert script.lines[2].startswith("error: RabbitMQ at ")
    missed = [str(number) for number in range(1, 4)]
    for number in missed:
        assert run_script(EMIT_LOG, number, environ=environ).code == 0
    with Script(*subscriber, environ=environ) as script:
        script.expect("Waiting")
        publish(channel, b"4")
        script.expect(r"\[x\] 4$")
        # The first one comes again if its acknowledgement was not yet sent.
        seen = [number for number in numbers(script) if number]
        assert seen == ([4] if subscriber == (RECEIVE_LOGS,) else [1, 2, 3, 4])


@each_subscriber
def test_a_body_that_is_no_text_is_shown_and_ends_nobody(
    subscriber: tuple[str, ...], environ: dict[str, str], channel: BlockingChannel
) -> None:
    with Script(*subscriber, environ=environ) as script:
        script.expect("Waiting")
        publish(channel, b"a picture", properties=BasicProperties(content_type="image/png"))
        publish(channel, b"\x80", b"", b"\x1b[2J", b"text")
        script.expect(r"^ \[x\] text$")
        assert script.lines[1:] == [" [x] a picture", " [x] \ufffd", " [x] ", r" [x] \x1b[2J", " [x] text"]
        script.terminate()
        assert script.wait() == 0
