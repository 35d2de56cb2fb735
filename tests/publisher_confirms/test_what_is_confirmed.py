"""The README's tables, row by row, put to the broker: what a confirm says, and what a transaction does."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker, NackError, UnroutableError

from common.config import Settings
from common.connection import Connection, connect
from tests.support.process import wait_until

PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)


@pytest.fixture
def connection(settings: Settings) -> Iterator[Connection]:
    with connect("test", settings) as opened:
        yield opened


@pytest.fixture
def channel(connection: Connection) -> BlockingChannel:
    channel = connection.channel()
    channel.confirm_delivery()
    return channel


def queue(channel: BlockingChannel, name: str, **arguments: object) -> str:
    arguments = {"-".join(["x", *key.split("_")]): value for key, value in arguments.items()}
    channel.queue_declare(name, durable=True, arguments=arguments)
    return name


def count(channel: BlockingChannel, name: str) -> int:
    return int(channel.queue_declare(name, passive=True).method.message_count)


def test_a_full_queue_that_refuses(channel: BlockingChannel) -> None:
    full = queue(channel, "full", queue_type="classic", max_length=2, overflow="reject-publish")
    for _ in range(2):
        channel.basic_publish("", full, b"x", PERSISTENT, mandatory=True)
    for _ in range(3):
        with pytest.raises(NackError):
            channel.basic_publish("", full, b"x", PERSISTENT, mandatory=True)
    assert count(channel, full) == 2


def test_a_full_quorum_queue_refuses_somewhat_late(channel: BlockingChannel) -> None:
    full = queue(channel, "full", queue_type="quorum", max_length=2, overflow="reject-publish")
    for _ in range(3):
        channel.basic_publish("", full, b"x", PERSISTENT, mandatory=True)
    with pytest.raises(NackError):
        channel.basic_publish("", full, b"x", PERSISTENT, mandatory=True)
    assert count(channel, full) == 3


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_full_queue_that_drops_its_oldest(channel: BlockingChannel, queue_type: str) -> None:
    full = queue(channel, "full", queue_type=queue_type, max_length=2)
    for number in range(5):
        # None of them raises: each is confirmed.
        channel.basic_publish("", full, b"%d" % number, PERSISTENT, mandatory=True)
    assert [channel.basic_get(full, auto_ack=True)[2] for _ in range(3)] == [b"3", b"4", None]


def test_one_of_two_queues_refuses(channel: BlockingChannel) -> None:
    channel.exchange_declare("both", "fanout", durable=True)
    room = queue(channel, "room", queue_type="quorum")
    full = queue(channel, "full", queue_type="classic", max_length=1, overflow="reject-publish")
    for name in (room, full):
        channel.queue_bind(name, "both")
    channel.basic_publish("both", "", b"x", PERSISTENT, mandatory=True)
    with pytest.raises(NackError):
        channel.basic_publish("both", "", b"x", PERSISTENT, mandatory=True)
    # Nacked, and yet one of them has it, or will have it in a moment.
    wait_until(lambda: count(channel, room) == 2)
    assert count(channel, full) == 1


def test_no_queue(channel: BlockingChannel) -> None:
    channel.basic_publish("", "nowhere", b"x", PERSISTENT)
    with pytest.raises(UnroutableError):
        channel.basic_publish("", "nowhere", b"x", PERSISTENT, mandatory=True)
    # The channel goes on.
    channel.basic_publish("", queue(channel, "somewhere", queue_type="quorum"), b"x", PERSISTENT, mandatory=True)


@pytest.mark.parametrize("queue_type", ["classic", "quorum", "stream"])
def test_until_the_commit_no_queue_has_it(connection: Connection, channel: BlockingChannel, queue_type: str) -> None:
    name = queue(channel, "tx", queue_type=queue_type)
    transaction = connection.channel()
    transaction.tx_select()
    transaction.basic_publish("", name, b"never", PERSISTENT)
    transaction.tx_rollback()
    for number in (b"1", b"2"):
        transaction.basic_publish("", name, number, PERSISTENT)
    if queue_type != "stream":
        assert count(channel, name) == 0
    transaction.tx_commit()
    reader = connection.channel()
    reader.basic_qos(prefetch_count=10)
    arguments = {"x-stream-offset": "first"} if queue_type == "stream" else None
    got = []
    for method, _, body in reader.consume(name, arguments=arguments, inactivity_timeout=30):
        assert method is not None
        reader.basic_ack(method.delivery_tag)
        got.append(body)
        if len(got) == 2:
            break
    assert got == [b"1", b"2"]


def test_a_transaction_over_two_queues_is_done_in_part(connection: Connection, channel: BlockingChannel) -> None:
    room = queue(channel, "room", queue_type="quorum")
    full = queue(channel, "full", queue_type="classic", max_length=1, overflow="reject-publish")
    transaction = connection.channel()
    transaction.tx_select()
    for name in (room, full, full):
        transaction.basic_publish("", name, b"x", PERSISTENT)
    with pytest.raises(ChannelClosedByBroker, match="partial tx completion") as closed:
        transaction.tx_commit()
    assert closed.value.reply_code == 406
    # It failed, and most of it has happened.
    assert (count(channel, room), count(channel, full)) == (1, 1)


def test_a_full_quorum_queue_drops_what_is_committed(connection: Connection, channel: BlockingChannel) -> None:
    full = queue(channel, "full", queue_type="quorum", max_length=10, overflow="reject-publish")
    transaction = connection.channel()
    transaction.tx_select()
    for _ in range(100):
        transaction.basic_publish("", full, b"x", PERSISTENT)
        # It raises for none of them.
        transaction.tx_commit()
    assert 10 <= count(channel, full) < 30


def test_a_transaction_returns_what_no_queue_takes_and_commits_the_rest(
    connection: Connection, channel: BlockingChannel
) -> None:
    name = queue(channel, "tx", queue_type="quorum")
    returned: list[str] = []
    transaction = connection.channel()
    transaction.add_on_return_callback(lambda _channel, method, *_: returned.append(method.routing_key))
    transaction.tx_select()
    for key in (name, "nowhere"):
        transaction.basic_publish("", key, b"x", PERSISTENT, mandatory=True)
    transaction.tx_commit()
    deadline = time.monotonic() + 30
    while not returned and time.monotonic() < deadline:
        connection.process_data_events(time_limit=1)
    assert returned == ["nowhere"]
    assert count(channel, name) == 1


def test_a_channel_has_confirms_or_transactions(channel: BlockingChannel) -> None:
    with pytest.raises(ChannelClosedByBroker, match="cannot switch from confirm to tx mode"):
        channel.tx_select()
