"""A Link by itself, and what is declared on its channel, against a real broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import pytest
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

from common import messages
from common.config import Address, Settings
from common.connection import connect
from extras.management import Management
from robust_pika import Answer, DeclaringChannel
from robust_pika._io.link import Link
from robust_pika.connecting import reach_amqp
from robust_pika.declaring import declaring
from robust_pika.errors import BrokerUnavailable
from tests.support.process import wait_until
from tests.support.queues import take


def linked(settings: Settings) -> Link:
    return reach_amqp("tests.link", settings, Link, deadline=0)


@pytest.fixture
def link(settings: Settings) -> Iterator[Link]:
    link = linked(settings)
    yield link
    link.close()


def test_it_runs_for_as_long_as_it_is_told(link: Link) -> None:
    link.stop()  # it does not run: this is nothing to remember
    began = time.monotonic()
    link.run(0.3)
    assert 0.2 < time.monotonic() - began < 5
    assert link.broken is None


def test_it_can_be_called_and_stopped_from_another_thread(link: Link) -> None:
    called_on: list[threading.Thread] = []

    def call() -> None:
        called_on.append(threading.current_thread())
        link.stop()

    other = threading.Timer(0.2, link.call, [call])
    other.start()
    link.run(30)
    assert called_on == [threading.current_thread()]


def test_what_goes_out_goes_out_in_order_and_whole(link: Link, settings: Settings) -> None:
    queue = link.ask(link.channel.queue_declare, "link", durable=True).method.queue
    # Larger than a frame, than a piece of the Publisher's, and nothing at all.
    bodies = [b"", b"1", b"2" * 131_064, b"3" * 131_065, b"4" * 1_000_000, b"5"]
    for body in bodies:
        link.outgoing.add(Answer(queue, body, messages.properties()))
    while link.unsent or link.ask(link.channel.queue_declare, queue, passive=True).method.message_count < len(bodies):
        link.run(0.05)
    with connect("tests", settings) as connection:
        assert [body for _, body in take(connection.channel(), queue, len(bodies))] == bodies


def test_a_channel_that_is_closed_breaks_it(link: Link) -> None:
    with pytest.raises(ChannelClosedByBroker, match="no queue 'nowhere'"):
        link.ask(link.channel.queue_declare, "nowhere", passive=True)
    assert isinstance(link.broken, ChannelClosedByBroker)
    # From now on it says so at once, whatever it is asked.
    with pytest.raises(ChannelClosedByBroker):
        link.ask(link.channel.queue_declare, "link")
    began = time.monotonic()
    link.run(30)
    assert time.monotonic() - began < 5
    assert link.unsent == 0


def test_a_connection_that_is_closed_breaks_it(link: Link, settings: Settings) -> None:
    with Management(settings) as management:
        # The management API learns of a connection some seconds later. Heartbeats go on meanwhile.
        [found] = wait_until(lambda: link.run(0.1) or management.connections())
        closing = threading.Timer(0.2, management.close_connection, [found.name])
        closing.start()
        link.run(30)
        closing.join()
    assert isinstance(link.broken, ConnectionClosedByBroker)


def test_close_leaves_nothing_and_can_be_done_twice(settings: Settings) -> None:
    link = linked(settings)
    queue = link.ask(link.channel.queue_declare, "", exclusive=True).method.queue
    link.close()
    link.close()
    assert link.broken
    with connect("tests", settings) as connection, pytest.raises(ChannelClosedByBroker, match="no queue"):
        connection.channel().queue_declare(queue, passive=True)


def test_nobody_there_is_told_as_connect_tells_it(settings: Settings) -> None:
    with pytest.raises(BrokerUnavailable, match="nothing answers at localhost:1"):
        linked(replace(settings, addresses=(Address("localhost", 1),)))


def test_deliveries_alone_keep_it_alive(settings: Settings) -> None:
    """While it delivers, RabbitMQ sends no heartbeats; pika sees nothing but those."""
    link = linked(replace(settings, heartbeat=1))
    queue = link.ask(link.channel.queue_declare, "steady", durable=True).method.queue
    taken: list[int] = []
    link.consume(queue, lambda tag, _message: taken.append(tag), auto_ack=True)
    end = time.monotonic() + 13  # pika looks every 6 seconds
    with connect("tests", settings) as connection:
        channel = connection.channel()
        while not link.broken and time.monotonic() < end:
            channel.basic_publish("", queue, b"x")
            link.run(0.05)
    assert link.broken is None
    assert len(taken) > 50
    assert taken == list(range(1, len(taken) + 1))
    link.close()


# What is declared


@contextmanager
def blocking_channel(settings: Settings) -> Iterator[DeclaringChannel]:
    with connect("tests", settings) as connection:
        yield connection.channel()


@contextmanager
def linked_channel(settings: Settings) -> Iterator[DeclaringChannel]:
    link = linked(settings)
    yield declaring(link)
    link.close()


@pytest.mark.parametrize("channel_of", [blocking_channel, linked_channel])
def test_each_kind_of_channel_declares_the_same(
    channel_of: Callable[[Settings], AbstractContextManager[DeclaringChannel]], settings: Settings
) -> None:
    with channel_of(settings) as channel, connect("tests", settings) as connection:
        own = connection.channel()
        channel.exchange_declare("from", "topic", durable=True)
        channel.exchange_declare("to", exchange_type="fanout", arguments={"alternate-exchange": "from"})
        channel.exchange_bind("to", "from", "a.*")
        declared = channel.queue_declare("kept", durable=True, arguments={"x-max-length": 10})
        assert declared.method.queue == "kept"
        temporary = channel.queue_declare("", exclusive=True).method.queue
        assert temporary.startswith("amq.gen-")
        channel.queue_bind("kept", "to")
        channel.queue_bind(temporary, "from", routing_key="b", arguments={"note": 1})
        for key in ("a.1", "b", "a.2"):
            own.basic_publish("from", key, key.encode())
        assert wait_until(lambda: channel.queue_declare("kept", passive=True, durable=True).method.message_count == 2)
        assert channel.queue_declare(temporary, passive=True).method.message_count == 1
        assert channel.queue_purge("kept").method.message_count == 2
        channel.exchange_unbind("to", "from", "a.*")
        channel.queue_unbind(temporary, "from", "b", {"note": 1})
        for key in ("a.1", "b"):
            own.basic_publish("from", key, key.encode())
        assert channel.queue_delete(temporary).method.message_count == 1
        assert channel.queue_delete("kept", if_unused=True, if_empty=True).method.message_count == 0
        channel.exchange_delete("to")
        channel.exchange_delete("from", if_unused=True)
        with pytest.raises(ChannelClosedByBroker, match="no exchange 'from'"):
            channel.exchange_declare("from", passive=True)
