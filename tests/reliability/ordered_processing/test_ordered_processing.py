"""ordered_processing, where its README does not look: rubbish, a lost book, the broker's own rules; and the drill."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from tests.drills.brokers import Unavailable, victim
from tests.support.process import ROOT, Finished, Script, run_script, wait_until
from tests.support.queues import put, take
from tests.support.report import Report
from tour.vhost import environment

FOLDER = "reliability/ordered_processing"
SINGLE = "ordered_processing.single"
DEAD = "ordered_processing.dead_letters"
PARCELS = 100
STEPS = 200
PARTITIONS = 3
PREFETCH = 20
LIMIT = 240.0


def run(script: str, *arguments: str, environ: dict[str, str]) -> Finished:
    return run_script(f"{FOLDER}/{script}", *arguments, environ=environ)


def follower(*arguments: str, environ: dict[str, str]) -> Script:
    return Script(f"{FOLDER}/follow.py", *arguments, environ=environ)


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("test", settings) as connection:
        yield connection.channel()


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return tmp_path / "book"


def body(**changes: object) -> bytes:
    return json.dumps({"parcel": "parcel-1", "step": 1, "of": 4, **changes}).encode()


def test_help_and_their_own_folder(environ: dict[str, str], book: Path) -> None:
    for script in ("send_events.py", "follow.py", "check_order.py"):
        result = run_script(script, "--help", environ=environ, folder=ROOT / FOLDER)
        assert f"python {FOLDER}/{script}" in result.out
        assert (result.code, result.err) == (0, "")
    assert run_script("send_events.py", "single", environ=environ, folder=ROOT / FOLDER).code == 0
    with Script("follow.py", "single", str(book), environ=environ, folder=ROOT / FOLDER) as follow:
        follow.expect(r"^ \[x\] parcel-1: step 4 of 4$")
        follow.terminate()
        assert follow.wait() == 0
    assert run_script("check_order.py", str(book), environ=environ, folder=ROOT / FOLDER).code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("follow.py", "partition-0", "book"),
        ("follow.py", "everything", "book"),
        ("follow.py", "single", "book", "--prefetch", "0"),
        ("follow.py", "single", "book", "--seconds", "-1"),
        ("send_events.py", "single", "--parcels", "none"),
        ("send_events.py", "single", "--after", "-1"),
    ],
    ids=" ".join,
)
def test_a_wrong_argument_is_told_in_one_line(arguments: tuple[str, ...]) -> None:
    result = run(*arguments, environ=dict(os.environ))
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert result.err.count("\n") == 1
    assert "must be a" in result.err or "must be several" in result.err


def test_what_is_no_event_goes_to_the_dead_letters_and_the_next_one_is_done(
    environ: dict[str, str], channel: BlockingChannel, book: Path
) -> None:
    rubbish = [
        b"\xff",
        b"[]",
        b"7",
        b"null",
        b'{"parcel": "parcel-1"}',
        body(step=0),
        body(step=5),
        body(step="1"),
        body(step=True),
        body(step=1.5),
        body(parcel=""),
        body(parcel=7),
        body(of=2**40),
    ]
    with follower("single", str(book), environ=environ) as follow:
        follow.expect("Waiting")
        put(channel, SINGLE, *rubbish, body())
        follow.expect(r"parcel-1: step 1 of 4$")
        wait_until(lambda: sum("rejected: " in line for line in follow.lines) == len(rubbish))
        follow.terminate()
        assert follow.wait() == 0
        assert not any("Traceback" in line for line in follow.lines)
    assert [dead for _properties, dead in take(channel, DEAD, len(rubbish))] == rubbish
    assert len(book.read_text().splitlines()) == 1


def test_a_book_that_cannot_be_written_costs_no_event(
    environ: dict[str, str], channel: BlockingChannel, tmp_path: Path
) -> None:
    assert run("send_events.py", "single", environ=environ).code == 0
    result = run("follow.py", "single", str(tmp_path), environ=environ)
    assert result.code == ExitCode.OUTPUT
    assert result.err == f"error: {tmp_path} cannot be written: Is a directory\n"
    wait_until(lambda: channel.queue_declare(SINGLE, passive=True).method.message_count == 4)


@pytest.mark.parametrize("content", [None, "a letter\n", "\x00", '{"parcel": "parcel-1"}\n'])
def test_a_file_that_is_no_book_is_told_in_one_line(content: str | None, book: Path) -> None:
    if content is not None:
        book.write_text(content)
    result = run("check_order.py", str(book), environ=dict(os.environ))
    assert (result.code, result.out) == (ExitCode.OUTPUT, "")
    assert result.err.startswith(f"error: {book} ")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("steps", "told", "error"),
    [
        ([1, 2, 3, 4], "0 overtaken, 0 missing, 0 done again", ""),
        ([1, 1, 2, 3, 2, 3, 4], "0 overtaken, 0 missing, 3 done again", ""),
        ([2, 1, 3, 4], "1 overtaken, 0 missing, 0 done again", "step 1 of 4 is behind a later one"),
        ([1, 2, 4], "0 overtaken, 1 missing, 0 done again", "step 3 of 4 is missing"),
        ([4, 3, 2, 1], "3 overtaken, 0 missing, 0 done again", "step 3 of 4 is behind a later one"),
    ],
)
def test_the_check_can_fail(steps: list[int], told: str, error: str, book: Path) -> None:
    book.write_text("".join(body(step=step, queue="single").decode() + "\n" for step in steps))
    result = run("check_order.py", str(book), environ=dict(os.environ))
    assert result.out.splitlines()[-1] == f" [x] 1 parcels, {len(set(steps))} events: {told}"
    assert error in result.err
    assert result.code == (ExitCode.DATA if error else 0)


def bodies_of(channel: BlockingChannel, queue: str, count: int) -> Iterator[tuple[int, bytes]]:
    """Delivery tag and body of the next ``count`` messages that a consumer gets; it stays."""
    for got, (method, _properties, content) in enumerate(channel.consume(queue, inactivity_timeout=30), 1):
        assert method is not None, f"only {got - 1} of {count}"
        yield method.delivery_tag, content
        if got == count:
            return


@pytest.mark.parametrize("limited", [True, False], ids=["with a delivery limit", "without"])
def test_what_is_given_back_keeps_its_place_if_the_queue_has_a_limit(
    limited: bool, channel: BlockingChannel, broker_version: tuple[int, int, int]
) -> None:
    arguments = {"x-queue-type": "quorum", **({"x-delivery-limit": 20} if limited else {})}
    channel.queue_declare("given.back", durable=True, arguments=arguments)
    channel.basic_qos(prefetch_count=1)
    put(channel, "given.back", b"1", b"2")
    seen = []
    for tag, content in bodies_of(channel, "given.back", 3):
        seen.append(content)
        if len(seen) == 1:
            channel.basic_reject(tag, requeue=True)
        else:
            channel.basic_ack(tag)
    keeps = limited or broker_version >= (4, 0)
    assert seen == ([b"1", b"1", b"2"] if keeps else [b"1", b"2", b"1"])


def test_a_consumer_that_cancels_itself_is_overtaken_by_the_next_one(
    settings: Settings, channel: BlockingChannel
) -> None:
    """Which is why follow.py asks for in_order."""
    arguments = {"x-queue-type": "quorum", "x-single-active-consumer": True, "x-delivery-limit": 20}
    channel.queue_declare("overtaken", durable=True, arguments=arguments)
    put(channel, "overtaken", b"1", b"2", b"3")
    with connect("first", settings) as one, connect("second", settings) as two:
        first, second = one.channel(), two.channel()
        for each in (first, second):
            each.basic_qos(prefetch_count=2)
        held: list[bytes] = []
        tag = first.basic_consume("overtaken", lambda _channel, _method, _properties, content: held.append(content))
        got: list[bytes] = []
        second.basic_consume("overtaken", lambda _channel, _method, _properties, content: got.append(content))
        wait_until(lambda: one.process_data_events(time_limit=0.05) or len(held) == 2)
        assert got == []
        # Not pika's basic_cancel: it gives back what it holds, but only after the cancellation.
        first.basic_cancel(tag)
        wait_until(lambda: two.process_data_events(time_limit=0.05) or got)
        assert got[0] == b"3"


def test_a_broker_without_the_plugin_is_told_in_one_line(configured: Settings, tmp_path: Path, book: Path) -> None:
    try:
        with victim(configured, tmp_path / "broker") as broker:
            environ = environment(broker.settings)
            for arguments in (["send_events.py", "partitions"], ["follow.py", "partition-1", str(book)]):
                result = run(*arguments, environ=environ)
                assert (result.code, result.out) == (ExitCode.UNSUPPORTED, "")
                assert result.err.count("\n") == 1
                assert "rabbitmq-plugins enable rabbitmq_consistent_hash_exchange" in result.err
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.mark.xdist_group("heavy")
@pytest.mark.timeout(LIMIT + 120)
def test_every_parcel_is_in_order_whoever_is_killed(
    environ: dict[str, str], channel: BlockingChannel, book: Path, report: Report
) -> None:
    """In each partition one works and one stands by; each second one that works is killed."""
    began = time.monotonic()
    kills = 0

    def start(partition: int) -> Script:
        arguments = (f"partition-{partition}", str(book), "--prefetch", str(PREFETCH))
        return stack.enter_context(follower(*arguments, environ=environ))

    def waits(script: Script) -> bool:
        return any("Waiting" in line for line in script.lines)

    def done() -> int:
        return book.read_bytes().count(b"\n") if book.exists() else 0

    with ExitStack() as stack:
        partitions = {partition: [start(partition)] for partition in range(1, PARTITIONS + 1)}
        for partition, scripts in partitions.items():
            wait_until(lambda: waits(scripts[0]), 60)  # noqa: B023  called here only
            scripts.append(start(partition))
        sent = stack.enter_context(
            Script(
                f"{FOLDER}/send_events.py",
                *("partitions", "--parcels", str(PARCELS), "--steps", str(STEPS)),
                environ=environ,
            )
        )
        waiting = PARCELS * STEPS
        while done() < PARCELS * STEPS or waiting:
            assert time.monotonic() - began < LIMIT, f"{done()} of {PARCELS * STEPS} after {LIMIT:g} s"
            time.sleep(1)
            scripts = partitions[partition := random.randint(1, PARTITIONS)]
            # The one that came first is the active one. Its successor is there, so the partition is never alone.
            scripts[1].expect("Waiting")
            scripts.pop(0).kill()
            kills += 1
            scripts.append(start(partition))
            waiting = sum(
                channel.queue_declare(f"ordered_processing.partition-{number}", passive=True).method.message_count
                for number in partitions
            )
        assert sent.wait() == 0
        for script in [script for scripts in partitions.values() for script in scripts]:
            wait_until(lambda: waits(script), 60)  # noqa: B023  called here only
            script.terminate()
            assert script.wait() == 0
    checked = run("check_order.py", str(book), environ=environ)

    # The same once more, by another way of counting: in the book, a parcel goes on step by step; after a kill it is set
    # back to what was not acknowledged, and goes on from there step by step.
    steps: defaultdict[str, list[int]] = defaultdict(list)
    where: defaultdict[str, set[str]] = defaultdict(set)
    for line in book.read_text().splitlines():
        entry = json.loads(line)
        steps[entry["parcel"]].append(entry["step"])
        where[entry["parcel"]].add(entry["queue"])
    jumps = Counter(after - before for found in steps.values() for before, after in pairwise([0, *found]))
    out_of_order = sum(count for jump, count in jumps.items() if jump > 1)
    set_back = sum(count for jump, count in jumps.items() if jump < 1)
    missing = PARCELS * STEPS - sum(len(set(found)) for found in steps.values())
    duplicates = sum(map(len, steps.values())) + missing - PARCELS * STEPS
    report.add(
        "Failure drills",
        f"ordered_processing: {PARCELS} keys, {PARCELS * STEPS:,} messages, {missing} missing, "
        f"{out_of_order} out of order, {duplicates} duplicates, "
        f"{kills} active consumers killed, {time.monotonic() - began:.1f} s",
    )
    assert missing == 0
    assert out_of_order == 0
    assert set_back <= duplicates <= kills * PREFETCH
    assert len(steps) == PARCELS
    assert all(len(queues) == 1 for queues in where.values())
    assert kills >= 5
    assert checked.out.splitlines()[-1] == (
        f" [x] {PARCELS} parcels, {PARCELS * STEPS} events: 0 overtaken, 0 missing, {duplicates} done again"
    )
    assert checked.code == 0
    assert channel.queue_declare(DEAD, passive=True).method.message_count == 0
