"""retries, where its README does not look: the waits, strange headers, deadly payments, an outage; and the drill."""

from __future__ import annotations

import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel

from common import messages
from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from extras.management import Management
from robust_pika import Publisher
from tests.support.process import ROOT, Finished, Script, run_script, wait_until
from tests.support.queues import put, take, take_all
from tests.support.report import Report

FOLDER = "reliability/retries"
PAYMENTS = "retries.payments"
DEAD = "retries.payments.dead_letters"
DELAYS = [375, 500, 625, 750, 1000, 1250, 1500, 2000, 2500]
DELAYED_RETRY = (4, 3, 1)

MESSAGES = int(os.environ.get("DRILL_MESSAGES", "2000"))
"""How many payments the drill makes; 10,000 take five times as long."""
KILLS = 15
WORKERS = 3


def run(script: str, *arguments: str, environ: dict[str, str]) -> Finished:
    return run_script(f"{FOLDER}/{script}", *arguments, environ=environ)


def payer(*arguments: str, environ: dict[str, str]) -> Script:
    return Script(f"{FOLDER}/pay.py", *arguments, environ=environ)


@pytest.fixture
def channel(settings: Settings, environ: dict[str, str]) -> Iterator[BlockingChannel]:
    """A channel, with the queues of the example declared by its own script."""
    assert run("show_given_up.py", environ=environ).out == " [x] 0 dead letters\n"
    with connect("test", settings) as connection:
        yield connection.channel()


def depth(channel: BlockingChannel, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def test_help_and_their_own_folder(environ: dict[str, str]) -> None:
    for script in ("request_payment.py", "pay.py", "show_given_up.py"):
        result = run_script(script, "--help", environ=environ, folder=ROOT / FOLDER)
        assert f"python {FOLDER}/{script}" in result.out
        assert (result.code, result.err) == (0, "")
    assert run_script("request_payment.py", "a", "fee", environ=environ, folder=ROOT / FOLDER).code == 0
    with Script("pay.py", environ=environ, folder=ROOT / FOLDER) as pay:
        pay.expect(r"^ \[x\] Paid 'a fee'$")
        pay.terminate()
        assert pay.wait() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("pay.py", "--pause", "-1"),
        ("pay.py", "--threshold", "0"),
        ("pay.py", "--bank-down-for", "long"),
        ("request_payment.py", "--count", "0"),
        ("show_given_up.py", "--limit", "0"),
    ],
    ids=" ".join,
)
def test_a_number_out_of_range_is_told_in_one_line(arguments: tuple[str, ...]) -> None:
    result = run(*arguments, environ=dict(os.environ))
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert result.err.count("\n") == 1
    assert "must be a" in result.err


def test_no_payment_waits_behind_another_or_comes_back_early(
    environ: dict[str, str], channel: BlockingChannel, settings: Settings
) -> None:
    with payer("--ladder", environ=environ) as pay:
        pay.expect("Waiting")
        pay.terminate()
        assert pay.wait() == 0
    with connect("test", settings) as connection:
        publishing = connection.channel()
        publishing.confirm_delivery()
        sent = {}
        for delay in sorted(DELAYS, reverse=True):
            sent[delay] = time.monotonic()
            publishing.basic_publish("", f"{PAYMENTS}.wait.{delay}", b"%d" % delay, mandatory=True)
    lateness = {}
    for method, _properties, body in channel.consume(PAYMENTS, auto_ack=True, inactivity_timeout=30):
        assert method is not None, f"only {len(lateness)} have come back"
        lateness[int(body)] = time.monotonic() - sent[int(body)] - int(body) / 1000
        if len(lateness) == len(DELAYS):
            break
    channel.cancel()
    # RabbitMQ counts whole milliseconds.
    assert min(lateness.values()) > -0.002
    # Behind the longest, which was first, the shortest would be two seconds late.
    assert lateness[DELAYS[0]] < 1.5


def test_the_broker_decides_which_way_and_what_is_seen_is_the_same(
    environ: dict[str, str], channel: BlockingChannel, management: Management, broker_version: tuple[int, int, int]
) -> None:
    def story(*arguments: str) -> list[str]:
        with payer(*arguments, environ=environ) as pay:
            pay.expect("Waiting")
            put(channel, PAYMENTS, b"never")
            pay.expect("given up")
            put(channel, PAYMENTS, b"slow")
            pay.expect("Paid")
            pay.interrupt()
            assert pay.wait() == 0
            # But for its first line, which has its process id.
            return pay.lines[1:]

    def ladder() -> bool:
        return any(".wait." in queue.name for queue in management.queues())

    first = story()
    assert ladder() is (broker_version < DELAYED_RETRY)
    assert story("--ladder") == first
    assert ladder()
    for properties, body in take(channel, DEAD, 2):
        assert body == b"never"
        assert (properties.headers or {})["x-given-up-after"] == 4
        assert (properties.headers or {})["x-errors"][-1] == "the bank is busy"


@pytest.mark.parametrize("mode", [(), ("--ladder",)], ids=["as the broker can", "ladder"])
def test_headers_that_are_missing_or_strange(
    mode: tuple[str, ...], environ: dict[str, str], channel: BlockingChannel
) -> None:
    """Each payment is made, or given up with the number of attempts that an ordinary one has."""
    strange = [
        {},
        {"x-attempt": "many", "x-errors": "all"},
        {"x-attempt": -3, "x-errors": [1, None]},
        {"x-attempt": [1], "x-delivery-count": "two"},
        {"x-attempt": 10**12, "x-delivery-count": -1},
    ]
    channel.confirm_delivery()
    with payer(*mode, environ=environ) as pay:
        pay.expect("Waiting")
        for number, headers in enumerate(strange):
            for body in (b"%d: rent" % number, b"%d: closed" % number, b"\xff"):
                channel.basic_publish("", PAYMENTS, body, BasicProperties(headers=headers), mandatory=True)
        wait_until(lambda: sum("Paid" in line for line in pay.lines) == len(strange))
        wait_until(lambda: depth(channel, DEAD) == 2 * len(strange))
        pay.terminate()
        assert pay.wait() == 0
        assert not any("Traceback" in line for line in pay.lines)
    shown = run("show_given_up.py", environ=environ)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.count("given up after attempt") == len(strange)
    assert shown.out.count("RabbitMQ put it aside: rejected") == len(strange)


def test_a_payment_that_kills_its_consumers_is_put_aside_and_can_be_sent_again(
    settings: Settings, environ: dict[str, str], channel: BlockingChannel
) -> None:
    put(channel, PAYMENTS, b"deadly")
    deaths = 0
    while not depth(channel, DEAD):
        with connect("a consumer", settings) as connection:
            dying = connection.channel()
            # RabbitMQ 4.3 keeps it back longer and longer, or it is dead.
            if wait_until(lambda: dying.basic_get(PAYMENTS)[0] or depth(channel, DEAD)):  # noqa: B023  called here only
                deaths += 1
        assert deaths < 10
    shown = run("show_given_up.py", environ=environ)
    assert shown.out.splitlines()[0] == " [x] 'deadly': RabbitMQ put it aside: delivery_limit"
    replay = "reliability/dead_letters/replay_dead_letters.py"
    result = run_script(replay, "--queue", DEAD, "--to", PAYMENTS, environ=environ)
    assert (result.code, result.out) == (0, f" [x] 1 replayed, 0 left in {DEAD}\n")
    with payer(environ=environ) as pay:
        pay.expect("Paid 'deadly'")


def test_an_outage_wears_out_no_payment(environ: dict[str, str], channel: BlockingChannel) -> None:
    assert run("request_payment.py", "--count", "300", "rent", environ=environ).code == 0
    with payer("--bank-down-for", "3", "--pause", "0.5", environ=environ) as pay:
        wait_until(lambda: sum("Paid" in line for line in pay.lines) == 300, 60)
        failed = sum("failed, the bank does not answer" in line for line in pay.lines)
    # Three to open it, and one after each pause; without it, it would be thousands.
    assert 3 <= failed <= 3 + 6
    assert depth(channel, DEAD) == 0


def bodies() -> list[bytes]:
    """The payments of the drill: 1 % poison of three kinds, 5 % that fail at first, and good ones; no two alike."""
    poison = [b"%d: never", b"%d: closed account", b"\xff%d: not a text"]
    made = []
    for number in range(MESSAGES):
        if number % 100 == 0:
            made.append(poison[number // 100 % 3] % number)
        else:
            made.append((b"%d: slow rent" if number % 20 == 1 else b"%d: rent") % number)
    random.shuffle(made)
    return made


def number_of(body: bytes) -> int:
    match = re.search(rb"\d+", body)
    assert match
    return int(match[0])


@pytest.mark.long
@pytest.mark.xdist_group("heavy")
def test_every_payment_ends_as_done_or_dead_whoever_is_killed(
    settings: Settings, environ: dict[str, str], channel: BlockingChannel, management: Management, report: Report
) -> None:
    began = time.monotonic()
    with Publisher("test", settings) as publisher:
        for body in bodies():
            publisher.publish("", PAYMENTS, body, messages.properties())

    def start() -> Script:
        return payer("--pause", "0.2", environ=environ)

    started = [start() for _ in range(WORKERS)]
    alive = list(started)

    def done() -> Counter[int]:
        found = (re.match(r" \[x\] Paid '(\d+):", line) for script in started for line in script.lines)
        return Counter(int(match[1]) for match in found if match)

    try:
        for kill in range(1, KILLS + 1):
            due = MESSAGES * kill // (KILLS + 2)
            wait_until(lambda: len(done()) >= due, 90, every=0.1)  # noqa: B023  called here only
            time.sleep(random.uniform(0, 0.05))
            unlucky = alive.pop(random.randrange(WORKERS))
            unlucky.kill()
            started.append(start())
            alive.append(started[-1])
        dead: Counter[int] = Counter()

        def every_one_has_ended() -> bool:
            dead.update(number_of(body) for _properties, body in take_all(channel, DEAD))
            return len(done().keys() | dead.keys()) == MESSAGES

        wait_until(every_one_has_ended, 120, every=0.2)
        for script in alive:
            script.terminate()
        assert [script.wait() for script in alive] == [0] * WORKERS
        dead.update(number_of(body) for _properties, body in take_all(channel, DEAD))
        paid = done()
        # What still waits can only be the second copy of a payment whose worker was killed between publishing it and
        # acknowledging it.
        queues = [queue.name for queue in management.queues() if queue.name != DEAD]
        copies = [number_of(body) for queue in queues for _properties, body in take_all(channel, queue)]
        assert set(copies) <= paid.keys() | dead.keys()
        assert len(copies) <= KILLS
    finally:
        for script in started:
            script.kill()
    missing = set(range(MESSAGES)) - paid.keys() - dead.keys()
    both = paid.keys() & dead.keys()
    duplicates = paid.total() - len(paid) + dead.total() - len(dead) + len(copies)
    report.add(
        "Failure drills",
        f"retries: {MESSAGES:,} payments, {len(paid):,} done, {len(dead)} dead letters, {len(missing)} missing, "
        f"{len(both)} in both, {duplicates} duplicates, {KILLS} kills, {time.monotonic() - began:.1f} s",
    )
    assert missing == set()
    assert both == set()
    assert dead.keys() == set(range(0, MESSAGES, 100))
