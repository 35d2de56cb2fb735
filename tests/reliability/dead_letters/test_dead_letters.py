"""dead_letters, where its README does not look: strange messages, replays that fail or are killed, many looks."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from extras.management import Management
from tests.support.process import ROOT, Finished, Script, run_script, wait_until
from tests.support.queues import put, take
from tests.support.report import Report

FOLDER = "reliability/dead_letters"
ORDERS = "dead_letters.orders"
DEAD = "dead_letters.orders.dead_letters"
TEMPERATURES = "dead_letters.temperatures"
SCRIPTS = {
    "order.py": (),
    "cook.py": (),
    "report_temperatures.py": ("180",),
    "set_policy.py": ("3",),
    "inspect_dead_letters.py": (),
    "replay_dead_letters.py": (),
    "compare_strategies.py": ("--count", "1"),
}
NACK_DOES_NOT_COUNT = (4, 3)


def run(script: str, *arguments: str, environ: dict[str, str]) -> Finished:
    return run_script(f"{FOLDER}/{script}", *arguments, environ=environ)


@pytest.fixture
def channel(settings: Settings, environ: dict[str, str]) -> Iterator[BlockingChannel]:
    """A channel, with all queues of the example declared by its own scripts."""
    for script in ("inspect_dead_letters.py", "report_temperatures.py", "order.py"):
        assert run(script, *SCRIPTS[script], environ=environ).code == 0
    with connect("test", settings) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for queue in (ORDERS, TEMPERATURES):
            channel.queue_purge(queue)
        yield channel


def depth(channel: BlockingChannel, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def kill_off(channel: BlockingChannel, *bodies: bytes, queue: str = ORDERS, **properties: object) -> None:
    """Publish, reject, and wait until they are among the dead letters."""
    due = depth(channel, DEAD) + len(bodies)
    put(channel, queue, *bodies, properties=BasicProperties(delivery_mode=2, **properties))
    for _ in bodies:
        method, _properties, _body = channel.basic_get(queue)
        channel.basic_reject(method.delivery_tag, requeue=False)
    wait_until(lambda: depth(channel, DEAD) == due)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_says_how_it_is_called(script: str, offline: dict[str, str]) -> None:
    result = run(script, "--help", environ=offline)
    assert f"python {FOLDER}/{script}" in result.out
    assert (result.code, result.err) == (0, "")


def test_all_work_from_their_own_folder(environ: dict[str, str]) -> None:
    folder = ROOT / FOLDER
    for script, arguments in SCRIPTS.items():
        if script != "cook.py":
            result = run_script(script, *arguments, environ=environ, folder=folder)
            assert (result.code, result.err) == (0, ""), script
    with Script("cook.py", environ=environ, folder=folder) as cook:
        cook.expect("Cooked 'pizza'")


@pytest.mark.parametrize(
    "arguments",
    [
        ("order.py", "--within", "-1", "soup"),
        ("order.py", "--within", "soon", "soup"),
        ("order.py", "--within", "86401", "soup"),
        ("report_temperatures.py", "-274"),
        ("report_temperatures.py", "warm"),
        ("set_policy.py", "0"),
        ("inspect_dead_letters.py", "--limit", "0"),
        ("replay_dead_letters.py", "--limit", "none"),
        ("compare_strategies.py", "--count", "0"),
    ],
    ids=" ".join,
)
def test_a_number_out_of_range_is_told_in_one_line(arguments: tuple[str, ...], offline: dict[str, str]) -> None:
    result = run(*arguments, environ=offline)
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert result.err.count("\n") == 1
    assert "must be a" in result.err


@pytest.mark.parametrize("script", ["inspect_dead_letters.py", "replay_dead_letters.py"])
def test_a_queue_that_is_not_there_is_told_in_one_line(script: str, environ: dict[str, str]) -> None:
    result = run(script, "--queue", "nowhere", environ=environ)
    assert (result.code, result.out) == (ExitCode.PROTOCOL, "")
    assert result.err.count("\n") == 1
    assert "'nowhere'" in result.err


def test_the_delivery_limit_counts_rejects_and_a_nack_only_before_4_3(
    channel: BlockingChannel, broker_version: tuple[int, int, int]
) -> None:
    """After the first delivery, three more: the same on each version, for a reject."""

    def deliveries(give_back: object, most: int) -> int:
        put(channel, ORDERS, b"again and again")
        for count in range(most):
            got = channel.basic_get(ORDERS)
            if got[0] is None:
                return count
            give_back(got[0].delivery_tag, requeue=True)  # type: ignore[operator]
            # Back in its queue, or dead.
            wait_until(lambda: depth(channel, ORDERS) + depth(channel, DEAD))
        return most

    assert deliveries(channel.basic_reject, 10) == 4
    channel.queue_purge(DEAD)
    assert deliveries(channel.basic_nack, 10) == (10 if broker_version >= NACK_DOES_NOT_COUNT else 4)


def test_looking_again_and_again_changes_nothing(channel: BlockingChannel, environ: dict[str, str]) -> None:
    """More often than the 20 times after which RabbitMQ 4 would drop them, had this queue no limit of its own."""
    bodies = [b"%d" % number for number in range(5)]
    kill_off(channel, *bodies)
    first = run("inspect_dead_letters.py", environ=environ)
    assert first.code == 0
    for _ in range(22):
        # As a look does, in one process.
        tags = [channel.basic_get(DEAD)[0].delivery_tag for _ in bodies]
        channel.basic_reject(tags[0], requeue=True)
        channel.basic_nack(0, multiple=True, requeue=True)
    assert run("inspect_dead_letters.py", environ=environ).out == first.out
    assert [body for _properties, body in take(channel, DEAD, 5)] == bodies


def test_more_than_are_shown_are_counted(channel: BlockingChannel, environ: dict[str, str]) -> None:
    kill_off(channel, *(b"%d" % number for number in range(10)))
    lines = run("inspect_dead_letters.py", "--limit", "3", environ=environ).out.splitlines()
    assert [line.split()[-1] for line in lines[1:-1]] == ["'0'", "'1'", "'2'"]
    assert lines[-1] == f" [x] 10 dead letters in {DEAD}, the first 3 are shown"


STRANGE = [
    {},
    {"x-death": "soon"},
    {"x-death": []},
    {"x-death": ["soon", 7]},
    {"x-death": [{}]},
    {"x-death": [{"queue": 7, "reason": None, "count": "many", "time": "noon"}]},
]


def test_strange_messages_are_shown_and_stay(channel: BlockingChannel, environ: dict[str, str]) -> None:
    """What a foreign client has put among the dead letters: none breaks the list, none is lost, none is sent away."""
    for headers in STRANGE:
        put(channel, DEAD, b"\xff\x00", properties=BasicProperties(headers=headers))
    put(channel, DEAD, b"\x1b[2J" + b"x" * 10_000, b"")
    shown = run("inspect_dead_letters.py", environ=environ)
    assert (shown.code, shown.err) == (0, "")
    assert len(shown.out.splitlines()) == 1 + len(STRANGE) + 2 + 1
    assert "\x1b" not in shown.out
    assert max(map(len, shown.out.splitlines())) < 200
    replayed = run("replay_dead_letters.py", environ=environ)
    assert "Traceback" not in replayed.err
    assert replayed.out == f" [x] 0 replayed, {len(STRANGE) + 2} left in {DEAD}\n"
    take(channel, DEAD, len(STRANGE) + 2)


def test_a_replayed_message_is_as_it_was(channel: BlockingChannel, environ: dict[str, str]) -> None:
    headers = {"shop": "north", "CC": [TEMPERATURES]}
    put(
        channel,
        ORDERS,
        b"\x00\xff",
        properties=BasicProperties(
            delivery_mode=2,
            headers=headers,
            expiration="60000",
            message_id="me",
            timestamp=7,
            type="dish",
            correlation_id="42",
            reply_to="table",
            app_id="waiter",
            priority=3,
            user_id="guest",
            content_type="application/octet-stream",
        ),
    )
    # It goes to the second queue as well.
    wait_until(lambda: depth(channel, TEMPERATURES) == 1)
    channel.basic_reject(channel.basic_get(ORDERS)[0].delivery_tag, requeue=False)
    wait_until(lambda: depth(channel, DEAD) == 1)
    result = run("replay_dead_letters.py", environ=environ)
    assert (result.code, result.out, result.err) == (0, f" [x] 1 replayed, 0 left in {DEAD}\n", "")
    [(properties, body)] = take(channel, ORDERS, 1)
    assert body == b"\x00\xff"
    own = {name: value for name, value in (properties.headers or {}).items() if name != "x-delivery-count"}
    assert own == {"shop": "north"}
    assert (properties.message_id, properties.timestamp, properties.type) == ("me", 7, "dish")
    assert (properties.correlation_id, properties.reply_to, properties.app_id) == ("42", "table", "waiter")
    assert (properties.priority, properties.delivery_mode) == (3, 2)
    assert properties.content_type == "application/octet-stream"
    assert properties.expiration is None
    # It was not sent there a second time.
    assert depth(channel, TEMPERATURES) == 1


def test_some_are_replayed(channel: BlockingChannel, environ: dict[str, str]) -> None:
    for name in (b"a1", b"a2", b"b1"):
        kill_off(channel, name, message_id=name.decode())
    kill_off(channel, b"c", b"d", b"e", b"f", message_id="other")
    put(channel, ORDERS, b"late", properties=BasicProperties(expiration="1"))
    wait_until(lambda: depth(channel, DEAD) == 8)

    def replay(*arguments: str) -> list[bytes]:
        result = run("replay_dead_letters.py", *arguments, environ=environ)
        assert (result.code, result.err) == (0, "")
        count = int(result.out.removeprefix(" [x] ").split()[0])
        return [body for _properties, body in take(channel, ORDERS, count)]

    assert replay("--reason", "maxlen") == []
    assert replay("--from", TEMPERATURES) == []
    assert replay("--id", "a") == [b"a1", b"a2"]
    assert replay("--reason", "expired") == [b"late"]
    assert replay("--reason", "rejected", "--limit", "2") == [b"b1", b"c"]
    assert replay("--limit", "1") == [b"d"]
    assert replay("--from", ORDERS) == [b"e", b"f"]
    assert replay() == []


def test_what_cannot_be_replayed_stays(
    channel: BlockingChannel, environ: dict[str, str], management: Management
) -> None:
    gone = {"x-queue-type": "quorum", "x-dead-letter-exchange": "dead_letters.dead"}
    channel.queue_declare("gone", durable=True, arguments=gone)
    kill_off(channel, b"homeless", queue="gone", message_id="homeless")
    channel.queue_delete("gone")
    kill_off(channel, *(b"%d" % number for number in range(30)), message_id="many")
    management.set_policy("full", f"^{ORDERS}$", {"max-length": 3}, apply_to="queues")
    wait_until(lambda: management.queue(ORDERS).policy == "full")
    result = run("replay_dead_letters.py", environ=environ)
    assert result.code == ExitCode.UNROUTABLE
    lines = result.err.splitlines()
    assert lines[0] == " [!] homeless stays: queue 'gone' is not there"
    # A quorum queue may take a few more than its limit before it refuses.
    assert set(lines[1:-1]) == {f" [!] many stays: queue '{ORDERS}' did not take it"}
    assert lines[-1].startswith("error: ")
    left = depth(channel, DEAD)
    assert left == len(lines) - 1
    assert depth(channel, ORDERS) + left == 31


def test_a_replay_does_not_chase_what_dies_meanwhile(channel: BlockingChannel, environ: dict[str, str]) -> None:
    kill_off(channel, *[b"unicorn"] * 20)
    with Script(f"{FOLDER}/cook.py", environ=environ) as cook:
        cook.expect("Waiting")
        result = run("replay_dead_letters.py", environ=environ)
        assert result.out.startswith(" [x] 20 replayed")
        wait_until(lambda: depth(channel, DEAD) == 20)


def test_a_replay_killed_again_and_again_loses_nothing(
    channel: BlockingChannel, environ: dict[str, str], report: Report
) -> None:
    total, kills = 400, 5
    kill_off(channel, *(b"%d" % number for number in range(total)))
    for kill in range(kills):
        arrived = depth(channel, ORDERS)
        with Script(f"{FOLDER}/replay_dead_letters.py", environ=environ) as replay:
            due = arrived + random.randrange(1, 30)
            wait_until(lambda: depth(channel, ORDERS) >= due or replay.code is not None, every=0.001)  # noqa: B023
            replay.kill()
            assert replay.wait() < 0, f"it had ended before kill {kill}"
    # What the killed ones held comes back when RabbitMQ sees that they are gone.
    copies: Counter[bytes] = Counter()
    deadline = time.monotonic() + 30
    while sum(copies.values()) < total and time.monotonic() < deadline:
        for queue in (ORDERS, DEAD):
            while (got := channel.basic_get(queue, auto_ack=True))[0]:
                copies[got[2]] += 1
    duplicates = sum(copies.values()) - len(copies)
    report.add(
        "Failure drills",
        f"dead letters: {total} replayed, {kills} kills of the replay, {total - len(copies)} missing, "
        f"{duplicates} duplicates",
    )
    assert len(copies) == total
    # One for each kill at most: that between its confirm and its acknowledgement.
    assert duplicates <= kills


def test_a_finished_replay_leaves_no_duplicate(channel: BlockingChannel, environ: dict[str, str]) -> None:
    for _ in range(3):
        kill_off(channel, *(b"%d" % number for number in range(40)))
        assert run("replay_dead_letters.py", environ=environ).out.startswith(" [x] 40 replayed, 0 left")
        assert depth(channel, DEAD) == 0
        take(channel, ORDERS, 40)


def test_the_trial_leaves_nothing_behind(environ: dict[str, str], management: Management) -> None:
    assert run("compare_strategies.py", "--count", "3", environ=environ).code == 0
    wait_until(lambda: management.queues() == [])
    assert management.policies() == []
