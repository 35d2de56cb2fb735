"""The ways to publish, what RabbitMQ answers, and what the scripts make of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from extras.management import Management
from tests.support.process import Finished, Script, run_script, wait_until
from tests.support.proxy import Proxy
from tests.support.queues import take, take_all
from tests.support.report import Report

MEASURED = "publisher_confirms.measured"
CONFIRMED = ("one_at_a_time", "in_batches", "asynchronous")
WAYS = (*CONFIRMED, "in_transactions")


def run(script: str, *arguments: str, environ: dict[str, str]) -> Finished:
    return run_script(f"publisher_confirms/{script}.py", *arguments, environ=environ, limit=120)


def failed(done: Finished, code: ExitCode, *words: str) -> None:
    """The script has this exit code, and said why in one line with these words."""
    assert done.code == code
    assert re.fullmatch(r"error: .+\n", done.err)
    for word in words:
        assert word in done.err


@pytest.fixture
def proxy(settings: Settings) -> Iterator[Proxy]:
    with Proxy(settings.addresses[0]) as running:
        yield running


@pytest.fixture
def through(proxy: Proxy, settings: Settings, environ: dict[str, str]) -> dict[str, str]:
    """The environment of a script whose connections go through the proxy."""
    return {**environ, "AMQP_URL": environ["AMQP_URL"].replace(f"@{settings.addresses[0]}", f"@{proxy.address}")}


# All is well


@pytest.mark.parametrize("way", WAYS)
def test_every_message_is_in_the_queue_once_and_in_order(way: str, environ: dict[str, str], settings: Settings) -> None:
    # No multiple of the batch: the last one is not full.
    done = run(way, "--count=250", environ=environ)
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(r" \[x\] 250 messages (confirmed|committed), .*: [\d,]+ per second\n", done.out)
    with connect("test", settings) as connection:
        taken = take(connection.channel(), MEASURED, 250)
    assert {properties.delivery_mode for properties, _ in taken} == {2}
    assert [body.decode() for _, body in taken] == [f"message {number}" for number in range(1, 251)]
    if way == "asynchronous":
        assert [properties.message_id for properties, _ in taken] == [body.decode() for _, body in taken]


@pytest.mark.parametrize("batch", [1, 7, 500])
@pytest.mark.parametrize("way", ["in_batches", "in_transactions"])
def test_batches_of_any_size(way: str, batch: int, environ: dict[str, str], settings: Settings) -> None:
    assert run(way, "--count=50", f"--batch={batch}", environ=environ).code == 0
    with connect("test", settings) as connection:
        assert len(take(connection.channel(), MEASURED, 50)) == 50


@pytest.mark.long
@pytest.mark.xdist_group("heavy")
def test_the_rates_in_one_table(environ: dict[str, str], broker_version: tuple[int, int, int], report: Report) -> None:
    # Into a queue that is not empty: each way is to begin with an empty one.
    assert run("one_at_a_time", "--count=10", environ=environ).code == 0
    done = run("publisher_confirms", "--rounds=2", environ=environ)
    assert (done.code, done.err) == (0, "")
    title, *rows = done.out.splitlines()
    assert title.split() == ["WAY", "MESSAGES", "PER", "SECOND", "RATIO"]
    found = [re.fullmatch(r"(.+?) +([\d,]+) +([\d,]+) +([\d.]+)", row) for row in rows]
    counts = [match[2] for match in found if match]
    rates = {match[1]: int(match[3].replace(",", "")) for match in found if match}
    ratios = {match[1]: float(match[4]) for match in found if match}
    assert counts == ["500", "5,000", "5,000", "500", "5,000"]
    version = ".".join(map(str, broker_version))
    for row in rows:
        report.add("Publisher confirms: the rates", f"{version}  {row}")
    assert list(rates) == [
        "one at a time",
        "in batches of 100",
        "asynchronously",
        "in transactions of 1",
        "in transactions of 100",
    ]
    for way, ratio in ratios.items():
        # The rates are printed without their decimals.
        assert ratio == pytest.approx(rates[way] / rates["one at a time"], rel=0.01, abs=0.1)
    # Measured: 8 to 11, 11 to 20, and 0.9. A busy machine changes them, and reverses none of them.
    assert ratios["in batches of 100"] > 2
    assert ratios["asynchronously"] > 3
    assert ratios["in transactions of 1"] < ratios["in batches of 100"]


# What RabbitMQ answers


def test_every_answer(environ: dict[str, str], settings: Settings, management: Management) -> None:
    done = run("answers", environ=environ)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        " [x] to a queue with room: confirmed",
        " [x] to the same queue, which is full now: nacked",
        " [x] to no queue, mandatory: returned, 312 NO_ROUTE",
        " [x] to no queue, not mandatory: confirmed",
        " [x] to an exchange that does not exist: refused, "
        f"404 NOT_FOUND - no exchange 'publisher_confirms.nowhere' in vhost '{settings.vhost}'",
    ]
    assert management.queues() == []


@pytest.mark.parametrize(
    ("overflow", "nacked", "kept"), [("drop-head", [], [3, 4, 5]), ("reject-publish", [4, 5], [1, 2, 3])]
)
def test_what_a_full_queue_loses(
    overflow: str, nacked: list[int], kept: list[int], environ: dict[str, str], management: Management
) -> None:
    """With drop-head, two confirmed messages are lost; with reject-publish, two are nacked and none is lost."""
    done = run("overflow", overflow, environ=environ)
    assert (done.code, done.err) == (0, "")
    answers = [f" [x] message {n} is {'nacked' if n in nacked else 'confirmed'}" for n in range(1, 6)]
    assert done.out.splitlines() == [*answers, *(f" [x] in the queue: message {n}" for n in kept)]
    assert management.queues() == []


@pytest.mark.parametrize("script", [*WAYS, "publisher_confirms"])
def test_a_queue_that_is_full(script: str, environ: dict[str, str], settings: Settings, management: Management) -> None:
    """A classic queue refuses exactly what it has no room for, and every way reports it."""
    management.set_policy("full", r"^publisher_confirms\.", {"max-length": 50})
    done = run(script, "--count=500", environ=environ)
    match script:
        case "one_at_a_time":
            failed(done, ExitCode.NOT_CONFIRMED, "full")
        case "in_batches":
            failed(done, ExitCode.NOT_CONFIRMED, "50 of 100 messages refused; the first: message 51 was nacked")
        case "asynchronous":
            failed(done, ExitCode.NOT_CONFIRMED, "450 of 500 messages refused; the first: message 51 was nacked")
        case "in_transactions":
            failed(done, ExitCode.PROTOCOL, "406 PRECONDITION_FAILED - partial tx completion")
        case "publisher_confirms":
            # It begins with one message at a time, a tenth of them: just as many as there is room for.
            failed(done, ExitCode.NOT_CONFIRMED, "50 of 100 messages refused")
    if script in CONFIRMED:
        with connect("test", settings) as connection:
            bodies = [body.decode() for _, body in take(connection.channel(), MEASURED, 50)]
        assert bodies == [f"message {number}" for number in range(1, 51)]


# What breaks


@pytest.fixture
def channel(settings: Settings, environ: dict[str, str]) -> Iterator[BlockingChannel]:
    """A channel of the test; the queue is declared, and empty."""
    assert run("one_at_a_time", "--count=1", environ=environ).code == 0
    with connect("test", settings) as connection:
        opened = connection.channel()
        opened.queue_purge(MEASURED)
        yield opened


def count(channel: BlockingChannel) -> int:
    return int(channel.queue_declare(MEASURED, passive=True).method.message_count)


@pytest.mark.parametrize(("script", "window"), [("in_batches", 100), ("asynchronous", 1000)])
def test_the_messages_in_doubt_are_named_when_the_connection_breaks(
    script: str, window: int, proxy: Proxy, through: dict[str, str], channel: BlockingChannel
) -> None:
    """Counted: every message before the first one in doubt is in the queue, and none twice."""
    with Script(f"publisher_confirms/{script}.py", "--count=1000000", environ=through) as publisher:
        wait_until(lambda: count(channel) > 1000)
        proxy.cut()
        assert publisher.wait() == ExitCode.NOT_CONFIRMED
    match = re.fullmatch(r"error: ([\d,]+) (?:messages )?in doubt, from (?:message )?(\d+) on: .+", publisher.lines[-1])
    assert match, publisher.lines
    assert not any("Traceback" in line for line in publisher.lines)
    doubt, first = int(match[1].replace(",", "")), int(match[2])
    # None, if the connection breaks in the moment between two batches.
    assert 0 <= doubt <= window
    arrived = sorted(int(body.split()[1]) for _, body in take_all(channel, MEASURED))
    assert arrived[: first - 1] == list(range(1, first))
    # Of those in doubt, some have arrived, and perhaps all.
    assert len(set(arrived)) == len(arrived)


@pytest.mark.parametrize("script", WAYS)
def test_a_connection_that_breaks_ends_the_script_with_one_line(
    script: str, proxy: Proxy, through: dict[str, str], channel: BlockingChannel
) -> None:
    with Script(f"publisher_confirms/{script}.py", "--count=1000000", environ=through) as publisher:
        wait_until(lambda: count(channel) > 100)
        proxy.cut()
        waiting = script in ("one_at_a_time", "in_transactions")
        assert publisher.wait() == (ExitCode.UNAVAILABLE if waiting else ExitCode.NOT_CONFIRMED)
    assert len(publisher.lines) == 1
    assert publisher.lines[0].startswith("error: ")


@pytest.mark.parametrize("script", CONFIRMED)
def test_a_queue_that_is_deleted_in_mid_run(script: str, environ: dict[str, str], channel: BlockingChannel) -> None:
    """The messages are mandatory: RabbitMQ returns them, and the script says so."""
    with Script(f"publisher_confirms/{script}.py", "--count=30000", environ=environ) as publisher:
        wait_until(lambda: count(channel) > 100)
        channel.queue_delete(MEASURED)
        code = publisher.wait()
    assert code == (ExitCode.UNROUTABLE if script == "one_at_a_time" else ExitCode.NOT_CONFIRMED)
    assert "returned" in publisher.lines[-1] or "refused" in publisher.lines[-1]
    assert len(publisher.lines) == 1


@pytest.mark.parametrize("script", WAYS)
def test_ctrl_c(script: str, environ: dict[str, str], channel: BlockingChannel) -> None:
    """Also where it comes in the middle of pika's work; an answer may then never come."""
    with Script(f"publisher_confirms/{script}.py", "--count=1000000", environ=environ) as publisher:
        wait_until(lambda: count(channel) > 100)
        publisher.interrupt()
        assert publisher.wait() == 0
    assert publisher.lines == []


BAD = ("0", "-1", "many", "9" * 30)


@pytest.mark.parametrize(
    ("script", "option"),
    [
        *((way, "--count") for way in (*WAYS, "publisher_confirms")),
        ("publisher_confirms", "--rounds"),
        ("in_batches", "--batch"),
        ("in_transactions", "--batch"),
    ],
)
def test_a_number_that_makes_no_sense(script: str, option: str, offline: dict[str, str]) -> None:
    for number in BAD:
        done = run(script, f"{option}={number}", environ=offline)
        failed(done, ExitCode.USAGE, option, "a whole number from 1 to", repr(number), "--help")
        assert done.out == ""
