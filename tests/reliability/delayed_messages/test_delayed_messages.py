"""delayed_messages, where its README does not look: each level, times of day, strange messages, a killed broker."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from robust_pika import Publisher
from tests.drills.brokers import SETTLED, Victim
from tests.support.process import ROOT, Finished, Script, run_script, wait_until
from tests.support.queues import put, take
from tests.support.report import Report
from tour.vhost import environment

FOLDER = "reliability/delayed_messages"
REMINDERS = "delayed_messages.reminders"
DEAD = "delayed_messages.reminders.dead_letters"
STEP = 100
LEVELS = 24
TOP = f"delayed_messages.level.{LEVELS - 1}"
TEN_YEARS = 315_360_000_000

SECTION = "Precision of delays"


def run(script: str, *arguments: str, environ: dict[str, str]) -> Finished:
    return run_script(f"{FOLDER}/{script}", *arguments, environ=environ)


def receiver(environ: dict[str, str]) -> Script:
    return Script(f"{FOLDER}/receive_reminders.py", environ=environ)


def key(delay: int, address: str = REMINDERS) -> str:
    """The routing key for a delay in milliseconds, worked out by other means than those of the example."""
    steps = -(-delay // STEP)
    return ".".join(str(steps // 2**level % 2) for level in reversed(range(LEVELS))) + f".{address}"


def now() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def channel(settings: Settings, environ: dict[str, str]) -> Iterator[BlockingChannel]:
    """A channel, with the ladder declared by the example's own script."""
    assert run("remind.py", "--in", "0", "first", environ=environ).code == 0
    with connect("test", settings) as connection:
        opened = connection.channel()
        take(opened, REMINDERS, 1)
        yield opened


def depth(channel: BlockingChannel, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def test_help_and_their_own_folder(environ: dict[str, str]) -> None:
    for script in ("remind.py", "receive_reminders.py", "remind_naive.py", "measure_precision.py"):
        result = run_script(script, "--help", environ=environ, folder=ROOT / FOLDER)
        assert f"python {FOLDER}/{script}" in result.out
        assert (result.code, result.err) == (0, "")
    assert run_script("remind.py", "--in", "0.1", "tea", environ=environ, folder=ROOT / FOLDER).code == 0
    with Script("receive_reminders.py", environ=environ, folder=ROOT / FOLDER) as receive:
        receive.expect(r"^ \[x\] Received 'tea', \d+\.\d{3} s late$")
        receive.terminate()
        assert receive.wait() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("remind.py", "--in", "-1"),
        ("remind.py", "--in", "1677721.6"),
        ("remind.py", "--in", "nan"),
        ("remind.py", "--in", "inf"),
        ("remind.py", "--in", "an hour"),
        ("remind.py", "--at", "25:00"),
        ("remind.py", "--at", "0001-01-01"),
        ("remind.py", "--at", "2001-02-29"),
        ("remind.py", "--at", "9999-12-31T23:59"),
        ("remind.py", "--at", "2001-02-28T18:30:00+02:00"),
        ("remind_naive.py", "--in", "-0.001"),
        ("remind_naive.py", "--in", "315360001"),
        ("measure_precision.py", "--count", "9"),
        ("measure_precision.py", "--rate", "0"),
    ],
    ids=" ".join,
)
def test_a_time_that_cannot_be_is_told_in_one_line(arguments: tuple[str, ...]) -> None:
    result = run(*arguments, environ=dict(os.environ))
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert result.err.count("\n") == 1
    assert re.search("must be (a|within) ", result.err)


def test_the_longest_time_to_live_is_ten_years(channel: BlockingChannel) -> None:
    """What remind_naive.py takes for RabbitMQ's limit is that: of a message, and of a queue."""
    put(channel, REMINDERS, b"", properties=BasicProperties(expiration=str(TEN_YEARS)))
    with channel.connection.channel() as other:
        other.queue_declare("long", durable=True, arguments={"x-queue-type": "quorum", "x-message-ttl": TEN_YEARS})
    too_long = {"x-queue-type": "quorum", "x-message-ttl": TEN_YEARS + 1}
    with pytest.raises(ChannelClosedByBroker, match="value_too_large"):
        channel.connection.channel().queue_declare("longer", durable=True, arguments=too_long)
    with pytest.raises(ChannelClosedByBroker, match="value_too_large"):
        put(channel, REMINDERS, b"", properties=BasicProperties(expiration=str(TEN_YEARS + 1)))


def test_a_digit_is_a_level(channel: BlockingChannel) -> None:
    """From the top, so that a message for the lowest level passes all others by."""
    channel.confirm_delivery()
    for level in range(LEVELS):
        channel.basic_publish(TOP, key(STEP * 2**level), b"%d" % level, mandatory=True)
    long = range(12, LEVELS)  # from seven minutes on: they are still there
    wait_until(lambda: [depth(channel, f"delayed_messages.level.{level}") for level in long] == [1] * len(long))
    for level in long:
        method, _properties, body = channel.basic_get(f"delayed_messages.level.{level}", auto_ack=True)
        assert method is not None
        assert body == b"%d" % level
    came: list[int] = []
    for method, _properties, body in channel.consume(REMINDERS, auto_ack=True, inactivity_timeout=30):
        assert method is not None, came
        came.append(int(body))
        if len(came) == 6:  # those that wait for three seconds at most
            break
    assert came == list(range(6))


def test_the_longest_delay_goes_to_the_top(environ: dict[str, str], channel: BlockingChannel) -> None:
    result = run("remind.py", "--in", "1677721.5", environ=environ)
    assert (result.code, result.err) == (0, "")
    assert "waits for 838861 + " in result.out
    assert depth(channel, TOP) == 1


@pytest.mark.long
def test_1000_messages_over_ten_delays(
    environ: dict[str, str], report: Report, broker_version: tuple[int, ...]
) -> None:
    result = run_script(f"{FOLDER}/measure_precision.py", "--count", "1000", environ=environ, limit=120)
    lines = result.out.splitlines()
    report.add(
        SECTION, f"RabbitMQ {'.'.join(map(str, broker_version))}:{lines[-1].removeprefix(' [x]') if lines else ''}"
    )
    assert (result.code, result.err) == (0, "")
    assert re.fullmatch(r" \[x\] 1,000 messages over 10 delays: 0 early, 0 missing, median lateness \d+ ms", lines[-1])
    assert [line.split()[3:5] for line in lines[1:-1]] == [["100", "0"]] * 10


def test_a_time_of_day_and_a_date(environ: dict[str, str], channel: BlockingChannel) -> None:
    def send(lead: int) -> datetime | None:
        """Three reminders for the same moment, ``lead`` seconds ahead; None if that was too soon for this machine."""
        due = datetime.now().astimezone().replace(microsecond=0) + timedelta(seconds=lead)
        for text in (f"{due:%H:%M:%S}", due.isoformat(), due.replace(tzinfo=None).isoformat()):
            result = run("remind.py", "--at", text, str(lead), environ=environ)
            if due <= datetime.now().astimezone():
                return None
            assert (result.code, result.err) == (0, "")
            assert f"is due at {due:%H:%M:%S}, and waits for " in result.out
        return due

    lead, due = next((lead, moment) for lead in (4, 8, 16, 32, 64) if (moment := send(lead)))
    came = 0
    for method, _properties, body in channel.consume(REMINDERS, auto_ack=True, inactivity_timeout=60):
        assert method is not None, f"{came} of 3 have come"
        if int(body) == lead:
            assert datetime.now().astimezone() >= due
            came += 1
            if came == 3:
                break
    channel.cancel()
    # The time of day that is just past is tomorrow's.
    past = f"{datetime.now() - timedelta(minutes=1):%H:%M}"
    result = run("remind.py", "--at", past, environ=environ)
    assert (result.code, result.err) == (0, "")
    waits = [float(seconds) for seconds in result.out.split("waits for ")[1].removesuffix(" s\n").split(" + ")]
    assert 86_400 - 300 < sum(waits) < 86_400


def test_one_queue_for_all_delays_keeps_back_what_is_due(environ: dict[str, str]) -> None:
    with receiver(environ) as receive:
        receive.expect("Waiting")
        for delay, text in (("4", "long"), ("0", "short")):
            assert run("remind_naive.py", "--in", delay, text, environ=environ).code == 0
        assert run("remind.py", "--in", "0.1", "on the ladder", environ=environ).code == 0
        came = [receive.expect(r"Received '(.*)'")[1] for _ in range(3)]
    # Slow as the machine may be, what has waited in one queue comes as it went in.
    assert [text for text in came if text != "on the ladder"] == ["long", "short"]


def test_headers_that_are_missing_or_strange(environ: dict[str, str], channel: BlockingChannel) -> None:
    strange = [None, {}, {"x-due": "noon"}, {"x-due": [1]}, {"x-due": None}, {"x-due": -5}, {"x-due": 2**62}]
    with receiver(environ) as receive:
        receive.expect("Waiting")
        for number, headers in enumerate(strange):
            put(channel, REMINDERS, b"%d" % number, properties=BasicProperties(headers=headers))
        for number in range(len(strange)):
            receive.expect(rf"Received '{number}'(?:, -?\d+\.\d{{3}} s late)?$")
        receive.terminate()
        assert receive.wait() == 0
        assert not any("Traceback" in line for line in receive.lines)
    assert depth(channel, DEAD) == 0


def test_what_nobody_wants_when_it_is_due_is_in_nobodys_way(channel: BlockingChannel) -> None:
    """More of them than RabbitMQ tries to dead-letter at once; without a way out they would block the level."""
    count = 200
    channel.confirm_delivery()
    for number in range(count):
        channel.basic_publish(TOP, key(STEP, "nobody"), b"%d" % number, mandatory=True)
    channel.basic_publish(TOP, key(STEP), b"wanted", mandatory=True)
    assert [body for _properties, body in take(channel, REMINDERS, 1)] == [b"wanted"]
    assert {int(body) for _properties, body in take(channel, DEAD, count)} == set(range(count))


def test_a_second_round_needs_a_message_without_its_deaths(
    channel: BlockingChannel, broker_version: tuple[int, int, int]
) -> None:
    """With two levels: RabbitMQ 3 drops what is to be moved to a queue in which it has expired before."""
    channel.confirm_delivery()
    channel.basic_publish(TOP, key(3 * STEP), b"again", mandatory=True)
    [(properties, _body)] = take(channel, REMINDERS, 1)
    assert "x-death" in (properties.headers or {})
    channel.basic_publish(TOP, key(3 * STEP), b"as it came", properties, mandatory=True)
    properties.headers = None
    # On the same way behind it: when they come, it has had its chance.
    channel.basic_publish(TOP, key(3 * STEP), b"without", properties, mandatory=True)
    channel.basic_publish(TOP, key(7 * STEP), b"later", properties, mandatory=True)
    expected = [b"without", b"later"] if broker_version < (4, 0) else [b"as it came", b"without", b"later"]
    assert [body for _properties, body in take(channel, REMINDERS, len(expected))] == expected


@pytest.mark.long
@pytest.mark.xdist_group("victim")
@pytest.mark.timeout(400)
def test_reminders_survive_a_broker_that_is_killed(shared_victim: Victim, report: Report) -> None:
    broker = shared_victim
    count = 500
    assert run("remind.py", "--in", "0", "first", environ=environment(broker.settings)).code == 0
    time.sleep(SETTLED)
    due = {}
    with Publisher("test", broker.settings) as publisher:
        for number in range(count):
            # Some are due before the end, most while it is down, and some after that.
            delay = 24 * number + 1
            due[number] = now() + delay
            publisher.publish(TOP, key(delay), b"%d" % number)
    broker.kill()
    killed = time.monotonic()
    broker.start()
    down = time.monotonic() - killed
    late: dict[int, int] = {}
    copies = 0
    with connect("test", broker.settings) as connection:
        channel = connection.channel()
        for method, _properties, body in channel.consume(REMINDERS, inactivity_timeout=60):
            assert method is not None, f"{count - len(late)} of {count} did not come"
            channel.basic_ack(method.delivery_tag)
            if body == b"first":
                continue
            copies += int(body) in late
            late.setdefault(int(body), now() - due[int(body)])
            if len(late) == count:
                break
    early = sum(value < 0 for value in late.values())
    report.add(
        "Failure drills",
        f"delayed_messages: {count} reminders, the broker killed and down for {down:.1f} s: 0 missing, {early} early, "
        f"{copies} duplicates, lateness {statistics.median(late.values()) / 1000:.1f} s in the median, "
        f"{max(late.values()) / 1000:.1f} s at most",
    )
    assert early == 0
