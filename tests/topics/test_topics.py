"""topics: which key matches which pattern, asked of RabbitMQ itself; who gets what; exchanges bound to exchanges."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker, UnroutableError

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from extras.management import Management
from tests.support.forked import ROOT
from tests.support.process import Finished, Script, run_script, wait_until
from tests.support.report import Report

README = ROOT / "topics" / "README.md"
SECTION = "Topics: keys and patterns"
AT_MOST_TWO = (4, 3, 5)
"""The first RabbitMQ that refuses a pattern with more than two #."""


def words(text: str) -> tuple[str, ...]:
    """The words of a key or a pattern. The empty one has none; every other has one more than it has dots."""
    return tuple(text.split(".")) if text else ()


@cache
def matches(pattern: tuple[str, ...], key: tuple[str, ...]) -> bool:
    """The reference: what the README says about ``*`` and ``#``."""
    if not pattern:
        return not key
    first, rest = pattern[0], pattern[1:]
    if first == "#":
        return any(matches(rest, key[count:]) for count in range(len(key) + 1))
    return bool(key) and first in ("*", key[0]) and matches(rest, key[1:])


def hashes(pattern: str) -> int:
    return words(pattern).count("#")


# The table in the README


def table() -> tuple[list[str], list[tuple[str, list[bool]]]]:
    """The patterns at the head of the README's table; and each key with what its row says of them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(README.read_text(encoding="utf-8"))
    rows: list[list[Token]] = []
    for opening, token in pairwise(tokens):
        if opening.type == "tr_open":
            rows.append([])
        if opening.type in ("th_open", "td_open"):
            rows[-1].append(token)
    head, *body = rows
    assert head[0].content == "key"
    patterns = [code(cell) for cell in head[1:]]
    return patterns, [(code(row[0]), [cell.content == "✓" for cell in row[1:]]) for row in body]


def code(cell: Token) -> str:
    """What stands in a cell as code; nothing does in that of the empty key, which is written in words."""
    return "".join(child.content for child in cell.children or [] if child.type == "code_inline")


def routed(channel: BlockingChannel, exchange: str, key: str, body: bytes = b"") -> bool:
    """Publish; whether any queue took it."""
    try:
        channel.basic_publish(exchange, key, body, mandatory=True)
    except UnroutableError:
        return False
    return True


def test_rabbitmq_agrees_with_every_cell_of_the_table(
    settings: Settings, broker_version: tuple[int, int, int], report: Report
) -> None:
    patterns, rows = table()
    keys = [key for key, _ in rows]
    assert len(set(patterns)) == len(patterns)
    assert len(set(keys)) == len(keys)
    assert {""} <= set(keys), "the empty key is missing"
    assert any(key.endswith(".") for key in keys), "a dot at the end is missing"
    assert any(hashes(pattern) > 2 for pattern in patterns), "a pattern with more than two # is missing"
    written = {(key, pattern): cell for key, row in rows for pattern, cell in zip(patterns, row, strict=True)}
    assert len(written) >= 40

    seen: dict[tuple[str, str], bool] = {}
    refused: list[str] = []
    with connect("test", settings) as connection:
        for pattern in patterns:
            channel = connection.channel()
            channel.confirm_delivery()
            queue = channel.queue_declare("", exclusive=True).method.queue
            try:
                channel.queue_bind(queue, "amq.topic", pattern)
            except ChannelClosedByBroker:
                refused.append(pattern)
                continue
            seen.update({(key, pattern): routed(channel, "amq.topic", key) for key in keys})
            channel.queue_delete(queue)
    report.add(SECTION, f"{len(seen)} cells of {len(keys)} keys × {len(patterns)} patterns; refused: {refused}")
    limit = 2 if broker_version >= AT_MOST_TWO else 1000
    assert refused == [pattern for pattern in patterns if hashes(pattern) > limit]
    assert {cell: match for cell, match in seen.items() if match is not written[cell]} == {}
    assert {
        cell: match for cell, match in written.items() if match is not matches(words(cell[1]), words(cell[0]))
    } == {}


# Any keys, any patterns

a_word = st.sampled_from(["a", "b", "", "ab", "A", "é", " ", "a*", "##"])
# In a key, * and # are words as any other.
key_words = a_word | st.sampled_from(["*", "#"])
any_text = st.text(st.characters(exclude_categories=["Cs"]) | st.just("."), max_size=60)


@st.composite
def cases(draw: st.DrawFn, most_hashes: int) -> tuple[list[str], list[str]]:
    """Some patterns, and some keys; among the keys, some that are made to match, or nearly so."""
    patterns, keys = [], []
    for _ in range(draw(st.integers(1, 4))):
        parts = draw(st.lists(a_word | st.just("*"), max_size=draw(st.sampled_from([4, 4, 4, 60]))))
        for _ in range(draw(st.integers(0, most_hashes))):
            parts.insert(draw(st.integers(0, len(parts))), "#")
        patterns.append(".".join(parts))
        filled: list[str] = []
        for part in parts:
            if part == "#":
                filled += draw(st.lists(key_words, max_size=4))
            else:
                filled.append(draw(key_words) if part == "*" else part)
        if filled and draw(st.integers(0, 3)) == 0:
            filled[draw(st.integers(0, len(filled) - 1))] = draw(key_words)
        keys.append(".".join(filled))
    patterns += draw(st.lists(any_text.filter(lambda text: hashes(text) <= most_hashes), max_size=1))
    keys += draw(st.lists(st.lists(key_words, max_size=5).map(".".join) | any_text, max_size=3))
    return list(dict.fromkeys(patterns)), keys


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("test", settings) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel


def test_random_keys_and_patterns_against_the_reference(
    channel: BlockingChannel, broker_version: tuple[int, int, int], report: Report
) -> None:
    """All patterns at once on one exchange: a topic exchange keeps them in one tree, and so they may meet there."""
    most_hashes = 2 if broker_version >= AT_MOST_TWO else 4
    compared = matching = 0

    @hypothesis_settings(max_examples=100, deadline=None, database=None)
    @example(([""], ["", ".", "#"]))
    @example((["#.#", "#", "*.#", "#.*"], ["", "a", "a.", ".a", "..", "#", "*"]))
    @example((["a.*", "a.*.b", "a.b"], ["a.*", "a.b", "a.#.b"]))
    @given(cases(most_hashes))
    def compare(case: tuple[list[str], list[str]]) -> None:
        nonlocal compared, matching
        patterns, keys = case
        channel.exchange_declare("topics.random", "topic", durable=True)
        queues = {pattern: channel.queue_declare("", exclusive=True).method.queue for pattern in patterns}
        for pattern, queue in queues.items():
            channel.queue_bind(queue, "topics.random", pattern)
        try:
            for number, key in enumerate(keys):
                expected = any(matches(words(pattern), words(key)) for pattern in patterns)
                assert routed(channel, "topics.random", key, b"%d" % number) is expected, key
            for pattern, queue in queues.items():
                got = list(bodies(channel, queue))
                expected_here = [n for n, key in enumerate(keys) if matches(words(pattern), words(key))]
                assert got == expected_here, pattern
                compared += len(keys)
                matching += len(got)
        finally:
            for queue in queues.values():
                channel.queue_delete(queue)
            channel.exchange_delete("topics.random")

    compare()
    report.add(
        SECTION, f"{compared} random pairs of a key and a pattern, {matching} of which match: as the reference says"
    )
    # Otherwise it has shown little.
    assert matching > 50
    assert compared - matching > 50


def bodies(channel: BlockingChannel, queue: str) -> Iterator[int]:
    """The numbers in a queue, in their order."""
    while body := channel.basic_get(queue, auto_ack=True)[2]:
        yield int(body)


# The scripts

SCRIPTS = sorted(path.name for path in README.parent.glob("[ert]*_*.py"))


def emit(key: str, text: str, environ: dict[str, str]) -> Finished:
    return run_script("topics/emit_log_topic.py", key, text, environ=environ)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("folder", [ROOT, ROOT / "topics"], ids=["root", "own folder"])
def test_help_says_how_it_is_called(script: str, folder: Path, offline: dict[str, str]) -> None:
    path = str((ROOT / "topics" / script).relative_to(folder))
    result = run_script(path, "--help", environ=offline, folder=folder)
    assert f"python topics/{script}" in result.out
    assert (result.code, result.err) == (0, "")


def test_each_receiver_gets_what_its_patterns_match_once(environ: dict[str, str]) -> None:
    sent = ["north.till.info", "south.door.error", "south.till.warning", "till", "", "north."]
    sent += ["north.till.error", "south.till.error"]
    wanted = [("#",), ("*.till.*",), ("*.*.error", "south.#", "south.door.*"), ("north.*", "till")]
    with ExitStack() as stack:
        receivers = [
            stack.enter_context(Script("topics/receive_logs_topic.py", *patterns, environ=environ))
            for patterns in wanted
        ]
        for receiver in receivers:
            receiver.expect("Waiting for")
        for key in sent:
            assert emit(key, "hello", environ).code == 0
        for receiver, patterns in zip(receivers, wanted, strict=True):
            expected = [
                f" [x] {key}: hello" for key in sent if any(matches(words(pattern), words(key)) for pattern in patterns)
            ]
            wait_until(lambda: len(receiver.lines) > len(expected))  # noqa: B023  called here only
            receiver.interrupt()
            assert receiver.wait() == 0
            assert receiver.lines[1:] == expected


def test_a_log_that_no_pattern_matches_is_returned(environ: dict[str, str]) -> None:
    with Script("topics/receive_logs_topic.py", "north.#", environ=environ) as receiver:
        receiver.expect("Waiting")
        done = emit("south.till.error", "hello", environ)
        assert (done.code, done.out) == (ExitCode.UNROUTABLE, "")
        assert done.err == "error: RabbitMQ returned the log: no pattern matches 'south.till.error'\n"


def test_a_key_with_a_word_less_is_missed_by_the_strict_pattern(environ: dict[str, str]) -> None:
    """The loss: exit code 0, because somebody else gets it. The cure: a pattern with #."""
    with (
        Script("topics/receive_logs_topic.py", "#", environ=environ) as screen,
        Script("topics/receive_logs_topic.py", "*.*.error", environ=environ) as strict,
        Script("topics/receive_logs_topic.py", "#.error", environ=environ) as tolerant,
    ):
        receivers = screen, strict, tolerant
        for receiver in receivers:
            receiver.expect("Waiting")
        for key in ("till.error", "north.till.error"):
            assert emit(key, "hello", environ).code == 0
        for receiver in receivers:
            receiver.expect(r"north\.till\.error: hello$")
        assert [len(receiver.lines) - 1 for receiver in receivers] == [2, 1, 2]


@pytest.mark.parametrize(
    ("key", "bytes_"),
    [("x" * 256, 256), ("é" * 128, 256), ("x." * 5000, 10000)],
    ids=["256 letters", "128 letters of two bytes", "10,000 bytes"],
)
@pytest.mark.parametrize("script", ["emit_log_topic.py", "receive_logs_topic.py", "try_pattern.py"])
def test_a_key_that_is_too_long_gives_one_line(script: str, key: str, bytes_: int, offline: dict[str, str]) -> None:
    done = run_script(f"topics/{script}", key, "hello", environ=offline)
    assert (done.code, done.out) == (ExitCode.USAGE, "")
    assert done.err.count("\n") == 1
    assert f"{bytes_} bytes are more than the 255" in done.err
    assert key not in done.err


def test_a_key_that_is_not_utf8_gives_one_line(offline: dict[str, str]) -> None:
    done = run_script("topics/emit_log_topic.py", "till.\udcff", "hello", environ=offline)
    assert (done.code, done.out) == (ExitCode.DATA, "")
    assert done.err.count("\n") == 1
    assert "is not valid UTF-8" in done.err


def test_the_longest_key_arrives(environ: dict[str, str]) -> None:
    key = "north." + "é" * 124 + "x"
    assert len(key.encode()) == 255
    with Script("topics/receive_logs_topic.py", "north.*", key, environ=environ) as receiver:
        receiver.expect("Waiting")
        assert emit(key, "hello", environ).code == 0
        receiver.expect(f"{key}: hello$")


def test_more_than_two_hashes_give_one_line_where_rabbitmq_refuses_them(
    environ: dict[str, str], settings: Settings, broker_version: tuple[int, int, int]
) -> None:
    """The README shows it in a block that is not played, because earlier versions do not refuse it."""
    [(command, error)] = [
        fence.content.splitlines()
        for fence in MarkdownIt("commonmark").parse(README.read_text(encoding="utf-8"))
        if fence.type == "fence" and fence.info == "text"
    ]
    pattern = command.rpartition(" ")[2].strip("'")
    assert hashes(pattern) > 2
    with Script("topics/receive_logs_topic.py", pattern, environ=environ) as receiver:
        if broker_version >= AT_MOST_TWO:
            assert receiver.wait() == ExitCode.PROTOCOL
            assert receiver.lines == [error.replace("localhost:5672", str(settings.addresses[0]))]
        else:
            receiver.expect("Waiting")
            assert emit("north.till.back.error", "hello", environ).code == 0
            receiver.expect("hello$")


def test_trying_a_pattern_leaves_nothing_behind(environ: dict[str, str], management: Management) -> None:
    with Script("topics/receive_logs_topic.py", "#", environ=environ) as receiver:
        receiver.expect("Waiting")
        before = {exchange.name for exchange in management.exchanges()}
        done = run_script("topics/try_pattern.py", "a.*", "a", "a.b", "", environ=environ)
        assert (done.code, done.err) == (0, "")
        assert done.out == " [ ] 'a' does not match\n [x] 'a.b' matches\n [ ] '' does not match\n"
        assert emit("a.b", "mine", environ).code == 0
        receiver.expect(" a.b: mine$")
        assert len(receiver.lines) == 2, "a message of the trial was received"
    wait_until(lambda: {exchange.name for exchange in management.exchanges()} == before)


# How the receivers end, and what they show

RECEIVERS = {"receive_logs_topic.py": ("#",), "receive_alarms.py": ()}
each_receiver = pytest.mark.parametrize(("script", "arguments"), RECEIVERS.items(), ids=RECEIVERS)


@each_receiver
def test_a_body_that_is_no_text_is_shown_and_ends_nobody(
    environ: dict[str, str], channel: BlockingChannel, script: str, arguments: tuple[str, ...]
) -> None:
    with Script(f"topics/{script}", *arguments, environ=environ) as receiver:
        receiver.expect("Waiting")
        for body in (b"\x80", b"", b"text"):
            channel.basic_publish("topics.logs", "till.error", body, mandatory=True)
        receiver.expect(r"text$")
        receiver.terminate()
        assert receiver.wait() == 0
        before = "Alarm from till.error" if script == "receive_alarms.py" else "till.error"
        assert receiver.lines[1:] == [f" [x] {before}: {text}" for text in ("\ufffd", "", "text")]


@each_receiver
def test_a_broken_connection_ends_a_receiver_with_one_line(
    environ: dict[str, str],
    management: Management,
    channel: BlockingChannel,
    script: str,
    arguments: tuple[str, ...],
) -> None:
    """After that the exclusive queue is gone with its bindings; the durable queue of alarms gets its own."""
    with Script(f"topics/{script}", *arguments, environ=environ) as receiver:
        receiver.expect("Waiting")
        found = wait_until(lambda: [c for c in management.connections() if c.label == f"topics/{script}"])
        management.close_connection(found[0].name)
        assert receiver.wait() == ExitCode.UNAVAILABLE
        assert len(receiver.lines) == 2
        assert receiver.lines[1].startswith("error: RabbitMQ at ")
    if script == "receive_alarms.py":
        assert routed(channel, "topics.logs", "till.error", b"1")
        assert list(bodies(channel, "topics.on_duty")) == [1]
    else:
        wait_until(lambda: management.queues() == [])
        assert not routed(channel, "topics.logs", "till.error")


# Exchanges bound to exchanges


def test_alarms_are_the_errors_among_the_logs(environ: dict[str, str], channel: BlockingChannel) -> None:
    keys = [f"north.till.{'error' if number % 3 else 'info'}" for number in range(90)]
    errors = [number for number, key in enumerate(keys) if key.endswith("error")]
    with (
        Script("topics/receive_logs_topic.py", "#", environ=environ) as logs,
        Script("topics/receive_alarms.py", environ=environ) as first,
        Script("topics/receive_alarms.py", environ=environ) as second,
    ):
        receivers = logs, first, second
        for receiver in receivers:
            receiver.expect("Waiting")
        for number, key in enumerate(keys):
            channel.basic_publish("topics.logs", key, b"%d" % number, mandatory=True)
        wait_until(lambda: (len(logs.lines), len(first.lines) + len(second.lines)) == (91, 62))
        for receiver in receivers:
            receiver.interrupt()
            assert receiver.wait() == 0
        assert logs.lines[1:] == [f" [x] {key}: {number}" for number, key in enumerate(keys)]
        seen = [int(line.rpartition(" ")[2]) for line in (*first.lines[1:], *second.lines[1:])]
        # Those on duty share one queue: each alarm goes to exactly one of them.
        assert sorted(seen) == errors
        assert all("Alarm from north.till.error: " in line for line in (*first.lines[1:], *second.lines[1:]))


def test_alarms_wait_while_nobody_is_on_duty(environ: dict[str, str]) -> None:
    """The loss: before the first one is on duty, there is no queue. Afterwards no alarm is missing."""
    assert emit("north.till.error", "0", environ).code == ExitCode.UNROUTABLE
    with Script("topics/receive_alarms.py", environ=environ) as on_duty:
        on_duty.expect("Waiting")
    for number in range(1, 4):
        assert emit("north.till.error", str(number), environ).code == 0
    with Script("topics/receive_alarms.py", environ=environ) as on_duty:
        on_duty.expect(r"error: 3$")
        assert on_duty.lines[1:] == [f" [x] Alarm from north.till.error: {number}" for number in range(1, 4)]


def test_a_queue_behind_two_ways_and_a_circle_gets_one_copy(channel: BlockingChannel) -> None:
    for exchange in ("topics.one", "topics.two"):
        channel.exchange_declare(exchange, "topic", durable=True)
    channel.exchange_bind("topics.two", "topics.one", "#")
    channel.exchange_bind("topics.one", "topics.two", "#")
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "topics.one", "a.*")
    channel.queue_bind(queue, "topics.two", "*.b")
    for number in range(20):
        channel.basic_publish("topics.one" if number % 2 else "topics.two", "a.b", b"%d" % number, mandatory=True)
    assert list(bodies(channel, queue)) == list(range(20))
