"""back_pressure, where its README does not look: both alarms with counts, rubbish, and what a full queue does."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator

import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import NackError

from broker.ports import Ports
from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from extras.management import Management
from tests.drills.brokers import Victim
from tests.support.process import ROOT, Finished, Script, run_script, wait_until
from tests.support.queues import put, take
from tests.support.report import Report
from tour.vhost import environment

FOLDER = "reliability/back_pressure"
DEAD = "back_pressure.dead_letters"
LIMIT = 100


def run(script: str, *arguments: str, environ: dict[str, str]) -> Finished:
    return run_script(f"{FOLDER}/{script}", *arguments, environ=environ, limit=90)


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("test", settings) as connection:
        yield connection.channel()


def answers(line: str) -> tuple[int, int]:
    """How often measure.py was told yes, and no."""
    match = re.search(r"readings: (\d+) times yes, (\d+) times no$", line)
    assert match, line
    return int(match[1]), int(match[2])


def number(body: bytes) -> int:
    return int(json.loads(body)["number"])


def test_help_and_their_own_folder(environ: dict[str, str]) -> None:
    for script in ("measure.py", "store.py", "flood.py", "watch.py", "compare_limits.py", "compare_prefetch.py"):
        result = run_script(script, "--help", environ=environ, folder=ROOT / FOLDER)
        assert f"python {FOLDER}/{script}" in result.out
        assert (result.code, result.err) == (0, "")
    assert run_script("measure.py", "readings", "--count", "100", environ=environ, folder=ROOT / FOLDER).code == 0
    with Script("store.py", "readings", environ=environ, folder=ROOT / FOLDER) as store:
        store.expect(r"^ \[x\] Stored 100; number 100 waited ")
        store.terminate()
        assert store.wait() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("measure.py", "readings", "--count", "0"),
        ("measure.py", "readings", "--in-flight", "0"),
        ("measure.py", "somewhere"),
        ("store.py", "readings", "--prefetch", "0"),
        ("store.py", "readings", "--per-second", "-1"),
        ("flood.py", "--seconds", "nan"),
        ("compare_prefetch.py", "--count", "1"),
    ],
    ids=" ".join,
)
def test_a_wrong_argument_is_told_in_one_line(arguments: tuple[str, ...]) -> None:
    result = run(*arguments, environ=dict(os.environ))
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert result.err.count("\n") == 1
    assert "must be a" in result.err or "invalid choice" in result.err


def test_what_is_no_reading_goes_to_the_dead_letters_and_the_next_one_is_stored(
    environ: dict[str, str], channel: BlockingChannel, management: Management
) -> None:
    rubbish = [b"\xff", b"[]", b"7", b"null", b'{"number": 1}']
    rubbish += [b'{"number": "1", "at": 2}', b'{"number": 1, "at": true}', b'{"number": 1, "at": 1%s}' % (b"0" * 400)]
    with Script(f"{FOLDER}/store.py", "readings", environ=environ) as store:
        store.expect("Waiting")
        put(channel, "back_pressure.readings", *rubbish, b'{"number": 1, "at": 0}')
        wait_until(lambda: sum("rejected: " in line for line in store.lines) == len(rubbish))
        wait_until(lambda: channel.queue_declare(DEAD, passive=True).method.message_count == len(rubbish))
        wait_until(lambda: management.queue("back_pressure.readings").messages == 0)
        store.interrupt()
        assert store.wait() == 0
        assert store.lines[-1] == " [x] Stored 1 in all"
        assert not any("Traceback" in line for line in store.lines)
    assert [dead for _properties, dead in take(channel, DEAD, len(rubbish))] == rubbish


@pytest.mark.parametrize("in_flight", [1, 50])
def test_a_queue_that_refuses_keeps_what_it_has_confirmed_and_nothing_else(
    in_flight: int, environ: dict[str, str], channel: BlockingChannel
) -> None:
    result = run("measure.py", "refusing", "--in-flight", str(in_flight), environ=environ)
    yes, no = answers(result.out.strip())
    assert (result.code, result.err) == (0, "")
    assert yes + no == 500
    # It notices too late for what is in flight.
    assert LIMIT < yes <= LIMIT + in_flight
    kept = [number(body) for _properties, body in take(channel, "back_pressure.refusing", yes)]
    assert len(set(kept)) == yes
    assert kept == sorted(kept)


def test_a_queue_that_drops_says_yes_to_all_and_keeps_the_newest(
    environ: dict[str, str], channel: BlockingChannel
) -> None:
    result = run("measure.py", "newest", "--in-flight", "100", environ=environ)
    assert answers(result.out.strip()) == (500, 0)
    kept = [number(body) for _properties, body in take(channel, "back_pressure.newest", LIMIT)]
    assert kept == list(range(401, 501))


def test_with_insistence_all_arrive_and_the_producer_is_as_slow_as_the_consumer(
    environ: dict[str, str], channel: BlockingChannel, management: Management, report: Report
) -> None:
    with Script(f"{FOLDER}/measure.py", "refusing", "--insist", environ=environ) as measure:
        # Full before anybody stores, so that it is told no however slow this machine is.
        wait_until(lambda: [True for queue in management.queues() if queue.messages > LIMIT], 90)
        with Script(f"{FOLDER}/store.py", "refusing", "--per-second", "200", environ=environ) as store:
            store.expect("Waiting")
            began = time.monotonic()
            yes, no = answers(measure.expect(r".* readings: .*$", 90)[0])
            took = time.monotonic() - began
            # When the last one is taken, 101 are in the queue and 10 in hand; the others were stored at that speed.
            assert took > (500 - LIMIT - 11) / 200 - 0.5
            store.expect("Stored 500;")
            store.interrupt()
            assert store.wait() == 0
            assert store.lines[-1] == " [x] Stored 500 in all"
    assert yes == 500
    assert no > 0
    assert channel.queue_declare("back_pressure.refusing", passive=True).method.message_count == 0
    report.add("Back pressure", f"500 readings, 200 stored a second: {yes} taken, {no} refused before, {took:.1f} s")


def test_a_queue_that_refuses_by_policy_when_the_policy_is_gone(
    channel: BlockingChannel, management: Management, broker_version: tuple[int, int, int]
) -> None:
    channel.queue_declare("by.policy", durable=True, arguments={"x-queue-type": "quorum"})
    management.set_policy("limit", "^by.policy$", {"max-length": 10, "overflow": "reject-publish"}, apply_to="queues")
    wait_until(lambda: management.queue("by.policy").policy == "limit")
    channel.confirm_delivery()

    def taken() -> bool:
        try:
            channel.basic_publish("", "by.policy", b"", mandatory=True)
        except NackError:
            return False
        return True

    wait_until(lambda: not taken())
    management.delete_policy("limit")
    if broker_version >= (4, 0):
        wait_until(taken)
    else:
        wait_until(lambda: management.queue("by.policy").policy == "")
        assert not any(taken() for _ in range(20))


@pytest.mark.long  # the README's scenario, which every run plays, sees the same
def test_the_publisher_without_confirms_is_slowed_down(environ: dict[str, str]) -> None:
    with (
        Script(f"{FOLDER}/watch.py", environ=environ) as watch,
        Script(f"{FOLDER}/flood.py", "--seconds", "60", environ=environ) as flood,
    ):
        watch.expect("publisher: flow$", 60)
        flood.interrupt()
        assert flood.wait() == 0
        assert re.fullmatch(r" \[x\] Sent \d+ readings in \d+ s", flood.lines[-1])
        watch.expect("publisher: not there$")
        watch.interrupt()
        assert watch.wait() == 0
        assert not any("rror" in line for line in [*watch.lines, *flood.lines])


def test_nobody_to_ask_is_told_in_one_line(configured: Settings) -> None:
    nobody = f"http://127.0.0.1:{Ports.free().management}"
    result = run("watch.py", environ={**environment(configured), "RABBITMQ_MANAGEMENT_URL": nobody})
    assert (result.code, result.out) == (ExitCode.UNAVAILABLE, "")
    assert result.err.startswith("error: ")
    assert nobody in result.err
    assert result.err.count("\n") == 1


ALARMS = {
    "disk": (("set_disk_free_limit", "1000000GB"), ("set_disk_free_limit", "50MB")),
    "memory": (("set_vm_memory_high_watermark", "0.000001"), ("set_vm_memory_high_watermark", "0.6")),
}


@pytest.mark.xdist_group("victim")
@pytest.mark.parametrize("resource", ["disk", pytest.param("memory", marks=pytest.mark.long)])
def test_an_alarm_stops_the_publisher_and_not_the_consumer(resource: str, shared_victim: Victim) -> None:
    """An alarm stops everybody, so it is not the others' broker."""
    alarm(resource, shared_victim)


def alarm(resource: str, broker: Victim) -> None:
    """Raise it while a publisher is at work and a consumer beside it; clear it, and see both to their end."""
    raised, cleared = ALARMS[resource]
    environ = environment(broker.settings)
    with connect("test", broker.settings) as connection:
        channel = connection.channel()
        assert run("measure.py", "readings", "--count", "200", environ=environ).code == 0
        broker.ctl(*raised)
        with (
            Script(f"{FOLDER}/measure.py", "readings", "--count", "300", environ=environ) as measure,
            Script(f"{FOLDER}/store.py", "readings", "--per-second", "1000", environ=environ) as store,
        ):
            measure.expect(rf"the broker is in alarm \(low on {resource}\)")
            # The consumer takes all that there was; its connection publishes nothing.
            store.expect(r"Stored 200; number 200 ")
            # One who does not want to wait for so long says so in one line.
            impatient = run("measure.py", "fresh", environ={**environ, "RABBITMQ_BLOCKED_TIMEOUT": "1"})
            assert (impatient.code, impatient.out) == (ExitCode.NOT_CONFIRMED, "")
            assert "the broker has been in alarm for 1 s" in impatient.err.splitlines()[-1]
            # And nothing has come through meanwhile.
            assert channel.queue_declare("back_pressure.readings", passive=True).method.message_count == 0
            assert measure.code is None
            broker.ctl(*cleared)
            measure.expect("the broker's alarm is over")
            measure.expect(r"300 readings: 300 times yes, 0 times no$")
            assert measure.wait() == 0
            store.expect(r"Stored 500; number 300 ")
            store.interrupt()
            assert store.wait() == 0
            assert store.lines[-1] == " [x] Stored 500 in all"
