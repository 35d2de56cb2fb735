"""streams, where its README does not look: crashes and cuts under load, foreign messages, ports; and the million."""

from __future__ import annotations

import os
import random
import re
import runpy
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError

from common import messages
from common.config import Address, Settings, Tls
from common.connection import connect
from common.errors import ExitCode
from extras.management import Management
from tests.support.process import ROOT, Finished, Script, run_script, wait_until
from tests.support.report import Report
from tests.support.tls import Authority, TlsProxy
from tour.vhost import environment

pytest.importorskip("rstream", reason="needs rstream: pip install -r protocols/streams/requirements.txt")

FOLDER = "protocols/streams"
SALES = "streams.sales"
EVENTS = int(os.environ.get("DRILL_EVENTS", "1000000"))
READER_KILLS = 10
TILL_KILLS = 5
SECTION = "Streams"
SCRIPTS = {
    "record_sales.py": ("north",),
    "read_sales.py": (),
    "check_sales.py": ("north",),
    "record_sales_amqp.py": ("north",),
    "read_sales_amqp.py": (),
    "keep_recent.py": (),
    "find_sales.py": ("north",),
    "record_partitioned.py": ("north",),
    "read_partitioned.py": (),
    "compare.py": (),
}
NEWER = {"find_sales.py": (3, 13), "record_partitioned.py": (3, 11), "read_partitioned.py": (3, 11)}
LIMIT = 120.0


def run(script: str, *arguments: str, environ: dict[str, str], limit: float = LIMIT) -> Finished:
    return run_script(f"{FOLDER}/{script}", *arguments, environ=environ, limit=limit)


def script(name: str, *arguments: str, environ: dict[str, str]) -> Script:
    return Script(f"{FOLDER}/{name}", *arguments, environ=environ)


def record(till: str, count: int, *arguments: str, environ: dict[str, str]) -> None:
    result = run("record_sales.py", till, str(count), *arguments, environ=environ)
    assert (result.code, result.err) == (0, "")


def check(till: str, environ: dict[str, str]) -> str:
    result = run("check_sales.py", till, environ=environ)
    assert (result.code, result.err) == (0, "")
    return result.out


def sales(lines: list[str]) -> list[tuple[str, int]]:
    """The sales that a reader has printed."""
    found = (re.fullmatch(r" \[x\] \d+: sale (\d+) of till (\w+)( \(.*\))?", line) for line in lines)
    return [(match[2], int(match[1])) for match in found if match]


@pytest.fixture
def channel(settings: Settings, environ: dict[str, str]) -> Iterator[BlockingChannel]:
    """A channel, with the stream declared by a script of the example."""
    assert "0 sales" in check("nobody", environ)
    with connect("test", settings) as connection:
        yield connection.channel()


def stream_connections(management: Management, settings: Settings) -> list[str]:
    """The names of the stream protocol's connections that do work in our virtual host."""
    return [
        item["name"]
        for item in management.request("GET", "stream", "connections", settings.vhost) or []
        if item.get("node") and item.get("state", "running") == "running"
    ]


def cut(management: Management, settings: Settings, before: set[str]) -> list[str]:
    """Close these connections; their names. Those cut ``before``, which may be listed still, do not count."""
    names = [name for name in stream_connections(management, settings) if name not in before]
    for name in names:
        management.request("DELETE", "stream", "connections", settings.vhost, name)
    before.update(names)
    return names


def cut_off(reading: Script, management: Management, settings: Settings, before: set[str]) -> None:
    """Cut a reader off, which has two connections: the API may tell of the one that counts later than of the other."""
    lines = len(reading.lines)

    def told() -> bool:
        cut(management, settings, before)
        return any("connecting again" in line for line in reading.lines[lines:])

    wait_until(told, LIMIT)


# What a script says


def test_help_and_their_own_folder(environ: dict[str, str]) -> None:
    for name in SCRIPTS:
        result = run_script(name, "--help", environ=environ, folder=ROOT / FOLDER)
        assert f"python {FOLDER}/{name}" in result.out
        assert (result.code, result.err) == (0, "")
    assert run_script("record_sales.py", "north", environ=environ, folder=ROOT / FOLDER).code == 0
    with Script("read_sales.py", environ=environ, folder=ROOT / FOLDER) as reading:
        reading.expect("sale 1 of till north")
        reading.terminate()
        assert reading.wait() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("record_sales.py", "north", "0"),
        ("record_sales.py", "north", "3", "--first", "-1"),
        ("record_sales.py", "the north"),
        ("record_sales.py", "nörd"),
        ("record_sales.py", ""),
        ("check_sales.py", "n" * 51),
        ("read_sales.py", "--from", "yesterday"),
        ("read_sales.py", "--from", "-1"),
        ("read_sales.py", "--store-every", "0"),
        ("read_sales.py", "--seconds-per-sale", "-1"),
        ("read_sales_amqp.py", "--from", "5 minutes"),
        ("read_partitioned.py", "--name", ""),
        ("keep_recent.py", "--count", "many"),
        ("compare.py", "--count", "1"),
    ],
    ids=" ".join,
)
def test_an_argument_that_makes_no_sense_is_told_in_one_line(arguments: tuple[str, ...]) -> None:
    result = run(*arguments, environ=dict(os.environ))
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert result.err.count("\n") == 1
    assert "must be" in result.err


@pytest.mark.parametrize("name", NEWER)
def test_an_older_broker_is_told_in_one_line(
    name: str, environ: dict[str, str], broker_version: tuple[int, int, int]
) -> None:
    if broker_version >= NEWER[name]:
        pytest.skip("this broker is new enough")
    result = run(name, *SCRIPTS[name], environ=environ)
    assert (result.code, result.out) == (ExitCode.UNSUPPORTED, "")
    needed = ".".join(map(str, NEWER[name]))
    assert re.fullmatch(rf"error: .* needs RabbitMQ {needed} or later; this broker is [\d.]+\n", result.err)


@pytest.mark.parametrize("name", [name for name in SCRIPTS if not name.endswith("_amqp.py")])
def test_without_rstream(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT / FOLDER)
    for module in [module for module in sys.modules if module.partition(".")[0] == "rstream"]:
        monkeypatch.delitem(sys.modules, module)
    # That is how Python is told that there is no such module.
    monkeypatch.setitem(sys.modules, "rstream", None)
    beside = {path.stem for path in (ROOT / FOLDER).glob("*.py")}
    before = {module: sys.modules.pop(module) for module in beside & set(sys.modules)}
    try:
        if name == "record_partitioned.py":
            runpy.run_path(f"{FOLDER}/{name}")  # plain AMQP
            return
        with pytest.raises(SystemExit) as left:
            runpy.run_path(f"{FOLDER}/{name}", run_name="__main__")
    finally:
        for module in beside & set(sys.modules):
            del sys.modules[module]
        sys.modules.update(before)
    assert left.value.code == ExitCode.NOT_INSTALLED
    told = "error: the package 'rstream' is not installed: pip install -r protocols/streams/requirements.txt\n"
    assert capsys.readouterr().err == told


def test_a_port_that_is_closed(settings: Settings) -> None:
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        environ = environment(replace(settings, stream_port=held.getsockname()[1]))
        result = run("record_sales.py", "north", environ=environ)
    assert (result.code, result.out) == (ExitCode.UNAVAILABLE, "")
    assert re.fullmatch(
        r"error: nothing answers at .*:\d+, the stream port .*rabbitmq-plugins enable rabbitmq_stream.*\n", result.err
    )


def test_a_port_at_which_nobody_speaks_the_stream_protocol(settings: Settings) -> None:
    environ = environment(replace(settings, stream_port=settings.addresses[0].port))
    result = run("read_sales.py", environ=environ)
    assert (result.code, result.out) == (ExitCode.PROTOCOL, "")
    assert re.fullmatch(r"error: what answers at .* does not speak the stream protocol; .*PORT.*\n", result.err)


TLS_PROGRAM = """
import sys
sys.path.insert(0, "protocols/streams")
import client, encoding, topology
from common import console
from common.config import Address, Settings, Tls
from rstream import Producer

async def main():
    # Through a proxy, as through a load balancer, the address that RabbitMQ advertises is not the one to use.
    async with client.connected(Producer, "test", Settings.load(), load_balancer_mode=True) as (producer, _link):
        await producer.send_wait(topology.SALES, encoding.encode("north", 1))
        print("sent")

console.run(lambda: client.run(main))
"""


def test_tls(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    assert "0 sales" in check("nobody", environ)
    authority = Authority(tmp_path / "authority")
    target = Address(settings.addresses[0].host, settings.stream_port)
    with TlsProxy(target, authority.issue("server", "IP:127.0.0.1")) as proxy:
        secure = replace(settings, addresses=(Address("127.0.0.1", 1),), stream_port=proxy.port, tls=Tls(authority.ca))
        result = run_script("-c", TLS_PROGRAM, environ=environment(secure), limit=LIMIT)
        assert (result.code, result.out, result.err) == (0, "sent\n", "")
        result = run_script("-c", TLS_PROGRAM, environ=environment(replace(secure, tls=Tls())), limit=LIMIT)
    assert (result.code, result.out) == (ExitCode.PROTOCOL, "")
    told = r"error: the certificate of 127.0.0.1:\d+, the stream port .* cannot be trusted .*RABBITMQ_CA_FILE .+\n"
    assert re.fullmatch(told, result.err)


def test_a_stream_that_is_deleted_under_its_reader(environ: dict[str, str], channel: BlockingChannel) -> None:
    record("north", 1, environ=environ)
    with script("read_sales.py", environ=environ) as reading:
        reading.expect("sale 1")
        channel.queue_delete(SALES)
        assert reading.wait(LIMIT) == ExitCode.DECLARED_OTHERWISE
        assert reading.lines[-1] == "error: the stream does not exist any more: somebody has deleted it"
        assert not any("Traceback" in line for line in reading.lines)


# Deduplication


def test_sales_that_are_sent_again_are_there_once(environ: dict[str, str]) -> None:
    told = [
        run("record_sales.py", "north", *arguments, environ=environ).out.rpartition("; ")[2]
        for arguments in (["1000"], ["1000"], ["700", "--first", "501"], ["5", "--first", "3"])
    ]
    assert told == [f"{new} of them are new\n" for new in (1000, 0, 200, 0)]
    # Each till has numbers of its own.
    record("south", 10, environ=environ)
    assert check("north", environ) == " [x] Till 'north': 1200 sales, 0 missing, 0 more than once, in order\n"
    assert check("south", environ) == " [x] Till 'south': 10 sales, 0 missing, 0 more than once, in order\n"
    # Through AMQP, nobody would notice.
    for _ in range(2):
        assert run("record_sales_amqp.py", "west", "3", environ=environ).code == 0
    with script("read_sales_amqp.py", environ=environ) as reading:
        wait_until(lambda: len(sales(reading.lines)) == 1216)
    assert Counter(sales(reading.lines))["west", 3] == 2


def test_check_sales_finds_what_is_missing_and_what_is_twice(environ: dict[str, str], channel: BlockingChannel) -> None:
    record("north", 3, environ=environ)
    record("north", 3, "--first", "6", environ=environ)
    properties = messages.properties(headers={"till": "north", "number": 2})
    channel.basic_publish("", SALES, b"sale 2 of till north", properties)
    record("north", 1, "--first", "9", environ=environ)
    assert check("north", environ) == " [x] Till 'north': 9 sales, 2 missing, 1 more than once, NOT in order\n"


@pytest.mark.long
def test_a_till_that_is_killed_and_begins_again(environ: dict[str, str], report: Report) -> None:
    count, arrived = 40_000, 0
    for kill in range(TILL_KILLS):
        with script("record_sales.py", "east", str(count), environ=environ) as till:
            till.expect("more to confirm")
            time.sleep(random.uniform(0, 0.2))
            till.kill()
        seen = re.search(r"(\d+) sales, 0 missing, 0 more than once, in order", check("east", environ))
        assert seen, f"after kill {kill + 1}"
        # What was there stays there.
        assert int(seen[1]) >= arrived
        arrived = int(seen[1])
    record("east", count, environ=environ)
    told = check("east", environ)
    assert told == f" [x] Till 'east': {count} sales, 0 missing, 0 more than once, in order\n"
    report.add(SECTION, f"a till killed {TILL_KILLS} times while it sends, begins at its first sale: {told.strip()}")


@pytest.mark.long
def test_a_till_whose_connection_is_cut(
    environ: dict[str, str], settings: Settings, management: Management, report: Report
) -> None:
    count, cuts = 60_000, 2
    gone: set[str] = set()
    with script("record_sales.py", "east", str(count), environ=environ) as till:
        for _ in range(cuts):
            till.expect("more to confirm")
            # Held, so that it is not done before it is cut off.
            till.pause()
            wait_until(lambda: cut(management, settings, gone))
            till.resume()
            till.expect("connecting again")
        assert till.wait(LIMIT) == 0
        assert not any("Traceback" in line for line in till.lines), till.lines
    told = check("east", environ)
    assert told == f" [x] Till 'east': {count} sales, 0 missing, 0 more than once, in order\n"
    report.add(SECTION, f"a till whose connection is cut {cuts} times: {told.strip()}")


# Reading


def test_places(environ: dict[str, str]) -> None:
    record("north", 5, environ=environ)

    def first_seen(place: str, after: str) -> str:
        with script("read_sales.py", "--from", place, environ=environ) as reading:
            reading.expect("Reading")
            record(after, 1, environ=environ)
            reading.expect(f"sale 1 of till {after}")
            return next(line for line in reading.lines if "[x]" in line)

    assert first_seen("first", "a") == " [x] 0: sale 1 of till north"
    assert first_seen("next", "b").endswith("sale 1 of till b")
    assert first_seen("3", "c") == " [x] 3: sale 4 of till north"
    assert first_seen("last", "d").endswith("sale 1 of till c")
    assert first_seen("1D", "e") == " [x] 0: sale 1 of till north"
    # What is not there yet: it begins when it comes, at the next one.
    with script("read_sales.py", "--from", "20", environ=environ) as reading:
        reading.expect("Reading")
        # What comes first is in a chunk of its own.
        record("f", 3, environ=environ)
        record("g", 30, environ=environ)
        assert reading.expect(r"\[x\] (\d+)")[1] == "20"
    with script("read_sales_amqp.py", "--from", "3", environ=environ) as reading:
        assert reading.expect(r"\[x\] .*")[0].startswith("[x] 3: sale 4 of till north")


def test_a_slow_reader_holds_nobody_up(environ: dict[str, str]) -> None:
    record("north", 2000, environ=environ)
    with script("read_sales.py", "--seconds-per-sale", "5", environ=environ) as slow:
        slow.expect("sale 1 of")
        with script("read_sales.py", environ=environ) as fast:
            fast.expect("sale 2000 of till north", LIMIT)
        slow.terminate()
        assert slow.wait() == 0
        assert len(sales(slow.lines)) < 100


def test_a_reader_that_is_stopped_misses_nothing_and_reads_nothing_twice(environ: dict[str, str]) -> None:
    record("north", 500, environ=environ)
    seen: list[tuple[str, int]] = []
    for stop in (50, 200, 500):
        pace = ("--seconds-per-sale", "0.001")
        with script("read_sales.py", "--name", "accounts", *pace, environ=environ) as reading:
            reading.expect(f"sale {stop} of till north", LIMIT)
            reading.interrupt()
            assert reading.wait() == 0
        seen += sales(reading.lines)
    # The one in hand when it is stopped is not done, and is read again.
    twice = [number for number, times in Counter(seen).items() if times > 1]
    assert len(twice) <= 2
    assert sorted(set(seen)) == [("north", number) for number in range(1, 501)]


def test_a_reader_that_is_killed_goes_on_where_it_was(environ: dict[str, str], report: Report) -> None:
    count, store_every = 5000, 10
    record("north", count, environ=environ)
    seen: list[tuple[str, int]] = []
    arguments = ("--name", "accounts", "--store-every", str(store_every), "--seconds-per-sale", "0.0005")
    for kill in range(1, READER_KILLS + 1):
        with script("read_sales.py", *arguments, environ=environ) as reading:
            target = kill * count // (READER_KILLS + 1)
            wait_until(lambda: any(number >= target for _, number in sales(reading.lines)), LIMIT)  # noqa: B023
            reading.kill()
        begun = sales(reading.lines)
        # It has gone on from its place, not from the beginning: the next one after what it had stored.
        assert begun[0][1] <= len(set(seen)) + 1
        assert begun[0][1] > len(set(seen)) - 500 or not seen
        seen += begun
    with script("read_sales.py", *arguments, environ=environ) as reading:
        reading.expect(f"sale {count} of", LIMIT)
    seen += sales(reading.lines)
    missing = count - len(set(seen))
    report.add(
        SECTION,
        f"a reader killed {READER_KILLS} times: {count} sales, {missing} missing, {len(seen) - count} read again",
    )
    assert missing == 0
    assert len(seen) - count < count // 2


def test_a_reader_whose_connection_is_cut(
    environ: dict[str, str], settings: Settings, management: Management, report: Report
) -> None:
    count = 2000
    gone: set[str] = set()
    with script("read_sales.py", "--from", "next", "--seconds-per-sale", "0.001", environ=environ) as reading:
        reading.expect("Reading")
        # Before anything has come: `next` must not become the beginning, or the end.
        record("north", count // 2, environ=environ)
        for _ in range(2):
            before = len(reading.lines)
            cut_off(reading, management, settings, gone)
            wait_until(lambda: any("Reading" in line for line in reading.lines[before:]), LIMIT)  # noqa: B023
        record("north", count, environ=environ)
        reading.expect(f"sale {count} of", LIMIT)
        reading.terminate()
        assert reading.wait() == 0
        seen = sales(reading.lines)
        assert not any("Traceback" in line for line in reading.lines)
    report.add(SECTION, f"a reader whose connection is cut twice: {len(set(seen))} of {count} sales, {len(seen)} read")
    assert sorted(set(seen)) == [("north", number) for number in range(1, count + 1)]
    # The one in hand at each cut.
    assert len(seen) <= count + 2


def test_a_reader_that_is_cut_off_before_anything_has_come(
    environ: dict[str, str], settings: Settings, management: Management, channel: BlockingChannel
) -> None:
    with script("read_sales.py", "--from", "next", environ=environ) as reading:
        reading.expect("Reading")
        cut_off(reading, management, settings, set())
        # In the moment in which nobody reads.
        properties = messages.properties(headers={"till": "north", "number": 1})
        channel.basic_publish("", SALES, b"sale 1 of till north", properties)
        reading.expect("sale 1 of till north", LIMIT)


# The two protocols


def test_what_the_stream_protocol_writes_a_plain_consumer_reads(
    environ: dict[str, str], channel: BlockingChannel
) -> None:
    record("north", 2, environ=environ)
    channel.basic_qos(prefetch_count=10)
    arguments = {"x-stream-offset": "first"}
    got = []
    for method, properties, body in channel.consume(SALES, arguments=arguments, inactivity_timeout=LIMIT):
        assert method is not None, got
        got.append((properties, body))
        channel.basic_ack(method.delivery_tag)
        if len(got) == 2:
            break
    for number, (properties, body) in enumerate(got, 1):
        assert body == b"sale %d of till north" % number
        assert (properties.content_type, properties.message_id) == ("text/plain", f"north-{number}")
        assert properties.headers == {"till": "north", "number": number, "x-stream-offset": number - 1}


def test_strange_messages_are_told_and_passed_over(environ: dict[str, str], channel: BlockingChannel) -> None:
    for properties, body in [
        (BasicProperties(), b"no headers"),
        (BasicProperties(headers={"till": "north", "number": "many"}), b"x"),
        (BasicProperties(headers={"till": 5, "number": 1}), b"x"),
        (messages.properties(headers={"till": "north", "number": 1}), b"\xff\xfe"),
        (BasicProperties(content_type="image/png"), b"\x89PNG"),
    ]:
        channel.basic_publish("", SALES, body, properties)
    record("south", 1, environ=environ)
    assert "1 sales, 0 missing, 0 more than once" in check("south", environ)
    with script("read_sales.py", environ=environ) as reading:
        reading.expect("sale 1 of till south")
        reading.terminate()
        assert reading.wait() == 0
        warned = [line for line in reading.lines if line.startswith(" [!]")]
    assert len(warned) == 5
    assert all("it is not a sale" in line for line in warned)
    with script("read_sales_amqp.py", environ=environ) as reading:
        reading.expect("sale 1 of till south")
        assert sum(line.startswith(" [!]") for line in reading.lines) >= 2


def test_bytes_that_are_no_amqp_disconnect_a_plain_consumer(environ: dict[str, str], settings: Settings) -> None:
    """What the README warns of, as long as RabbitMQ does it."""
    code = (
        "import asyncio, rstream, sys\n"
        "from common.config import Settings\n"
        "async def main(s=Settings.load()):\n"
        "    async with rstream.Producer(s.addresses[0].host, s.stream_port, vhost=s.vhost, username=s.user,\n"
        "                                password=s.password) as producer:\n"
        f"        await producer.send_wait('{SALES}', b'neither fish nor flesh')\n"
        "asyncio.run(main())\n"
    )
    record("north", 1, environ=environ)
    assert run_script("-c", code, environ=environ).code == 0
    record("north", 2, environ=environ)
    with script("read_sales.py", environ=environ) as reading:
        reading.expect("it is not a sale")
        reading.expect("sale 2 of till north")
    with connect("test", settings) as connection:
        own = connection.channel()
        own.basic_qos(prefetch_count=10)
        deliveries = own.consume(SALES, arguments={"x-stream-offset": "first"}, inactivity_timeout=LIMIT)
        with pytest.raises(AMQPError, match="541"):
            list(deliveries)


# Retention, filters, super streams


def test_the_oldest_are_forgotten(environ: dict[str, str]) -> None:
    result = run("keep_recent.py", "--count", "10000", environ=environ)
    assert (result.code, result.err) == (0, "")
    match = re.search(r"the oldest message there is has offset (\d+)", result.out)
    assert match
    # 200 kB are kept, and what fills up a segment of 50 kB; a sale takes about 100 bytes.
    assert 5000 < int(match[1]) < 10_000


def test_a_filter_saves_the_reader_from_what_he_does_not_want(
    environ: dict[str, str], broker_version: tuple[int, int, int]
) -> None:
    if broker_version < (3, 13):
        pytest.skip("filtering a stream needs RabbitMQ 3.13")
    for number in range(10):
        record("north", 100, "--first", str(100 * number + 1), environ=environ)
        record("south", 5, "--first", str(5 * number + 1), environ=environ)
    result = run("find_sales.py", "south", environ=environ)
    match = re.fullmatch(r" \[x\] 50 sales of till 'south'; RabbitMQ sent (\d+) messages for that\n", result.out)
    assert match, result
    # A Bloom filter may let one of another till through now and then.
    assert int(match[1]) < 300


def test_partitions_are_shared_and_taken_over(
    environ: dict[str, str], broker_version: tuple[int, int, int], report: Report
) -> None:
    if broker_version < (3, 11):
        pytest.skip("a super stream needs RabbitMQ 3.11")
    tills, count = ("north", "south", "west", "east", "harbour"), 40
    lines: list[str] = []
    with script("read_partitioned.py", environ=environ) as one:
        for _ in range(3):
            one.expect("Now reading partition")
        with script("read_partitioned.py", environ=environ) as two:
            two.expect("Now reading partition")
            one.expect("Another one reads")
            for till in tills:
                assert run("record_partitioned.py", till, str(count), environ=environ).code == 0
            wait_until(lambda: len(partitioned(one.lines + two.lines)) >= len(tills) * count, LIMIT)
            assert partitioned(one.lines)
            assert partitioned(two.lines)
            one.kill()
            for till in tills:
                assert run("record_partitioned.py", till, str(count), environ=environ).code == 0
            wait_until(
                lambda: min(Counter(partitioned(one.lines + two.lines))[till, count] for till in tills) >= 2, LIMIT
            )
            lines = one.lines + two.lines
    times = Counter(partitioned(lines))
    # Each was recorded twice, before and after the kill; the one whose place was not stored in time comes once more.
    assert all(times[till, number] >= 2 for till in tills for number in range(1, count + 1))
    extra = sum(times.values()) - 2 * len(tills) * count
    report.add(SECTION, f"a reader of a super stream killed: {2 * len(tills) * count} sales, 0 missing, {extra} twice")
    assert extra <= 3


def partitioned(lines: list[str]) -> list[tuple[str, int]]:
    found = (re.fullmatch(r" \[x\] Partition \d: sale (\d+) of till (\w+)", line) for line in lines)
    return [(match[2], int(match[1])) for match in found if match]


# The million


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_million_events(environ: dict[str, str], report: Report) -> None:
    arguments = ("--count", str(EVENTS), "--rounds", "1", "--queue-count", "20000")
    result = run("compare.py", *arguments, environ=environ, limit=500)
    assert (result.code, result.err) == (0, "")
    head, *rows = result.out.splitlines()
    assert f"{EVENTS:,} events each way" in head
    assert "in order, none missing, none twice" in head
    assert len(rows) == 3
    for row in (head, *rows):
        report.add(SECTION, row.removeprefix(" [x] "))
    # Even on a machine that is busy with other things.
    ratios = re.findall(r"\(([\d.]+) and ([\d.]+) times the quorum queue\)", result.out)
    assert len(ratios) == 2
    assert all(float(ratio) > 1 for pair in ratios for ratio in pair)
