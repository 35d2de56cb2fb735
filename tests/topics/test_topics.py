"""Which key fits which pattern, by RabbitMQ itself; who gets what; and exchanges bound to exchanges."""

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
from common.management import Management
from tests.support.process import Finished, Script, run_script, wait_until
from tests.support.report import Report

README = Path(__file__).resolve().parents[2] / "topics" / "README.md"
SECTION = "Topics: keys and patterns"
AT_MOST_TWO = (4, 3, 5)
"""The first RabbitMQ that refuses a pattern with more than two #."""


def words(text: str) -> tuple[str, ...]:
    """The words of a key or a pattern. The empty one has none; every other has one more than it has dots."""
    return tuple(text.split(".")) if text else ()


@cache
def fits(pattern: tuple[str, ...], key: tuple[str, ...]) -> bool:
    """The reference: what the README says about ``*`` and ``#``, word for word."""
    if not pattern:
        return not key
    first, rest = pattern[0], pattern[1:]
    if first == "#":
        return any(fits(rest, key[count:]) for count in range(len(key) + 1))
    return bool(key) and first in ("*", key[0]) and fits(rest, key[1:])


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


def test_every_cell_of_the_table_is_as_rabbitmq_has_it(
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
    assert {cell: fit for cell, fit in seen.items() if fit is not written[cell]} == {}
    assert {cell: fit for cell, fit in written.items() if fit is not fits(words(cell[1]), words(cell[0]))} == {}


# Any keys, any patterns

a_word = st.sampled_from(["a", "b", "", "ab", "A", "é", " ", "a*", "##"])
# In a key, * and # are words as any other.
key_words = a_word | st.sampled_from(["*", "#"])
any_text = st.text(st.characters(exclude_categories=["Cs"]) | st.just("."), max_size=60)


@st.composite
def cases(draw: st.DrawFn, most_hashes: int) -> tuple[list[str], list[str]]:
    """Some patterns, and some keys; among the keys, some that are made to fit, or nearly so."""
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
    compared = fitting = 0

    @hypothesis_settings(max_examples=100, deadline=None, database=None)
    @example(([""], ["", ".", "#"]))
    @example((["#.#", "#", "*.#", "#.*"], ["", "a", "a.", ".a", "..", "#", "*"]))
    @example((["a.*", "a.*.b", "a.b"], ["a.*", "a.b", "a.#.b"]))
    @given(cases(most_hashes))
    def compare(case: tuple[list[str], list[str]]) -> None:
        nonlocal compared, fitting
        patterns, keys = case
        channel.exchange_declare("topics.random", "topic", durable=True)
        queues = {pattern: channel.queue_declare("", exclusive=True).method.queue for pattern in patterns}
        for pattern, queue in queues.items():
            channel.queue_bind(queue, "topics.random", pattern)
        try:
            for number, key in enumerate(keys):
                expected = any(fits(words(pattern), words(key)) for pattern in patterns)
                assert routed(channel, "topics.random", key, b"%d" % number) is expected, key
            for pattern, queue in queues.items():
                got = list(bodies(channel, queue))
                expected_here = [n for n, key in enumerate(keys) if fits(words(pattern), words(key))]
                assert got == expected_here, pattern
                compared += len(keys)
                fitting += len(got)
        finally:
            for queue in queues.values():
                channel.queue_delete(queue)
            channel.exchange_delete("topics.random")

    compare()
    report.add(
        SECTION, f"{compared} random pairs of a key and a pattern, {fitting} of which fit: as the reference has it"
    )
    # Otherwise it has shown little.
    assert fitting > 50
    assert compared - fitting > 50


def bodies(channel: BlockingChannel, queue: str) -> Iterator[int]:
    """The numbers in a queue, in their order."""
    while (got := channel.basic_get(queue, auto_ack=True))[0]:
        yield int(got[2])


# The scripts


def emit(key: str, text: str, environ: dict[str, str]) -> Finished:
    return run_script("topics/emit_log_topic.py", key, text, environ=environ)


def test_each_receiver_gets_what_its_patterns_fit_once(environ: dict[str, str]) -> None:
    sent = ["north.till.info", "south.door.error", "south.till.warning", "till", "", "north."]
    wanted = [("#",), ("*.till.*",), ("*.*.error", "south.#", "south.door.*"), ("north.*", "till")]
    with ExitStack() as stack:
        receivers = [
            stack.enter_context(Script("topics/receive_logs_topic.py", *patterns, environ=environ))
            for patterns in wanted
        ]
        for receiver in receivers:
            receiver.expect("Waiting for")
        for key in [*sent, "north.till.error", "south.till.error"]:
            assert emit(key, "hello", environ).code == 0
        for receiver, patterns in zip(receivers, wanted, strict=True):
            expected = [
                f" [x] {key}: hello"
                for key in [*sent, "north.till.error", "south.till.error"]
                if any(fits(words(pattern), words(key)) for pattern in patterns)
            ]
            wait_until(lambda: len(receiver.lines) > len(expected))  # noqa: B023  called here only
            receiver.interrupt()
            assert receiver.wait() == 0
            assert receiver.lines[1:] == expected


def test_a_message_that_no_pattern_fits_is_told(environ: dict[str, str]) -> None:
    with Script("topics/receive_logs_topic.py", "north.#", environ=environ) as receiver:
        receiver.expect("Waiting")
        done = emit("south.till.error", "hello", environ)
        assert (done.code, done.out) == (ExitCode.UNROUTABLE, "")
        assert "'south.till.error'" in done.err
        assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("key", "bytes_"),
    [("x" * 256, 256), ("é" * 128, 256), ("x." * 5000, 10000)],
    ids=["256 letters", "128 letters of two bytes", "10,000 bytes"],
)
@pytest.mark.parametrize("script", ["emit_log_topic.py", "receive_logs_topic.py", "try_pattern.py"])
def test_a_key_that_is_too_long_is_told_in_one_line(
    script: str, key: str, bytes_: int, offline: dict[str, str]
) -> None:
    done = run_script(f"topics/{script}", key, "hello", environ=offline)
    assert (done.code, done.out) == (ExitCode.USAGE, "")
    assert done.err.count("\n") == 1
    assert f"{bytes_} bytes are more than the 255" in done.err
    assert key not in done.err


def test_a_key_that_is_not_utf8_is_told_in_one_line(offline: dict[str, str]) -> None:
    done = run_script("topics/emit_log_topic.py", "till.\udcff", "hello", environ=offline)
    assert (done.code, done.out) == (ExitCode.USAGE, "")
    assert "not UTF-8" in done.err


def test_the_longest_key_arrives(environ: dict[str, str]) -> None:
    key = "north." + "é" * 124 + "x"
    assert len(key.encode()) == 255
    with Script("topics/receive_logs_topic.py", "north.*", key, environ=environ) as receiver:
        receiver.expect("Waiting")
        assert emit(key, "hello", environ).code == 0
        receiver.expect(f"{key}: hello$")


def test_more_than_two_hashes_are_told_where_rabbitmq_refuses_them(
    environ: dict[str, str], settings: Settings, broker_version: tuple[int, int, int]
) -> None:
    command, error = next(
        fence.content.splitlines()
        for fence in MarkdownIt("commonmark").parse(README.read_text(encoding="utf-8"))
        if fence.type == "fence" and fence.info == "text"
    )
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


def test_patterns_come_back_after_a_broken_connection(environ: dict[str, str], management: Management) -> None:
    with Script("topics/receive_logs_topic.py", "*.till.*", "#.error", environ=environ) as receiver:
        receiver.expect("Waiting")
        found = wait_until(lambda: [c for c in management.connections() if c.label == "topics/receive_logs_topic.py"])
        management.close_connection(found[0].name)
        receiver.expect("connecting again")
        receiver.expect("Waiting")
        for key in ("north.till.info", "error"):
            assert emit(key, "back", environ).code == 0
            receiver.expect(f"{key}: back$")


def test_trying_a_pattern_leaves_nothing_behind(environ: dict[str, str], management: Management) -> None:
    with Script("topics/receive_logs_topic.py", "#", environ=environ) as receiver:
        receiver.expect("Waiting")
        before = {exchange.name for exchange in management.exchanges()}
        done = run_script("topics/try_pattern.py", "a.*", "a", "a.b", "", environ=environ)
        assert (done.code, done.err) == (0, "")
        assert done.out == " [ ] 'a' does not fit\n [x] 'a.b' fits\n [ ] '' does not fit\n"
        assert emit("a.b", "mine", environ).code == 0
        receiver.expect(" a.b: mine$")
        assert len(receiver.lines) == 2, "somebody else's trial was received"
    wait_until(lambda: {exchange.name for exchange in management.exchanges()} == before)


# Exchanges bound to exchanges


def test_alarms_are_the_errors_among_the_logs(environ: dict[str, str], settings: Settings) -> None:
    with (
        Script("topics/receive_logs_topic.py", "#", environ=environ) as logs,
        Script("topics/receive_alarms.py", environ=environ) as first,
        Script("topics/receive_alarms.py", environ=environ) as second,
    ):
        for receiver in (logs, first, second):
            receiver.expect("Waiting")
        keys = [f"north.till.{'error' if number % 3 else 'info'}" for number in range(90)]
        with connect("test", settings) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for number, key in enumerate(keys):
                channel.basic_publish("topics.logs", key, b"%d" % number, mandatory=True)
        wait_until(lambda: (len(logs.lines), len(first.lines), len(second.lines)) == (91, 61, 61))
        alarms = [f" [x] Alarm from {key}: {number}" for number, key in enumerate(keys) if key.endswith("error")]
        for receiver, lines in ((first, alarms), (second, alarms), (logs, None)):
            receiver.interrupt()
            assert receiver.wait() == 0
            assert receiver.lines[1:] == (lines or [f" [x] {key}: {number}" for number, key in enumerate(keys)])
    # The exchanges are still bound, but there is no queue behind them any more.
    assert emit("north.till.error", "hello", environ).code == ExitCode.UNROUTABLE


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
