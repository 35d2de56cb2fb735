"""rpc, where its README does not look: odd requests and replies, deadlines, clients and servers that are killed."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from tests.support.forked import ROOT
from tests.support.process import Script, run_script, wait_until
from tests.support.proxy import Proxy
from tests.support.queues import put

QUEUE = "rpc.requests"
SERVER = "rpc/rpc_server.py"
CLIENT = "rpc/rpc_client.py"
DIRECT = "amq.rabbitmq.reply-to"
WAITS = r"Server \d+ waits for requests"
FIRST = [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610]


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("a foreign client", settings) as connection:
        yield connection.channel()


@pytest.fixture
def server(environ: dict[str, str]) -> Iterator[Script]:
    with Script(SERVER, environ=environ) as running:
        running.expect(WAITS)
        yield running


class Asker:
    """A foreign client: it asks anything, in any way, and keeps all replies."""

    def __init__(self, channel: BlockingChannel, replies: str = DIRECT) -> None:
        self.channel = channel
        self.replies = replies
        self.came: list[tuple[BasicProperties, bytes]] = []
        channel.basic_consume(replies, lambda _c, _m, *reply: self.came.append(reply), auto_ack=True)

    def send(self, body: bytes, **properties: object) -> None:
        sent = {"reply_to": self.replies, "correlation_id": "one", **properties}
        self.channel.basic_publish("", QUEUE, body, BasicProperties(**sent))

    def ask(self, body: bytes, **properties: object) -> tuple[str, str]:
        """The type and the text of the reply, which has the correlation id of the request."""
        self.came.clear()
        self.send(body, **properties)
        wait_until(self.look)
        [(answer, text)] = self.came
        assert answer.correlation_id == properties.get("correlation_id", "one")
        return str(answer.type), text.decode()

    def look(self) -> bool:
        self.channel.connection.process_data_events(time_limit=0.1)
        return bool(self.came)


def requests(channel: BlockingChannel) -> int:
    """How many requests wait for a server."""
    return int(channel.queue_declare(QUEUE, passive=True).method.message_count)


# Requests


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"seven", "not 'seven'"),
        (b"-1", "not '-1'"),
        (b"31", "not '31'"),
        (b"9" * 5000, "from 0 to 30"),
        (b"1.5", "not '1.5'"),
        (b" 7", "not ' 7'"),
        (b"", "empty"),
        (b"\xff\xfe", "not UTF-8"),
        (b"\x1b[2J", "whole number"),
    ],
)
def test_a_request_that_is_no_number_gets_an_error_as_its_reply(
    body: bytes, why: str, channel: BlockingChannel, server: Script
) -> None:
    asker = Asker(channel)
    kind, text = asker.ask(body)
    assert kind == "error"
    assert re.search(why, text)
    assert len(text) < 200
    assert asker.ask(b"10") == ("reply", "55")
    server.terminate()
    assert server.wait() == 0
    assert not [line for line in server.lines if "Traceback" in line or "\x1b" in line]


def test_whatever_is_asked_is_answered_once(channel: BlockingChannel, server: Script) -> None:
    asker = Asker(channel)
    bodies = st.binary(max_size=20) | st.integers(-3, 17).map(lambda n: str(n).encode()) | st.text().map(str.encode)

    @hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(bodies, st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
    def ask(body: bytes, call: str) -> None:
        kind, text = asker.ask(body, correlation_id=call)
        if body.isdigit() and len(body) <= 9 and int(body) <= 15:
            assert (kind, text) == ("reply", str(FIRST[int(body)]))
        else:
            # Digits of other scripts are numbers, too.
            assert kind == "error" or text.isdecimal()
            assert text

    ask()
    assert server.code is None
    assert requests(channel) == 0


def test_a_request_without_reply_to_is_rejected(channel: BlockingChannel, server: Script) -> None:
    put(channel, QUEUE, b"7")
    server.expect(r"^ \[!\] a request without reply_to was rejected")
    assert Asker(channel).ask(b"7") == ("reply", "13")
    # Once: it has not come back.
    assert sum("rejected" in line for line in server.lines) == 1
    assert requests(channel) == 0


def test_two_servers_share_the_requests(channel: BlockingChannel, environ: dict[str, str], server: Script) -> None:
    with Script(SERVER, environ=environ) as second:
        second.expect(WAITS)
        asker = Asker(channel)
        for number in range(10):
            asker.send(b"%d" % number, correlation_id=str(number))
        wait_until(lambda: asker.look() and len(asker.came) == 10)
        assert sorted(int(str(reply.correlation_id)) for reply, _ in asker.came) == list(range(10))
        for one in (server, second):
            one.expect(r"fib\(\d\)")


# Replies


def test_a_client_with_a_reply_queue_is_served_as_well(channel: BlockingChannel, server: Script) -> None:
    queue = channel.queue_declare("", exclusive=True).method.queue
    assert Asker(channel, queue).ask(b"10") == ("reply", "55")
    assert server.code is None


@pytest.mark.parametrize("address", ["nowhere", f"{DIRECT}.garbage", f"{DIRECT}.", DIRECT, b"\xff\xfe"])
def test_an_address_that_leads_nowhere_does_no_harm(address: str | bytes, settings: Settings, server: Script) -> None:
    with connect("foreign", settings) as connection:
        channel = connection.channel()
        if address == DIRECT:
            # RabbitMQ itself replaces the bare name, and refuses it without a consumer.
            channel.basic_consume(DIRECT, lambda *_: None, auto_ack=True)
        channel.basic_publish("", QUEUE, b"7", BasicProperties(reply_to=address))
        server.expect(r"fib\(7\)")
        assert Asker(connection.channel()).ask(b"10") == ("reply", "55")
    server.terminate()
    assert server.wait() == 0


def test_the_request_and_what_the_client_makes_of_foreign_replies(
    environ: dict[str, str], channel: BlockingChannel
) -> None:
    """A server of another make: no id, an unknown id, and then the reply."""
    channel.queue_declare(QUEUE, durable=True, auto_delete=True)
    with Script(CLIENT, "--deadline", "20", "7", environ=environ) as asking:
        # Without a consumer: the queue would go with it.
        wait_until(lambda: requests(channel) == 1)
        _, request, body = channel.basic_get(QUEUE, auto_ack=True)
        assert request is not None
        assert body == b"7"
        assert 0 < int(str(request.expiration)) <= 20_000
        assert str(request.reply_to).startswith(f"{DIRECT}.")
        for identity in (None, "99", request.correlation_id):
            answer = BasicProperties(correlation_id=identity)
            channel.basic_publish("", str(request.reply_to), f"to {identity}".encode(), answer)
        assert asking.wait() == 0
    assert asking.lines == [" [x] Requesting fib(7)", f" [.] Got to {request.correlation_id}"]


# Deadlines


def test_no_server_is_reported_at_once(environ: dict[str, str]) -> None:
    began = time.monotonic()
    result = run_script(CLIENT, "--deadline", "3600", "7", environ=environ, limit=60)
    assert time.monotonic() - began < 30
    assert (result.code, result.out) == (ExitCode.UNROUTABLE, " [x] Requesting fib(7)\n")
    assert result.err == "error: no server is there; start one with: python rpc/rpc_server.py\n"


def test_the_queue_goes_with_the_last_server(environ: dict[str, str]) -> None:
    with Script(SERVER, environ=environ) as first, Script(SERVER, environ=environ) as second:
        for server in (first, second):
            server.expect(WAITS)
        first.terminate()
        assert first.wait() == 0
        assert run_script(CLIENT, "10", environ=environ).out.endswith(" [.] Got 55\n")
        second.terminate()
        assert second.wait() == 0
    assert run_script(CLIENT, "10", environ=environ).code == ExitCode.UNROUTABLE


def test_a_request_whose_client_has_given_up_is_not_served(environ: dict[str, str]) -> None:
    """Counted: three requests, of which the server sees the first and the last."""
    with Script(SERVER, "--seconds", "3", environ=environ) as server:
        server.expect(WAITS)
        with Script(CLIENT, "--deadline", "60", "1", environ=environ) as first:
            server.expect(r"fib\(1\)")
            given_up = run_script(CLIENT, "--deadline", "0.5", "2", environ=environ)
            assert given_up.code == ExitCode.NOT_CONFIRMED
            assert given_up.err == "error: no reply within 0.5 s; the server is too slow, or gone\n"
            assert first.wait() == 0
        assert run_script(CLIENT, "--deadline", "60", "3", environ=environ, limit=70).code == 0
        assert [line for line in server.lines if "fib" in line] == [" [.] fib(1)", " [.] fib(3)"]


def test_the_deadline_counts_while_the_network_stalls(environ: dict[str, str], settings: Settings) -> None:
    with (
        Proxy(settings.addresses[0]) as proxy,
        Script(SERVER, "--seconds", "60", environ=environ) as server,
    ):
        server.expect(WAITS)
        url = environ["AMQP_URL"].replace(f"@{settings.addresses[0]}", f"@{proxy.address}")
        with Script(CLIENT, "--deadline", "1", "7", environ={**environ, "AMQP_URL": url}) as asking:
            server.expect("fib")
            proxy.stall()
            # Its deadline, and what closing the connection may take. The next heartbeat is half a minute away.
            assert asking.wait(15) == ExitCode.NOT_CONFIRMED
        assert asking.lines[1:] == ["error: no reply within 1 s; the server is too slow, or gone"]


# What is killed


def test_a_client_that_is_killed_in_mid_call_does_no_harm(settings: Settings, environ: dict[str, str]) -> None:
    with Script(SERVER, "--seconds", "1", environ=environ) as server:
        server.expect(WAITS)
        with Script(CLIENT, "10", environ=environ) as asking:
            server.expect(r"fib\(10\)")
            asking.kill()
        with connect("next", settings) as connection:
            assert Asker(connection.channel()).ask(b"1") == ("reply", "1")
        server.terminate()
        assert server.wait() == 0
    assert [line for line in server.lines if "fib" in line] == [" [.] fib(10)", " [.] fib(1)"]


def test_the_requests_of_a_server_that_is_killed_go_to_another_one(
    environ: dict[str, str], channel: BlockingChannel
) -> None:
    """Counted: ten requests, ten replies, and one request was begun twice."""
    slow = SERVER, "--seconds", "0.3"
    with Script(*slow, environ=environ) as first, Script(*slow, environ=environ) as second:
        for server in (first, second):
            server.expect(WAITS)
        asker = Asker(channel)
        for number in range(10):
            asker.send(b"%d" % number, correlation_id=str(number))
        first.expect(r"fib\(\d\)")
        first.kill()
        assert first.wait() == -9
        wait_until(lambda: asker.look() and len(asker.came) == 10)
        replies = {int(str(reply.correlation_id)): int(text) for reply, text in asker.came}
        assert replies == dict(enumerate(FIRST[:10]))
        begun = [line for one in (first, second) for line in one.lines if "fib" in line]
        assert len(begun) == 11


def test_the_requests_go_with_the_last_server_that_is_killed(environ: dict[str, str]) -> None:
    with Script(SERVER, "--seconds", "30", environ=environ) as server:
        server.expect(WAITS)
        with Script(CLIENT, "--deadline", "2", "7", environ=environ) as asking:
            server.expect(r"fib\(7\)")
            server.kill()
            assert asking.wait() == ExitCode.NOT_CONFIRMED
    assert run_script(CLIENT, "7", environ=environ).code == ExitCode.UNROUTABLE


@pytest.mark.parametrize("script", [SERVER, CLIENT])
def test_a_connection_that_breaks_ends_the_script_with_one_line(
    script: str, environ: dict[str, str], settings: Settings
) -> None:
    with Proxy(settings.addresses[0]) as proxy, Script(SERVER, "--seconds", "30", environ=environ) as other:
        other.expect(WAITS)
        url = environ["AMQP_URL"].replace(f"@{settings.addresses[0]}", f"@{proxy.address}")
        with Script(script, environ={**environ, "AMQP_URL": url}) as running:
            if script == CLIENT:
                other.expect("fib")
            else:
                running.expect(WAITS)
            proxy.cut()
            assert running.wait() == ExitCode.UNAVAILABLE
        assert len(running.lines) == 2
        assert re.fullmatch(r"error: the connection to RabbitMQ at .+ broke: .+", running.lines[1])


def test_a_queue_that_is_declared_otherwise(channel: BlockingChannel, environ: dict[str, str]) -> None:
    channel.queue_declare(QUEUE, durable=True)
    result = run_script(SERVER, environ=environ)
    assert (result.code, result.out) == (ExitCode.DECLARED_OTHERWISE, "")
    assert re.fullmatch(r"error: queue 'rpc.requests' exists with another 'auto_delete'; delete it .+\n", result.err)


# The command line


@pytest.mark.parametrize("arguments", [(CLIENT, "--deadline", "-1"), (SERVER, "--seconds", "nan")])
def test_a_number_out_of_range_is_reported_in_one_line(arguments: tuple[str, ...], offline: dict[str, str]) -> None:
    result = run_script(*arguments, environ=offline)
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert re.fullmatch(rf"error: argument {arguments[1]}: must be .+ see \w+\.py --help\n", result.err)


@pytest.mark.parametrize("number", ["", "\udcff"])
def test_what_cannot_be_sent_is_reported_in_one_line(number: str, environ: dict[str, str]) -> None:
    result = run_script(CLIENT, number, environ=environ)
    assert result.code == ExitCode.DATA
    assert re.fullmatch(r"error: the (text|argument) .+\n", result.err)


def test_both_work_from_their_own_folder_and_have_help(environ: dict[str, str]) -> None:
    folder = ROOT / "rpc"
    for script in ("rpc_server.py", "rpc_client.py"):
        assert f"python rpc/{script}" in run_script(script, "--help", environ=environ, folder=folder).out
    with Script("rpc_server.py", environ=environ, folder=folder) as server:
        server.expect(WAITS)
        assert run_script("rpc_client.py", "10", environ=environ, folder=folder).out.endswith(" [.] Got 55\n")
