"""The client for remote procedure calls: many in flight, connections that break, replies that nobody waits for."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel

from common.config import Settings
from common.connection import connect
from extras.management import Management
from robust_pika import ConnectionFailure, RpcClient
from robust_pika.errors import CallRefused, NoReply
from tests.support.process import Script, wait_until
from tests.support.proxy import Proxy
from tests.support.queues import take

QUEUE = "rpc.requests"
SERVER = "rpc/rpc_server.py"
LIMIT = 30.0


def fibonacci(number: int) -> int:
    last, this = 0, 1
    for _ in range(number):
        last, this = this, last + this
    return last


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("a foreign client", settings) as connection:
        yield connection.channel()


@pytest.fixture
def server(environ: dict[str, str]) -> Iterator[Script]:
    with Script(SERVER, environ=environ) as running:
        running.expect(r"waits for requests")
        yield running


def test_replies_that_belong_to_no_call_are_dropped_and_told(
    settings: Settings, channel: BlockingChannel, logged: list[str]
) -> None:
    """A server of bad manners: no id, an unknown id, then the reply, then the reply once more."""
    queue = channel.queue_declare("", exclusive=True).method.queue
    with RpcClient("test", settings) as asking:
        call = asking.send(queue, b"7", deadline=LIMIT)
        [(request, _)] = take(channel, queue, 1)
        for identity in (None, "99", call.id, call.id):
            answer = BasicProperties(correlation_id=identity)
            channel.basic_publish("", str(request.reply_to), f"to {identity}".encode(), answer)
        assert asking.wait(call).body == f"to {call.id}".encode()
        following = asking.send(queue, b"8", deadline=LIMIT)
        [(request, _)] = take(channel, queue, 1)
        channel.basic_publish("", str(request.reply_to), b"eight", BasicProperties(correlation_id=following.id))
        assert asking.wait(following).body == b"eight"
        assert asking.dropped == 3
    assert logged == [
        "a reply without id was dropped: no call waits for it",
        "a reply to call 99 was dropped: no call waits for it",
        "a reply to call 1 was dropped: no call waits for it",
    ]


def test_the_request_expires_with_its_call(settings: Settings, channel: BlockingChannel) -> None:
    queue = channel.queue_declare("", exclusive=True).method.queue
    with RpcClient("test", settings) as asking:
        call = asking.send(queue, b"7", deadline=1.0)
        [(request, _)] = take(channel, queue, 1)
        assert 900 <= int(str(request.expiration)) <= 1000
        with pytest.raises(NoReply, match=r"no reply within 1 s"):
            asking.wait(call)
        gone = asking.send(queue, b"8", deadline=0.3)
        with pytest.raises(NoReply):
            asking.wait(gone)
    # RabbitMQ counts it from when it got it.
    wait_until(lambda: channel.queue_declare(queue, passive=True).method.message_count == 0)


def test_a_request_that_is_held_back_goes_with_the_next(settings: Settings, channel: BlockingChannel) -> None:
    queue = channel.queue_declare("", exclusive=True).method.queue

    def reply(count: int) -> None:
        for request, body in take(channel, queue, count):
            answer = BasicProperties(correlation_id=request.correlation_id)
            channel.basic_publish("", str(request.reply_to), body * 2, answer)

    with RpcClient("test", settings) as asking:
        held = [asking.send(queue, b"%d" % number, deadline=LIMIT, hold=True) for number in range(3)]
        # On another connection, and so not behind them: they have had their time.
        time.sleep(0.3)
        assert channel.queue_declare(queue, passive=True).method.message_count == 0
        following = asking.send(queue, b"3", deadline=LIMIT)
        reply(4)
        assert [asking.wait(call).body for call in (*held, following)] == [b"00", b"11", b"22", b"33"]
        last = asking.send(queue, b"4", deadline=LIMIT, hold=True)
        thread = threading.Thread(target=reply, args=(1,))
        thread.start()
        assert asking.wait(last).body == b"44"
        thread.join()


def test_many_large_requests_go_out_without_anybody_waiting(settings: Settings, channel: BlockingChannel) -> None:
    """More than the socket takes at once."""
    queue = channel.queue_declare("", exclusive=True).method.queue
    with RpcClient("test", settings) as asking:
        for number in range(30):
            asking.send(queue, b"%d" % (number % 10) * 1_000_000, deadline=LIMIT)
        assert [len(body) for _, body in take(channel, queue, 30)] == [1_000_000] * 30


def test_calls_are_asked_again_when_the_connection_breaks(
    settings: Settings, server: Script, logged: list[str]
) -> None:
    with (
        Proxy(settings.addresses[0]) as proxy,
        RpcClient("test", replace(settings, addresses=(proxy.address,))) as asking,
    ):
        for _ in range(3):
            calls = {number: asking.send(QUEUE, b"%d" % number, deadline=LIMIT) for number in range(20)}
            proxy.cut()
            for number, call in calls.items():
                assert asking.wait(call).text() == str(fibonacci(number))
    assert len(logged) == 3
    assert all(re.fullmatch(r".+; connected again, calls asked again: \d+", line) for line in logged)
    assert server.code is None


def test_calls_fail_in_one_line_when_the_connection_does_not_come_back(settings: Settings, server: Script) -> None:
    with (
        Proxy(settings.addresses[0]) as proxy,
        RpcClient("test", replace(settings, addresses=(proxy.address,))) as asking,
    ):
        call = asking.send(QUEUE, b"7", deadline=1.0)
        proxy.refuse()
        proxy.cut()
        with pytest.raises(ConnectionFailure, match="nothing answers at"):
            asking.wait(call)
        proxy.accept()
        assert asking.ask(QUEUE, b"8", deadline=LIMIT).text() == "21"
    assert server.code is None


def test_what_rabbitmq_refuses_fails_at_once(settings: Settings, management: Management, server: Script) -> None:
    name = f"user.{settings.vhost}"
    management.create_user(name, "secret")
    try:
        management.set_permissions(name, settings.vhost, write="^$")
        with RpcClient("test", replace(settings, user=name, password="secret")) as asking:
            calls = [asking.send(QUEUE, b"7", deadline=600) for _ in range(3)]
            for call in calls:
                with pytest.raises(CallRefused, match="no permission to publish"):
                    asking.wait(call)
            management.set_permissions(name, settings.vhost)
            # RabbitMQ remembers for a while what a channel may do; this is a new one.
            assert asking.ask(QUEUE, b"8", deadline=LIMIT).text() == "21"
    finally:
        management.delete_user(name)
    assert server.code is None
