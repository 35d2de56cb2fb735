"""consume() against a real broker: outcomes, recovery, stopping; every message is counted."""

from __future__ import annotations

import itertools
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from common import messages
from common.config import Settings
from common.connection import connect
from common.errors import BadMessage
from extras.management import Management
from robust_pika import (
    Answer,
    ConnectionFailure,
    DeclaringChannel,
    Hooks,
    Message,
    OnError,
    Outcome,
    Publisher,
    RobustPikaError,
    StopConsuming,
    consume,
)
from robust_pika.errors import BrokerUnavailable, DeclaredOtherwise, VhostNotFound
from tests.support.proxy import Proxy

QUEUE = "tasks"
DEAD_LETTERS = "tasks.dead_letters"
LIMIT = 30.0
"""Seconds to wait for what must happen; on a free machine all of it happens within one."""

Value = TypeVar("Value")
Handler = Callable[[Message], Outcome | Answer]


def declare(channel: DeclaringChannel) -> str:
    channel.queue_declare(DEAD_LETTERS, durable=True)
    channel.queue_declare(
        QUEUE,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": 3,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": DEAD_LETTERS,
        },
    )
    return QUEUE


def eventually(ask: Callable[[], Value], *, seconds: float = LIMIT) -> Value:
    deadline = time.monotonic() + seconds
    while not (value := ask()):
        assert time.monotonic() < deadline, f"still {value!r} after {seconds} s"
        time.sleep(0.05)
    return value


def fill(settings: Settings, bodies: Sequence[str]) -> None:
    """Put messages on the queue; each has its body as its message id, too."""
    with Publisher("tests", settings, declare=declare) as publisher:
        for body in bodies:
            publisher.publish("", QUEUE, body.encode(), messages.properties(message_id=body))


def depth(settings: Settings, queue: str = QUEUE) -> int:
    """The number of messages that wait, without those that a consumer holds."""
    with connect("tests", settings) as connection:
        return int(connection.channel().queue_declare(queue, passive=True).method.message_count)


def drain(settings: Settings, queue: str, count: int) -> list[str]:
    """Take ``count`` messages, and see that no more are left."""
    with connect("tests", settings) as connection:
        channel = connection.channel()

        def take() -> str | None:
            method, _properties, body = channel.basic_get(queue, auto_ack=True)
            return body.decode() if method else None

        taken = [eventually(take) for _ in range(count)]
        assert take() is None
    return [body for body in taken if body]


class Running:
    """A consumer on a thread of its own."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self.ready: list[str] = []
        self.future: Future[None]

    def end(self, seconds: float = LIMIT) -> None:
        """Stop it, wait for it, and raise what it raised."""
        self.stop.set()
        self.future.result(seconds)

    def fails(self, kind: type[RobustPikaError]) -> None:
        """Wait until it raises ``kind``, which is then no failure of the test any more."""
        with pytest.raises(kind):
            self.future.result(LIMIT)
        self.future = Future()
        self.future.set_result(None)

    def began(self, times: int) -> bool:
        return len(self.ready) >= times


@contextmanager
def consuming(
    settings: Settings, handler: Handler, declaring: Callable[[DeclaringChannel], str] = declare, **options: Any
) -> Iterator[Running]:
    running = Running(threading.Event())
    with ThreadPoolExecutor(1) as pool:
        running.future = pool.submit(
            consume, "tests", settings, declaring, handler, on_ready=running.ready.append, stop=running.stop, **options
        )
        try:
            eventually(lambda: running.ready or running.future.done())
            yield running
            running.end()
        finally:
            running.stop.set()


class Gate:
    """A handler that holds every message until it is opened."""

    def __init__(self) -> None:
        self.began: list[Message] = []
        self.done: list[Message] = []
        self.opened = threading.Event()

    def __call__(self, message: Message) -> Outcome:
        self.began.append(message)
        assert self.opened.wait(LIMIT)
        self.done.append(message)
        return Outcome.ACK


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


# What becomes of messages


def test_every_message_once_and_in_order(settings: Settings) -> None:
    fill(settings, numbers(2000))
    seen: list[str] = []
    threads = set()

    def handler(message: Message) -> Outcome:
        threads.add(threading.current_thread())
        seen.append(message.text())
        return Outcome.ACK

    with consuming(settings, handler):
        eventually(lambda: len(seen) >= 2000)
    assert seen == numbers(2000)
    assert len(threads) == 1
    assert drain(settings, QUEUE, 0) == []


def test_several_threads_work_at_the_same_time_and_every_message_is_handled_once(settings: Settings) -> None:
    fill(settings, numbers(2000))
    seen: list[str] = []
    together = threading.Barrier(4)

    def handler(message: Message) -> Outcome:
        if message.text() in numbers(4):
            together.wait(LIMIT)
        seen.append(message.text())
        return Outcome.ACK

    with consuming(settings, handler, threads=4):
        eventually(lambda: len(seen) >= 2000)
    assert not together.broken
    assert Counter(seen) == Counter(numbers(2000))
    assert drain(settings, QUEUE, 0) == []


def test_a_slow_message_does_not_hold_up_the_acknowledgement_of_others(settings: Settings) -> None:
    fill(settings, ["slow", *numbers(30)])
    seen: list[str] = []
    rest_done = threading.Event()

    def handler(message: Message) -> Outcome:
        if message.text() == "slow":
            assert rest_done.wait(LIMIT)
        seen.append(message.text())
        if len(seen) == 30:
            rest_done.set()
        return Outcome.ACK

    with consuming(settings, handler, threads=2, prefetch=4):
        eventually(lambda: len(seen) == 31)
    assert seen == [*numbers(30), "slow"]
    assert drain(settings, QUEUE, 0) == []


def test_the_acknowledgement_of_others_leaves_out_the_one_in_hand(settings: Settings) -> None:
    fill(settings, ["slow", *numbers(30)])
    slow = Gate()
    seen: list[str] = []

    def handler(message: Message) -> Outcome:
        if message.text() == "slow":
            return slow(message)
        seen.append(message.text())
        return Outcome.ACK

    with Proxy(settings.addresses[0]) as proxy:
        through = replace(settings, addresses=(proxy.address,))
        with consuming(through, handler, threads=2, prefetch=4) as running:
            eventually(lambda: len(seen) == 30)
            eventually(lambda: depth(settings) == 0)
            proxy.refuse()
            proxy.cut()
            running.stop.set()
            slow.opened.set()
    # The acknowledgements of the last ones may have been on their way when the connection broke. Those of the first
    # 27 had come, or the last ones would not have.
    left = drain(settings, QUEUE, eventually(lambda: depth(settings)))
    assert "slow" in left
    assert len(left) <= 4


def test_holds_no_more_than_the_prefetch(settings: Settings) -> None:
    fill(settings, numbers(10))
    gate = Gate()
    with consuming(settings, gate, prefetch=3):
        eventually(lambda: depth(settings) == 7)
        assert len(gate.began) == 1
        gate.opened.set()
        eventually(lambda: len(gate.done) == 10)


@pytest.mark.parametrize("bounds", [{"prefetch": 0}, {"threads": 0}])
def test_no_bound_is_refused(bounds: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        consume("tests", Settings(), declare, lambda _message: Outcome.ACK, **bounds)  # type: ignore[arg-type]


def test_outcomes(settings: Settings, logged: list[str]) -> None:
    """Fast ones and refused ones mixed, so that a multiple acknowledgement could swallow what it must not."""

    def handler(message: Message) -> Outcome:
        seen.append(message.text())
        number = int(message.text())
        if number % 10 == 3:
            return Outcome.REJECT
        if number % 10 == 5:
            raise BadMessage("the body has\ntwo lines")
        if number % 10 == 6:
            raise KeyError(number, "x" * 1000)
        if number % 10 == 7:
            return None  # type: ignore[return-value]
        if number % 10 == 9 and not message.redelivered:
            return Outcome.REQUEUE
        return Outcome.ACK

    seen: list[str] = []
    fill(settings, numbers(100))
    with consuming(settings, handler, on_error=OnError.REJECT):
        eventually(lambda: len(seen) >= 110)
    assert Counter(seen) == Counter(numbers(100) + numbers(100)[9::10])
    rejected = [number for number in numbers(100) if number[-1] in "3567"]
    assert sorted(drain(settings, DEAD_LETTERS, 40)) == sorted(rejected)
    assert drain(settings, QUEUE, 0) == []
    # A handler that returns REJECT knows why; of the others the log has one line each.
    assert sorted(logged) == sorted(
        line
        for number in rejected
        for last, line in (
            ("5", f"message {number} rejected: the body has\ntwo lines"),
            ("6", failed(number, f"KeyError: ({number}, '{'x' * 1000}"[:310])),
            ("7", failed(number, "TypeError: the handler returned None instead of an Outcome or an Answer")),
        )
        if number[-1] == last
    )


def failed(number: str, why: str) -> str:
    return f"the handler failed on message {number} with {why}; the message is rejected"


def test_a_handler_that_fails_is_tried_again_with_a_growing_pause(settings: Settings, logged: list[str]) -> None:
    """By default a bug costs no message; here the queue's delivery limit of 3 ends it."""
    times: list[float] = []

    def handler(_message: Message) -> Outcome:
        times.append(time.monotonic())
        raise ZeroDivisionError("a bug")

    fill(settings, ["1"])
    with consuming(settings, handler):
        assert eventually(lambda: drained(settings)) == ["1"]
    assert len(times) == 4
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert all(pause >= expected for pause, expected in zip(pauses, (0.1, 0.2, 0.4), strict=True)), pauses
    assert [line.rpartition(" in ")[2] for line in logged] == ["0.1 s", "0.2 s", "0.4 s", "0.8 s"]


def drained(settings: Settings) -> list[str]:
    return drain(settings, DEAD_LETTERS, 1) if depth(settings, DEAD_LETTERS) else []


def test_a_bug_does_not_empty_the_queue(settings: Settings) -> None:
    """Hundred messages and a handler that always fails: after a second nearly all are still there."""

    def handler(_message: Message) -> Outcome:
        raise ZeroDivisionError("a bug")

    fill(settings, numbers(100))
    with consuming(settings, handler):
        time.sleep(1.0)  # what is counted is what happens in a given time
    assert depth(settings, DEAD_LETTERS) <= 4
    eventually(lambda: depth(settings) + depth(settings, DEAD_LETTERS) == 100)


def test_a_handler_that_fails_can_stop_the_consumer(settings: Settings) -> None:
    fill(settings, ["1", "2"])

    def handler(_message: Message) -> Outcome:
        raise ZeroDivisionError("a bug")

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(consume, "tests", settings, declare, handler, on_error=OnError.STOP)
        with pytest.raises(ZeroDivisionError, match="a bug"):
            future.result(LIMIT)
    assert sorted(drain(settings, QUEUE, 2)) == ["1", "2"]


def test_the_traceback_of_a_handler_is_logged(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    def handler(_message: Message) -> Outcome:
        return {}["not there"]  # type: ignore[return-value]

    fill(settings, ["1"])
    with consuming(settings, handler, on_error=OnError.REJECT):
        eventually(lambda: depth(settings, DEAD_LETTERS) == 1)
    [record] = [record for record in caplog.records if record.name == "robust_pika"]
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError


class Counts(Hooks):
    """Sums of what the hooks are called with."""

    def __init__(self) -> None:
        self.sums: Counter[str] = Counter()
        self.held = -1

    def delivered(self, count: int) -> None:
        self.sums["delivered"] += count

    def acknowledged(self, count: int) -> None:
        self.sums["acknowledged"] += count

    def rejected(self, count: int) -> None:
        self.sums["rejected"] += count

    def requeued(self, count: int) -> None:
        self.sums["requeued"] += count

    def reconnected(self) -> None:
        self.sums["reconnected"] += 1

    def in_flight(self, count: int) -> None:
        self.held = count


def test_hooks_count_what_happens(settings: Settings, management: Management) -> None:
    def handler(message: Message) -> Outcome:
        number = int(message.text())
        if number == 3 and not message.redelivered:
            return Outcome.REQUEUE
        return Outcome.REJECT if number == 7 else Outcome.ACK

    counts = Counts()
    fill(settings, numbers(10))
    with consuming(settings, handler, hooks=counts) as running:
        eventually(lambda: counts.sums["delivered"] == 11 and counts.held == 0)
        assert counts.sums == {"delivered": 11, "acknowledged": 9, "rejected": 1, "requeued": 1}
        [connection] = eventually(lambda: [found for found in management.connections() if found.label == "tests"])
        management.close_connection(connection.name, "a test")
        eventually(lambda: running.began(2))
    assert counts.sums["reconnected"] == 1


def test_leaving_the_program_in_a_handler_gives_the_message_back(settings: Settings) -> None:
    fill(settings, ["first", "second"])

    def handler(_message: Message) -> Outcome:
        sys.exit(3)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(consume, "tests", settings, declare, handler)
        with pytest.raises(SystemExit, match="3"):
            future.result(LIMIT)
    assert sorted(drain(settings, QUEUE, 2)) == ["first", "second"]


class Unreadable(pika.BasicProperties):
    """What other clients can send: a header with a timestamp in milliseconds. datetime has no such year, so pika
    gives up the connection each time that the message is delivered."""

    def encode(self) -> list[bytes]:
        table = b"\x04when" + b"T" + struct.pack(">Q", 1_700_000_000_000)
        return [struct.pack(">H", pika.BasicProperties.FLAG_HEADERS), struct.pack(">I", len(table)), table]


def test_a_message_that_pika_cannot_read_is_stopped_by_the_delivery_limit(settings: Settings) -> None:
    seen: list[str] = []

    def handler(message: Message) -> Outcome:
        seen.append(message.text())
        return Outcome.ACK

    with consuming(settings, handler):
        with connect("tests", settings) as connection:
            connection.channel().basic_publish("", QUEUE, b"unreadable", Unreadable())
        eventually(lambda: depth(settings, DEAD_LETTERS) == 1)
        fill(settings, ["good"])
        eventually(lambda: seen)
    assert seen == ["good"]
    assert depth(settings) == 0


# Heartbeats


@pytest.mark.parametrize(
    ("stopping", "busy"),
    [pytest.param(False, True, id="busy", marks=pytest.mark.long), pytest.param(True, False, id="stopping")],
)
def test_heartbeats_go_on_while_a_handler_works(
    settings: Settings, stopping: bool, busy: bool, logged: list[str]
) -> None:
    fill(settings, ["long"])
    work = 4.0  # RabbitMQ hangs up after 3 s without a heartbeat
    began = threading.Event()
    seen: list[str] = []

    def handler(message: Message) -> Outcome:
        began.set()
        end = time.monotonic() + work
        while busy and time.monotonic() < end:  # it must not keep the I/O thread from its work either
            pass
        time.sleep(max(0.0, end - time.monotonic()))
        seen.append(message.text())
        return Outcome.ACK

    with consuming(replace(settings, heartbeat=1), handler) as running:
        assert began.wait(LIMIT)
        if stopping:
            running.end()
        eventually(lambda: seen)
    assert seen == ["long"]
    assert len(running.ready) == 1
    assert logged == []
    assert drain(settings, QUEUE, 0) == []


# Recovery


def test_a_connection_closed_by_an_operator_is_replaced(
    settings: Settings, management: Management, logged: list[str]
) -> None:
    fill(settings, numbers(5))
    gate = Gate()
    with consuming(settings, gate, prefetch=3) as running:
        eventually(lambda: gate.began)
        [connection] = eventually(lambda: [found for found in management.connections() if found.label == "tests"])
        management.close_connection(connection.name, "a test")
        eventually(lambda: running.began(2))
        gate.opened.set()
        eventually(lambda: len(gate.done) >= 6)
    # The one in hand was not acknowledged any more, so it came again; no other did.
    assert Counter(message.text() for message in gate.done) == Counter([*numbers(5), gate.began[0].text()])
    assert drain(settings, QUEUE, 0) == []
    [line] = logged
    assert "a test" in line
    assert line.endswith("; connecting again")


@pytest.mark.parametrize("result", ["ack", "reject"])
def test_what_was_in_hand_when_the_connection_broke_is_not_settled_on_the_new_one(
    settings: Settings, result: str, logged: list[str]
) -> None:
    fill(settings, ["one", "two"])
    gate = Gate()

    def handler(message: Message) -> Outcome:
        gate(message)
        if len(gate.done) == 1 and result == "reject":
            raise BadMessage("told only if it is true")
        return Outcome.ACK

    with Proxy(settings.addresses[0]) as proxy:
        through = replace(settings, addresses=(proxy.address,))
        with consuming(through, handler, prefetch=1) as running:
            eventually(lambda: gate.began)
            proxy.cut()
            eventually(lambda: running.began(2))
            # The same delivery tag is outstanding on both channels now.
            gate.opened.set()
            eventually(lambda: len(gate.done) == 3)
        # An acknowledgement too many would have closed the channel: 406, unknown delivery tag.
        assert len(running.ready) == 2
    assert sorted(message.text() for message in gate.done) == ["one", "one", "two"]
    assert drain(settings, QUEUE, 0) == []
    assert drain(settings, DEAD_LETTERS, 0) == []
    assert "told only" not in "\n".join(logged)


def test_a_channel_closed_by_the_broker_is_replaced(settings: Settings, logged: list[str]) -> None:
    seen: list[str] = []

    def handler(message: Message) -> Outcome | Answer:
        seen.append(message.text())
        if len(seen) == 1:
            # RabbitMQ does not take it, and closes the channel.
            return Answer(QUEUE, b"", messages.properties(expiration="soon"))
        return Outcome.ACK

    fill(settings, ["before"])
    with consuming(settings, handler) as running:
        eventually(lambda: running.began(2))
        fill(settings, ["after"])
        eventually(lambda: len(seen) == 3)
    assert seen == ["before", "before", "after"]
    [line] = logged
    assert "invalid expiration 'soon'" in line
    assert depth(settings) == depth(settings, DEAD_LETTERS) == 0


def test_a_deleted_queue_is_declared_again(settings: Settings, logged: list[str]) -> None:
    seen: list[str] = []

    def handler(message: Message) -> Outcome:
        seen.append(message.text())
        return Outcome.ACK

    with consuming(settings, handler) as running:
        with connect("tests", settings) as connection:
            connection.channel().queue_delete(QUEUE)
        eventually(lambda: running.began(2))
        fill(settings, ["after"])
        eventually(lambda: seen)
    assert seen == ["after"]
    [line] = logged
    assert "cancelled the consumer of queue 'tasks'" in line


def exclusive_queue(channel: BlockingChannel) -> str:
    return str(channel.queue_declare("mine", exclusive=True).method.queue)


def exclusive_consumer(channel: BlockingChannel) -> str:
    channel.queue_declare("mine", durable=True)
    channel.basic_consume("mine", print, exclusive=True)
    return "mine"


@pytest.mark.parametrize(
    ("take", "refusal"),
    [
        pytest.param(exclusive_queue, "RESOURCE_LOCKED", id="queue"),
        pytest.param(exclusive_consumer, "exclusive use", id="consumer"),
    ],
)
def test_what_is_exclusive_and_still_held_is_tried_again_after_a_break_only(
    settings: Settings, take: Callable[[DeclaringChannel], str], refusal: str
) -> None:
    seen: list[str] = []
    tries: list[BlockingChannel] = []

    def declaring(channel: DeclaringChannel) -> str:
        tries.append(channel)
        if take is exclusive_queue:
            return exclusive_queue(channel)
        return str(channel.queue_declare("mine", durable=True).method.queue)

    def handler(message: Message) -> Outcome:
        seen.append(message.text())
        return Outcome.ACK

    def taken_by(connection: pika.BlockingConnection) -> bool:
        try:
            take(connection.channel())
        except pika.exceptions.ChannelClosedByBroker:
            return False
        return True

    with Proxy(settings.addresses[0]) as proxy:
        through = replace(settings, addresses=(proxy.address,))
        with consuming(through, handler, declaring, exclusive=take is exclusive_consumer) as running:
            # Somebody holds it when the consumer is back, as its own lost connection does until the broker misses it.
            proxy.refuse()
            proxy.cut()
            with connect("other", settings) as other:
                eventually(lambda: taken_by(other))
                proxy.accept()
                with pytest.raises(ConnectionFailure, match=refusal):
                    consume("first", settings, declaring, handler, exclusive=True)
                before = len(tries)
                eventually(lambda: len(tries) > before + 2)
                assert len(running.ready) == 1
            eventually(lambda: running.began(2))
            with connect("tests", settings) as connection:
                connection.channel().basic_publish("", "mine", b"after")
            eventually(lambda: seen)
    assert seen == ["after"]


def test_a_broker_that_falls_silent_is_missed_by_its_heartbeats(settings: Settings) -> None:
    fill(settings, numbers(3))
    gate = Gate()
    gate.opened.set()
    with Proxy(settings.addresses[0]) as proxy:
        through = replace(settings, addresses=(proxy.address,), heartbeat=1, connect_timeout=1)
        with consuming(through, gate) as running:
            eventually(lambda: len(gate.done) == 3)
            proxy.stall()
            eventually(lambda: proxy.connections == 0 or proxy.connections > 1)
            proxy.resume()
            eventually(lambda: running.began(2))
            fill(settings, ["after"])
            eventually(lambda: len(gate.done) == 4)
    assert gate.done[-1].text() == "after"


def test_the_time_to_come_back_is_bounded(settings: Settings) -> None:
    with Proxy(settings.addresses[0]) as proxy:
        through = replace(settings, addresses=(proxy.address,), reconnect_timeout=0.5)
        with consuming(through, lambda _message: Outcome.ACK) as running:
            proxy.refuse()
            proxy.cut()
            running.fails(BrokerUnavailable)


def test_a_queue_declared_otherwise_is_not_tried_again(settings: Settings) -> None:
    with connect("tests", settings) as connection:
        connection.channel().queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "classic"})
    patient = replace(settings, connect_timeout=600)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(consume, "tests", patient, declare, lambda _message: Outcome.ACK)
        with pytest.raises(DeclaredOtherwise, match="tasks"):
            future.result(LIMIT)


def test_a_missing_virtual_host_is_not_tried_again(settings: Settings) -> None:
    patient = replace(settings, vhost="nowhere", connect_timeout=600)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(consume, "tests", patient, declare, lambda _message: Outcome.ACK)
        with pytest.raises(VhostNotFound, match="nowhere"):
            future.result(LIMIT)


# Stopping


def test_stops_at_once_when_idle(settings: Settings) -> None:
    with consuming(settings, lambda _message: Outcome.ACK) as running:
        began = time.monotonic()
        running.end()
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("threads", [1, 3])
def test_stopping_under_load_loses_no_acknowledgement(settings: Settings, threads: int) -> None:
    fill(settings, numbers(4000))
    seen: list[str] = []
    for stops in range(1, 13):
        stop = threading.Event()

        def handler(message: Message, stop: threading.Event = stop, enough: int = 300 * stops) -> Outcome:
            seen.append(message.text())
            if len(seen) >= enough:
                stop.set()
            if len(seen) % 7 == 0:
                time.sleep(0.0005)  # lets the others in between: many acknowledgements rather than few large ones
            return Outcome.ACK

        if len(seen) < 300 * stops:
            consume("tests", settings, declare, handler, stop=stop, threads=threads)
    assert Counter(seen) + Counter(drain(settings, QUEUE, 4000 - len(seen))) == Counter(numbers(4000))


def test_stops_at_once_while_the_broker_is_away(settings: Settings) -> None:
    with Proxy(settings.addresses[0]) as proxy:
        through = replace(settings, addresses=(proxy.address,))
        with consuming(through, lambda _message: Outcome.ACK) as running:
            proxy.refuse()
            proxy.cut()
            eventually(lambda: not proxy.connections)
            began = time.monotonic()
            running.end()
            assert time.monotonic() - began < 2


def test_a_handler_may_finish_though_its_connection_is_gone_for_good(settings: Settings) -> None:
    fill(settings, ["long"])
    gate = Gate()
    with Proxy(settings.addresses[0]) as proxy:
        through = replace(settings, addresses=(proxy.address,), reconnect_timeout=0.1)
        with consuming(through, gate) as running:
            eventually(lambda: gate.began)
            proxy.refuse()
            proxy.cut()
            with pytest.raises(futures.TimeoutError):
                running.future.result(1)
            gate.opened.set()
            running.fails(BrokerUnavailable)
            assert len(gate.done) == 1
    # It was not acknowledged, so it comes again.
    assert drain(settings, QUEUE, 1) == ["long"]


def test_a_stop_that_came_before_leaves_everything_on_the_queue(settings: Settings) -> None:
    fill(settings, numbers(3))
    stop = threading.Event()
    stop.set()
    consume("tests", settings, declare, Gate(), stop=stop)
    assert drain(settings, QUEUE, 3) == numbers(3)


def test_a_handler_that_does_not_end_is_left_after_the_grace(settings: Settings, logged: list[str]) -> None:
    fill(settings, ["endless"])
    gate = Gate()
    with consuming(settings, gate, grace=0.3) as running:
        eventually(lambda: gate.began)
        running.end()
        assert drain(settings, QUEUE, 1) == ["endless"]
        gate.opened.set()
    [line] = logged
    assert "1 not finished after 0.3 s" in line


def single(channel: BlockingChannel) -> str:
    arguments = {"x-queue-type": "quorum", "x-single-active-consumer": True}
    channel.queue_declare("single", durable=True, arguments=arguments)
    return "single"


@pytest.mark.parametrize("prefetch", [1, 5])
def test_consumers_in_order_hand_over_between_two_messages(settings: Settings, prefetch: int) -> None:
    """Each time the active consumer is stopped, the next one goes on where it has ended: nothing twice, no gap."""
    seen: list[int] = []

    def handler(message: Message) -> Outcome:
        time.sleep(0.001)  # so that more is always waiting when a consumer is stopped
        seen.append(int(message.body))
        return Outcome.ACK

    with Publisher("tests", settings, declare=single) as publisher:
        for number in range(1_000):
            publisher.publish("", "single", b"%d" % number)
    with ExitStack() as stack:

        def start() -> Running:
            running = stack.enter_context(consuming(settings, handler, single, prefetch=prefetch, in_order=True))
            eventually(lambda: running.ready)
            return running

        waiting = deque([start(), start()])
        for stop in range(1, 11):
            eventually(lambda due=60 * stop: len(seen) >= due)
            waiting.popleft().end()
            waiting.append(start())
        eventually(lambda: len(seen) >= 1_000)
    assert seen == list(range(1_000))


def test_in_order_the_grace_is_a_limit_too(settings: Settings, logged: list[str]) -> None:
    fill(settings, ["endless", "next"])
    gate = Gate()
    with consuming(settings, gate, in_order=True, prefetch=1, grace=0.5) as running:
        eventually(lambda: gate.began)
        running.end()
        assert drain(settings, QUEUE, 2) == ["endless", "next"]
        gate.opened.set()
    [line] = logged
    assert "1 not finished after 0.5 s" in line


def test_the_signal_handlers_are_those_from_before_again(settings: Settings) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    during: list[Any] = []
    stop = threading.Event()

    def ready(_queue: str) -> None:
        during.extend(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM))
        stop.set()

    consume("tests", settings, declare, Gate(), on_ready=ready, stop=stop)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert not set(during) & set(before)


PROGRAM = """
import sys
from common import console
from common.config import Settings
from robust_pika import Answer, Outcome, consume
from tests.robust_pika.test_consumer import declare

def handler(message):
    console.say(f"began {message.text()}")
    sys.stdin.readline()
    console.say(f"done {message.text()}")
    return Outcome.ACK

console.run(lambda: consume("program", Settings.load(), declare, handler, prefetch=5))
"""


@pytest.fixture
def program(environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that says when it begins a message, and waits for a line before it ends it."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=environ,
        cwd=Path(__file__).parents[2],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_what_is_in_hand_and_leaves_the_rest(
    settings: Settings, program: subprocess.Popen[str], signum: signal.Signals
) -> None:
    fill(settings, numbers(10))
    assert program.stdin
    assert program.stdout
    assert program.stdout.readline() == "began 0\n"
    eventually(lambda: depth(settings) == 5)  # the others are prefetched
    program.send_signal(signum)
    # Given back before the one in hand is done, for other workers to take.
    eventually(lambda: depth(settings) == 9)
    assert program.poll() is None
    output, errors = program.communicate("\n", timeout=LIMIT)
    assert (output, errors, program.returncode) == ("done 0\n", "", 0)
    assert sorted(drain(settings, QUEUE, 9)) == numbers(10)[1:]


def test_a_second_signal_leaves_at_once(settings: Settings, program: subprocess.Popen[str]) -> None:
    fill(settings, numbers(3))
    assert program.stdout
    assert program.stdout.readline() == "began 0\n"
    program.send_signal(signal.SIGINT)
    eventually(lambda: depth(settings) == 2)
    program.send_signal(signal.SIGINT)
    program.wait(LIMIT)
    assert program.stdout.read() == ""
    assert program.stderr
    assert program.stderr.read() == ""
    assert sorted(drain(settings, QUEUE, 3)) == numbers(3)


def test_a_handler_that_cannot_work_ends_the_consumer_and_gives_the_message_back(settings: Settings) -> None:
    with connect("test", settings) as connection:
        channel = connection.channel()
        channel.queue_declare("cannot", durable=True, arguments={"x-queue-type": "quorum"})
        channel.basic_publish("", "cannot", b"one")

        def handle(_message: Message) -> Outcome:
            raise StopConsuming("the disk is gone")

        with pytest.raises(StopConsuming, match=r"^the disk is gone$"):
            consume("test", settings, lambda _channel: "cannot", handle)
        assert next(channel.consume("cannot", inactivity_timeout=10))[2] == b"one"


# Answers


def answer_to(message: Message) -> Answer:
    return Answer(str(message.properties.reply_to), b"to " + message.body, messages.properties(), mandatory=True)


def test_a_message_is_answered_and_then_acknowledged(settings: Settings) -> None:
    with connect("replies", settings) as connection:
        channel = connection.channel()
        channel.queue_declare("replies", durable=True)
        with Publisher("tests", settings, declare=declare) as publisher:
            for number in numbers(500):
                publisher.publish("", QUEUE, number.encode(), messages.properties(reply_to="replies"))
        with consuming(settings, answer_to, threads=3):
            eventually(lambda: channel.queue_declare("replies", passive=True).method.message_count == 500)
    assert depth(settings) == 0
    assert sorted(drain(settings, "replies", 500)) == sorted(f"to {number}" for number in numbers(500))


def test_an_answer_that_no_queue_takes_is_told(settings: Settings, logged: list[str]) -> None:
    with Publisher("tests", settings, declare=declare) as publisher:
        publisher.publish("", QUEUE, b"1", messages.properties(reply_to="nowhere"))

    with consuming(settings, answer_to) as running:
        eventually(lambda: "nowhere" in "".join(logged))
        assert len(running.ready) == 1
    assert logged == ["the answer for queue 'nowhere' was dropped: there is no such queue any more"]
    assert depth(settings) == depth(settings, DEAD_LETTERS) == 0


@pytest.mark.parametrize(
    ("address", "properties"),
    [
        ("é" * 200, {}),
        ("\udcff", {}),
        ("replies", {"correlation_id": "x" * 300}),
        ("replies", {"headers": {"a": set()}}),
    ],
    ids=["long address", "address not UTF-8", "long id", "headers that AMQP lacks"],
)
def test_an_answer_that_cannot_be_sent_rejects_its_message(
    address: str, properties: dict[str, Any], settings: Settings
) -> None:
    fill(settings, ["bad", "good"])

    def handler(message: Message) -> Outcome | Answer:
        return Answer(address, b"", messages.properties(**properties)) if message.body == b"bad" else Outcome.ACK

    with consuming(settings, handler) as running:
        eventually(lambda: depth(settings, DEAD_LETTERS) == 1)
        assert len(running.ready) == 1
    assert drain(settings, DEAD_LETTERS, 1) == ["bad"]
    assert depth(settings) == 0
