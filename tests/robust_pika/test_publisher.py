"""The Publisher against a real broker: what it says of each message, and what is then in the queue."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from common import messages
from common.config import Address, Settings, Tls
from common.connection import connect
from common.errors import BadMessage, ExitCode, described
from extras.management import Management, NotFound
from robust_pika import (
    Confirmation,
    DeclaringChannel,
    DeliveryError,
    Hooks,
    Nacked,
    NotConfirmed,
    Publisher,
    Refused,
    Returned,
    RobustPikaError,
)
from robust_pika._io.quarantine import INSIDE_ATTEMPTS
from robust_pika.errors import BrokerUnavailable, DeclaredOtherwise, PublisherClosed, VhostNotFound
from tests.support.process import wait_until
from tests.support.proxy import Proxy
from tests.support.tls import Authority, TlsProxy

QUEUE = "publisher.queue"
LIMIT = 60.0
"""Seconds that a test waits for what must happen."""


def declare(channel: DeclaringChannel) -> None:
    channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("look", settings) as connection:
        yield connection.channel()


@pytest.fixture
def proxy(settings: Settings) -> Iterator[Proxy]:
    with Proxy(settings.addresses[0]) as running:
        yield running


def through(proxy: Proxy, settings: Settings, **changes: Any) -> Settings:
    return replace(settings, addresses=(proxy.address,), **changes)


def bodies(channel: BlockingChannel, queue: str = QUEUE) -> list[bytes]:
    """Everything that is in the queue, in its order."""
    found: list[bytes] = []
    channel.basic_qos(prefetch_count=1000)
    # The broker knows how many there are, once it has confirmed them.
    ready = channel.queue_declare(queue, passive=True).method.message_count
    if ready:
        for method, _, body in channel.consume(queue, inactivity_timeout=LIMIT):
            assert method is not None, f"{len(found)} of {ready} messages came"
            found.append(body)
            if len(found) == ready or len(found) % 500 == 0:
                channel.basic_ack(method.delivery_tag, multiple=True)
            if len(found) == ready:
                break
        assert channel.cancel() == 0
    return found


def eventually(true: Callable[[], object]) -> None:
    """Wait until it is true."""
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.02)


def threads(count: int, work: Callable[[int], None]) -> list[threading.Thread]:
    running = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in running:
        thread.start()
    return running


def join(running: list[threading.Thread]) -> None:
    end = time.monotonic() + LIMIT
    for thread in running:
        thread.join(max(0.0, end - time.monotonic()))
        assert not thread.is_alive(), "a thread hangs"


def test_confirmed_messages_are_in_the_queue_once_and_in_order(settings: Settings, channel: BlockingChannel) -> None:
    sent = [b"%d" % number for number in range(5000)]
    with Publisher("test", settings, declare=declare) as publisher:
        confirmations = [publisher.publish("", QUEUE, body) for body in sent]
    assert all(confirmation.done and confirmation.error is None for confirmation in confirmations)
    assert bodies(channel) == sent


def test_without_properties_a_message_is_persistent(settings: Settings, channel: BlockingChannel) -> None:
    with Publisher("test", settings, declare=declare) as publisher:
        publisher.publish("", QUEUE, b"x").wait()
    _, properties, _ = channel.basic_get(QUEUE, auto_ack=True)
    assert properties.delivery_mode == pika.DeliveryMode.Persistent.value


def test_properties_and_body_are_taken_as_they_are_when_publish_is_called(
    settings: Settings, channel: BlockingChannel
) -> None:
    body = bytearray(b"0")
    properties = messages.properties(headers={"number": 0})
    with Publisher("test", settings, declare=declare) as publisher:
        for number in range(50):
            properties.message_id = properties.headers["number"] = str(number)
            body[:] = str(number).encode()
            publisher.publish("", QUEUE, body, properties)
    for number in range(50):
        _, seen, content = channel.basic_get(QUEUE, auto_ack=True)
        assert (seen.message_id, seen.headers["number"], content) == (str(number), str(number), str(number).encode())
        assert (seen.content_type, seen.timestamp) == (properties.content_type, properties.timestamp)


@pytest.mark.parametrize("size", [0, 1, 131_072, 1_000_000])
def test_bodies_of_any_size(settings: Settings, channel: BlockingChannel, size: int) -> None:
    body = os.urandom(size)
    with Publisher("test", settings, declare=declare) as publisher:
        publisher.publish("", QUEUE, body).wait()
    assert bodies(channel) == [body]


def test_a_returned_message_is_named_and_the_others_are_confirmed(settings: Settings, channel: BlockingChannel) -> None:
    with Publisher("test", settings, declare=declare) as publisher:
        good, bad = [], []
        for number in range(500):
            good.append(publisher.publish("", QUEUE, b"%d" % number))
            bad.append(publisher.publish("amq.direct", "nobody", b"%d" % number, messages.properties()))
        for confirmation in good:
            confirmation.wait()
        for confirmation in bad:
            with pytest.raises(Returned, match="312 NO_ROUTE") as failure:
                confirmation.wait()
            assert described(failure.value)[1] is ExitCode.UNROUTABLE
            assert failure.value.message_id == confirmation.message_id
            assert (failure.value.exchange, failure.value.routing_key) == ("amq.direct", "nobody")
    assert len(bodies(channel)) == len(good)


def test_a_message_that_is_not_mandatory_may_go_nowhere(settings: Settings) -> None:
    with Publisher("test", settings) as publisher:
        publisher.publish("", "nobody", b"x", mandatory=False).wait()


def test_a_full_queue_nacks(settings: Settings, channel: BlockingChannel) -> None:
    channel.queue_declare(
        "full", durable=True, arguments={"x-queue-type": "classic", "x-max-length": 10, "x-overflow": "reject-publish"}
    )
    with pytest.raises(DeliveryError) as failure, Publisher("test", settings) as publisher:
        confirmations = [publisher.publish("", "full", b"%d" % number) for number in range(100)]
    failures = failure.value.failures
    assert {type(item) for item in failures} == {Nacked}
    assert described(failure.value)[1] is ExitCode.NOT_CONFIRMED
    accepted = [number for number, confirmation in enumerate(confirmations) if confirmation.error is None]
    # The queue may take a few more than its limit before the channel hears of it.
    assert 10 <= len(accepted) < 100
    assert len(failures) == 100 - len(accepted)
    assert bodies(channel, "full") == [b"%d" % number for number in accepted]


def test_flush_raises_what_nobody_has_seen_and_only_once(settings: Settings) -> None:
    with Publisher("test", settings, declare=declare) as publisher:
        seen = publisher.publish("", "nobody", b"1")
        with pytest.raises(Returned):
            seen.wait()
        publisher.flush()
        for _ in range(2):
            publisher.publish("", "nobody", b"2")
        publisher.publish("", QUEUE, b"3")
        with pytest.raises(DeliveryError, match="2 messages") as failure:
            publisher.flush()
        assert [type(item) for item in failure.value.failures] == [Returned, Returned]
        publisher.flush()


def test_leaving_the_block_raises_a_single_failure_in_its_own_words(settings: Settings) -> None:
    with pytest.raises(DeliveryError) as failure, Publisher("test", settings) as publisher:
        publisher.publish("", "nobody", b"x")
    assert "'nobody'" in str(failure.value)
    assert described(failure.value)[1] is ExitCode.UNROUTABLE
    assert "\n" not in str(failure.value)


def test_an_error_in_the_block_is_not_masked(settings: Settings, logged: list[str]) -> None:
    def failing() -> None:
        with Publisher("test", settings) as publisher:
            publisher.publish("", "nobody", b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert "'nobody'" in "\n".join(logged)


def test_many_threads_share_one_publisher(settings: Settings, channel: BlockingChannel) -> None:
    per_thread = 1000
    with Publisher("test", settings, declare=declare, window=64) as publisher:

        def work(number: int) -> None:
            for index in range(per_thread):
                publisher.publish("", QUEUE, b"%d %d" % (number, index))
            publisher.flush()

        join(threads(8, work))
    arrived = bodies(channel)
    assert Counter(arrived) == Counter(b"%d %d" % (number, index) for number in range(8) for index in range(per_thread))
    for number in range(8):
        own = [body for body in arrived if body.startswith(b"%d " % number)]
        assert own == [b"%d %d" % (number, index) for index in range(per_thread)]


def test_the_window_is_never_exceeded(settings: Settings, proxy: Proxy) -> None:
    with Publisher("test", through(proxy, settings), declare=declare, window=10) as publisher:
        publisher.flush()
        proxy.stall()
        confirmations: list[Confirmation] = []

        def work(_number: int) -> None:
            for _ in range(10):
                confirmations.append(publisher.publish("", QUEUE, b"x"))

        running = threads(4, work)
        eventually(lambda: len(confirmations) == 10)
        # Nothing passes, so nothing may be accepted beyond it, however long we look.
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            assert len(confirmations) == 10
            assert not any(confirmation.done for confirmation in confirmations)
            time.sleep(0.01)
        proxy.resume()
        join(running)
        publisher.flush()
    assert len(confirmations) == 40


def test_large_bodies_are_bounded_by_their_bytes(settings: Settings, proxy: Proxy) -> None:
    settings = through(proxy, settings)
    with Publisher("test", settings, timeout=0.5) as publisher:
        proxy.stall()
        body = bytes(messages.MAX_BODY_BYTES)
        confirmations = [publisher.publish("", "nobody", body, mandatory=False) for _ in range(4)]
        with pytest.raises(NotConfirmed, match="was not sent: 4 before it are not confirmed"):
            publisher.publish("", "nobody", b"x")
        proxy.resume()
        for confirmation in confirmations:
            confirmation.wait(LIMIT)


def test_connections_closed_by_an_operator_lose_nothing(
    settings: Settings, channel: BlockingChannel, management: Management, logged: list[str]
) -> None:
    done = threading.Event()
    confirmed: list[bytes] = []
    with Publisher("victim", settings, declare=declare) as publisher:

        def work(number: int) -> None:
            index = 0
            while not done.is_set():
                batch = []
                for _ in range(50):
                    body = b"%d %d" % (number, index)
                    batch.append((body, publisher.publish("", QUEUE, body)))
                    index += 1
                for body, confirmation in batch:
                    confirmation.wait()
                    confirmed.append(body)
                # The API is late to tell of a connection: meanwhile the broker is left to others.
                done.wait(0.2)

        running = threads(4, work)
        closed = 0
        while closed < 3:
            before = len(confirmed)
            eventually(lambda limit=before: len(confirmed) > limit)
            for connection in management.connections():
                if connection.label == "victim":
                    # It may be one that is gone already: the API is told of it late.
                    with contextlib.suppress(NotFound):
                        management.close_connection(connection.name, "drill")
                        closed += 1
                        break
        before = len(confirmed)
        eventually(lambda: len(confirmed) > before)
        done.set()
        join(running)
    arrived = Counter(bodies(channel))
    assert [body for body in confirmed if not arrived[body]] == []
    assert len(set(confirmed)) == len(confirmed)
    assert set(arrived) == set(confirmed)
    assert "connecting again" in "\n".join(logged)


def test_connections_cut_by_the_network_lose_nothing(
    settings: Settings, channel: BlockingChannel, proxy: Proxy
) -> None:
    # Small, so that threads wait for room in it whenever the connection breaks.
    with Publisher("test", through(proxy, settings), declare=declare, window=20) as publisher:
        confirmations: dict[bytes, Confirmation] = {}

        def work(number: int) -> None:
            for index in range(1000):
                body = b"%d %d" % (number, index)
                confirmations[body] = publisher.publish("", QUEUE, body)

        running = threads(8, work)
        cuts = 0
        for due in range(500, 8000, 500):
            eventually(lambda limit=due: len(confirmations) >= limit)
            cuts += proxy.cut()
        join(running)
    assert cuts >= 10
    assert [confirmation for confirmation in confirmations.values() if confirmation.error] == []
    assert len(confirmations) == 8000
    assert set(bodies(channel)) == set(confirmations)


def test_over_tls(settings: Settings, channel: BlockingChannel, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    with TlsProxy(settings.addresses[0], authority.issue("server", "IP:127.0.0.1")) as tls_proxy:
        secure = replace(settings, addresses=(Address("127.0.0.1", tls_proxy.port),), tls=Tls(authority.ca))
        sent = [b"%d" % number * 1000 for number in range(1000)]
        with Publisher("test", secure, declare=declare) as publisher:
            for body in sent:
                publisher.publish("", QUEUE, body)
    assert bodies(channel) == sent


def test_declare_is_called_again_after_a_reconnect(settings: Settings, proxy: Proxy) -> None:
    names = iter(["first", "second", "third"])
    declared = []

    def temporary(channel: BlockingChannel) -> None:
        declared.append(channel.queue_declare(next(names), durable=True).method.queue)

    with Publisher("test", through(proxy, settings), declare=temporary) as publisher:
        publisher.publish("", "first", b"x").wait()
        with pytest.raises(Returned):
            publisher.publish("", "second", b"x").wait()
        proxy.cut()
        eventually(lambda: len(declared) == 2)
        publisher.publish("", "second", b"x").wait()


def test_the_next_address_is_tried(settings: Settings, channel: BlockingChannel, proxy: Proxy) -> None:
    declare(channel)
    with Proxy(settings.addresses[0]) as other:
        both = replace(settings, addresses=(proxy.address, other.address))
        with Publisher("test", both) as publisher:
            publisher.publish("", QUEUE, b"1").wait()
            assert (proxy.connections, other.connections) == (1, 0)
            proxy.refuse()
            proxy.cut()
            publisher.publish("", QUEUE, b"2").wait()
            assert (proxy.connections, other.connections) == (0, 1)
    assert bodies(channel) == [b"1", b"2"]


def test_who_waits_is_told_when_reconnecting_gives_up(settings: Settings, proxy: Proxy) -> None:
    outcomes: list[object] = []
    publisher = Publisher("test", through(proxy, settings, reconnect_timeout=1.0), declare=declare, window=10)
    proxy.stall()
    held = [publisher.publish("", QUEUE, b"x") for _ in range(10)]

    def work(number: int) -> None:
        try:
            if number % 2:
                held[number].wait()
            else:
                publisher.publish("", QUEUE, b"y")
        except RobustPikaError as failure:
            outcomes.append(type(failure))

    running = threads(8, work)
    proxy.refuse()
    proxy.cut()
    join(running)
    assert Counter(outcomes) == {NotConfirmed: 8}
    assert all(isinstance(confirmation.error, NotConfirmed) for confirmation in held)
    with pytest.raises(NotConfirmed, match="not sent: nothing answers"):
        publisher.publish("", QUEUE, b"z")
    with pytest.raises(DeliveryError, match="6 messages"):
        publisher.close()


def test_a_missing_exchange_fails_exactly_its_messages(settings: Settings, channel: BlockingChannel) -> None:
    with Publisher("test", settings, declare=declare) as publisher:
        good, bad = [], []
        for number in range(300):
            good.append(publisher.publish("", QUEUE, b"%d" % number))
            if number % 50 == 25:
                bad.append(publisher.publish("missing", "key", b"%d" % number, messages.properties()))
        for confirmation in good:
            confirmation.wait()
        for confirmation in bad:
            with pytest.raises(Refused, match="no exchange 'missing'") as failure:
                confirmation.wait()
            assert failure.value.reply_code == 404
            assert described(failure.value)[1] is ExitCode.UNROUTABLE
            assert failure.value.message_id == confirmation.message_id
        publisher.publish("", QUEUE, b"after").wait()
    # Sent again after a closed channel, so perhaps twice, but all of them.
    assert set(bodies(channel)) == {b"%d" % number for number in range(300)} | {b"after"}


def test_what_the_broker_alone_can_refuse_is_refused_for_that_message(settings: Settings) -> None:
    with Publisher("test", settings, declare=declare) as publisher:
        good = [publisher.publish("", QUEUE, b"1")]
        bad = publisher.publish("", QUEUE, b"2", messages.properties(user_id="somebody-else"))
        good.append(publisher.publish("", QUEUE, b"3"))
        with pytest.raises(Refused, match="user_id") as failure:
            bad.wait()
        assert described(failure.value)[1] is ExitCode.DATA
        for confirmation in good:
            confirmation.wait()


def failed_inside() -> bytes:
    """What a node sends that has failed inside, as RabbitMQ words it."""
    close = pika.spec.Connection.Close(541, "INTERNAL_ERROR", 60, 40)
    return bytes(pika.frame.Method(0, close).marshal())


def test_a_node_that_fails_inside_for_a_while_loses_nothing(
    settings: Settings, channel: BlockingChannel, proxy: Proxy
) -> None:
    failures = iter(range(INSIDE_ATTEMPTS - 1))
    proxy.answer(lambda piece: failed_inside() if b"message" in piece and next(failures, None) is not None else None)
    sent = [b"message %d" % number for number in range(100)]
    with Publisher("test", through(proxy, settings), declare=declare) as publisher:
        for body in sent:
            publisher.publish("", QUEUE, body)
    assert next(failures, None) is None
    assert sorted(set(bodies(channel))) == sorted(sent)


def test_a_message_over_which_the_node_fails_each_time_is_refused(
    settings: Settings, channel: BlockingChannel, proxy: Proxy
) -> None:
    met: list[bytes] = []

    def answer(piece: bytes) -> bytes | None:
        if b"poison" not in piece:
            return None
        met.append(piece)
        return failed_inside()

    proxy.answer(answer)
    good = [b"message %d" % number for number in range(10)]
    with Publisher("test", through(proxy, settings), declare=declare) as publisher:
        before = [publisher.publish("", QUEUE, body) for body in good[:5]]
        poison = publisher.publish("", QUEUE, b"poison")
        after = [publisher.publish("", QUEUE, body) for body in good[5:]]
        with pytest.raises(Refused, match="541 INTERNAL_ERROR"):
            poison.wait()
        for confirmation in (*before, *after):
            confirmation.wait()
    # Once with others or not yet suspected, and then alone.
    assert len(met) == 1 + INSIDE_ATTEMPTS
    assert sorted(set(bodies(channel))) == good


def test_what_cannot_be_sent_is_refused_at_once(settings: Settings, channel: BlockingChannel) -> None:
    with Publisher("test", settings, declare=declare) as publisher:
        with pytest.raises(BadMessage, match="16,777,217 bytes"):
            publisher.publish("", QUEUE, bytes(messages.MAX_BODY_BYTES + 1))
        with pytest.raises(BadMessage, match="routing key has 256 bytes"):
            publisher.publish("amq.topic", "k" * 256, b"x")
        with pytest.raises(BadMessage, match="routing key has 300 bytes"):
            publisher.publish("amq.topic", "€" * 100, b"x")
        with pytest.raises(BadMessage, match="name of the exchange"):
            publisher.publish("e" * 256, "key", b"x")
        with pytest.raises(BadMessage, match="not valid UTF-8"):
            publisher.publish("amq.topic", "\udcff", b"x")
        with pytest.raises(BadMessage, match="properties"):
            publisher.publish("", QUEUE, b"x", messages.properties(headers={"what": object()}))
        with pytest.raises(BadMessage, match="properties"):
            publisher.publish("", QUEUE, b"x", messages.properties(expiration=1000))
        with pytest.raises(BadMessage, match="properties have 140,"):
            publisher.publish("", QUEUE, b"x", messages.properties(headers={"large": "x" * 140_000}))
        with pytest.raises(TypeError, match="bytes, not str"):
            publisher.publish("", QUEUE, "text")  # type: ignore[arg-type]
        publisher.publish("amq.topic", "k" * 255, b"x", mandatory=False).wait()
        publisher.publish("", QUEUE, b"good").wait()
    assert bodies(channel) == [b"good"]


def test_close_names_what_is_pending(settings: Settings, proxy: Proxy) -> None:
    publisher = Publisher("test", through(proxy, settings), declare=declare)
    publisher.publish("", QUEUE, b"x").wait()
    proxy.stall()
    properties = [messages.properties() for _ in range(3)]
    confirmations = [publisher.publish("", QUEUE, b"x", each) for each in properties]
    with pytest.raises(NotConfirmed, match=r"not confirmed after 0.1 s"):
        confirmations[0].wait(0.1)
    with pytest.raises(DeliveryError) as failure:
        publisher.flush(0.1)
    assert [item.message_id for item in failure.value.failures] == [each.message_id for each in properties]
    assert not any(confirmation.done for confirmation in confirmations)
    start = time.monotonic()
    with pytest.raises(DeliveryError) as failure:
        publisher.close(0.2)
    assert time.monotonic() - start < 5
    assert [item.message_id for item in failure.value.failures] == [each.message_id for each in properties]
    assert all(isinstance(confirmation.error, NotConfirmed) for confirmation in confirmations)


def test_a_wait_is_bounded_without_a_timeout(settings: Settings, proxy: Proxy) -> None:
    with Publisher("test", through(proxy, settings), declare=declare, timeout=0.3) as publisher:
        publisher.flush()
        proxy.stall()
        confirmation = publisher.publish("", QUEUE, b"x")
        with pytest.raises(NotConfirmed, match=r"not confirmed after 0.3 s"):
            confirmation.wait()
        proxy.resume()
        confirmation.wait(LIMIT)


def test_after_close(settings: Settings) -> None:
    publisher = Publisher("test", settings)
    publisher.close()
    publisher.close()
    publisher.flush()
    with pytest.raises(PublisherClosed, match="closed"):
        publisher.publish("", QUEUE, b"x")
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "publisher test"])


def test_close_releases_a_thread_that_waits_for_room(settings: Settings, proxy: Proxy) -> None:
    publisher = Publisher("test", through(proxy, settings), declare=declare, window=1)
    proxy.stall()
    publisher.publish("", QUEUE, b"1")
    outcome: list[object] = []

    def work(_number: int) -> None:
        try:
            publisher.publish("", QUEUE, b"2")
        except RobustPikaError as failure:
            outcome.append(type(failure))

    running = threads(1, work)
    with pytest.raises(DeliveryError):
        publisher.close(0.2)
    join(running)
    assert outcome == [PublisherClosed]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_told(settings: Settings) -> None:
    with Publisher("test", settings, declare=declare) as publisher:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                publisher.publish("", QUEUE, b"x")
            except PublisherClosed as failure:
                os.write(writing, str(failure).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert b"parent process" in os.read(reading, 1000)
        os.close(reading)
        os.close(writing)
        publisher.publish("", QUEUE, b"x").wait()


def test_the_constructor_says_why_it_cannot_connect(settings: Settings) -> None:
    with pytest.raises(VhostNotFound, match="no-such-vhost"):
        Publisher("test", replace(settings, vhost="no-such-vhost"))
    with pytest.raises(BrokerUnavailable, match="nothing answers"):
        Publisher("test", replace(settings, addresses=(Address("127.0.0.1", 1),), connect_timeout=0.5))


def test_the_constructor_says_what_is_declared_otherwise(settings: Settings, channel: BlockingChannel) -> None:
    channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "classic"})
    with pytest.raises(DeclaredOtherwise, match=QUEUE):
        Publisher("test", settings, declare=declare)


def test_what_declare_raises_reaches_the_caller(settings: Settings) -> None:
    def broken(_channel: BlockingChannel) -> None:
        raise BadMessage("not today")

    with pytest.raises(BadMessage, match="not today"):
        Publisher("test", settings, declare=broken)


class Counts(Hooks):
    """Sums of what the hooks are called with."""

    def __init__(self) -> None:
        self.sums: Counter[str] = Counter()
        self.unconfirmed = -1

    def published(self, count: int) -> None:
        self.sums["published"] += count

    def confirmed(self, count: int) -> None:
        self.sums["confirmed"] += count

    def returned(self, count: int) -> None:
        self.sums["returned"] += count

    def nacked(self, count: int) -> None:
        self.sums["nacked"] += count

    def in_flight(self, count: int) -> None:
        self.unconfirmed = count

    def reconnected(self) -> None:
        self.sums["reconnected"] += 1


def test_hooks_count_what_happens(settings: Settings, management: Management) -> None:
    counts = Counts()

    def declare_full(channel: DeclaringChannel) -> None:
        channel.queue_declare("full", durable=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
        declare(channel)

    with Publisher("hooks", settings, declare=declare_full, hooks=counts) as publisher:
        for _ in range(10):
            publisher.publish("", QUEUE, b"x")
        publisher.publish("", "nobody", b"x")
        publisher.publish("", "full", b"first").wait()
        publisher.publish("", "full", b"second")
        with pytest.raises(DeliveryError):
            publisher.flush()
        assert counts.sums == {"published": 13, "confirmed": 11, "returned": 1, "nacked": 1}
        assert counts.unconfirmed == 0
        wait_until(lambda: cut(management, "hooks"))
        publisher.publish("", QUEUE, b"after")
        publisher.flush()
        assert counts.sums["reconnected"] == 1


def cut(management: Management, label: str) -> bool:
    found = [connection for connection in management.connections() if connection.label == label]
    for connection in found:
        management.close_connection(connection.name, "a test")
    return bool(found)
