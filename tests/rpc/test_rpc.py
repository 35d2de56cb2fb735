"""rpc, where its README does not look: odd requests, odd replies, and clients that go or break away."""

from __future__ import annotations

import importlib.util
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from common.management import Management
from tests.support.process import ROOT, Script, run_script, wait_until
from tests.support.proxy import Proxy
from tests.support.queues import put, take

QUEUE = "rpc.requests"
DEAD_LETTERS = f"{QUEUE}.dead_letters"
SERVER = "rpc/rpc_server.py"
CLIENT = "rpc/rpc_client.py"
DIRECT = "amq.rabbitmq.reply-to"
LIMIT = 30.0
FIRST = [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610]


def fibonacci(number: int) -> int:
    last, this = 0, 1
    for _ in range(number):
        last, this = this, last + this
    return last


@pytest.fixture(scope="module")
def client() -> ModuleType:
    """rpc/client.py, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("client_of_rpc", ROOT / "rpc" / "client.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("a foreign client", settings) as connection:
        yield connection.channel()


@pytest.fixture
def server(environ: dict[str, str]) -> Iterator[Script]:
    with Script(SERVER, environ=environ) as running:
        running.expect(r"Waiting for requests")
        yield running


class Asker:
    """A foreign client: it asks anything, in any way, and gets what comes first."""

    def __init__(self, channel: BlockingChannel, replies: str = DIRECT) -> None:
        self.channel = channel
        self.replies = replies
        self.came: list[tuple[BasicProperties, bytes]] = []
        channel.basic_consume(replies, lambda _c, _m, *reply: self.came.append(reply), auto_ack=True)

    def ask(self, body: bytes, **properties: object) -> tuple[str, str]:
        """The type and the text of the reply, which bears the id of the request."""
        self.came.clear()
        told = {"reply_to": self.replies, "correlation_id": "one", **properties}
        self.channel.basic_publish("", QUEUE, body, BasicProperties(**told))
        wait_until(self.look)
        [(answer, text)] = self.came
        assert answer.correlation_id == told["correlation_id"]
        return str(answer.type), text.decode()

    def look(self) -> bool:
        self.channel.connection.process_data_events(time_limit=0.1)
        return bool(self.came)


# Requests that the server does not expect


@pytest.mark.parametrize(
    ("body", "content_type", "why"),
    [
        (b"seven", None, "whole number"),
        (b"-1", "text/plain", "from 0 to 30"),
        (b"31", None, "from 0 to 30"),
        (b"9" * 5000, None, "whole number|from 0 to 30"),
        (b"1.5", None, "whole number"),
        (b"", None, "empty"),
        (b"\xff\xfe", None, "not UTF-8"),
        (b"7", "application/json", "application/json"),
        (b"\x1b[2J", None, "whole number"),
    ],
)
def test_a_request_that_is_not_what_the_server_expects_gets_an_error_as_its_reply(
    body: bytes, content_type: str | None, why: str, channel: BlockingChannel, server: Script
) -> None:
    asker = Asker(channel)
    kind, text = asker.ask(body, content_type=content_type)
    assert kind == "error"
    assert re.search(why, text)
    assert len(text) < 200
    assert asker.ask(b"10") == ("reply", "55")
    server.terminate()
    assert server.wait() == 0
    assert not [line for line in server.lines if "Traceback" in line or "\x1b" in line]


def test_whatever_is_asked_is_answered(channel: BlockingChannel, server: Script) -> None:
    asker = Asker(channel)
    bodies = st.binary(max_size=20) | st.integers(-3, 17).map(lambda n: str(n).encode()) | st.text().map(str.encode)
    types = st.sampled_from([None, "text/plain", "TEXT/PLAIN; charset=utf-8", "application/json", "image/png", ""])

    @hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(bodies, types, st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
    def ask(body: bytes, content_type: str | None, call: str) -> None:
        kind, text = asker.ask(body, content_type=content_type, correlation_id=call)
        text_expected = content_type is None or not content_type or content_type.lower().startswith("text/")
        if text_expected and body.isdigit() and int(body) <= 15:
            assert (kind, text) == ("reply", str(FIRST[int(body)]))
        elif kind == "reply":
            # Python takes more for a whole number than digits: blanks around them, and those of other scripts.
            assert text_expected
            assert int(text) == fibonacci(int(body.decode()))
        else:
            assert (kind, bool(text)) == ("error", True)

    ask()
    assert server.code is None


def test_a_request_without_an_address_is_told_and_kept(channel: BlockingChannel, server: Script) -> None:
    put(channel, QUEUE, b"7")
    server.expect(r"^ \[!\] message \(no id\) rejected: the request has no reply_to$")
    assert [body for _, body in take(channel, DEAD_LETTERS, 1)] == [b"7"]
    assert Asker(channel).ask(b"7") == ("reply", "13")


def test_an_address_that_is_not_utf8_is_told_and_the_request_kept(channel: BlockingChannel, server: Script) -> None:
    put(channel, QUEUE, b"7", properties=BasicProperties(reply_to=b"\xff\xfe"))  # type: ignore[arg-type]
    server.expect(r"^ \[!\] message \(no id\) rejected: ")
    take(channel, DEAD_LETTERS, 1)
    assert Asker(channel).ask(b"7") == ("reply", "13")


# Replies


def test_a_client_with_a_reply_queue_is_served_as_well(channel: BlockingChannel, server: Script) -> None:
    queue = channel.queue_declare("", exclusive=True).method.queue
    assert Asker(channel, queue).ask(b"10") == ("reply", "55")
    assert server.code is None


def test_a_reply_queue_that_is_gone_is_told_and_the_next_request_is_done(
    channel: BlockingChannel, server: Script
) -> None:
    put(channel, QUEUE, b"7", properties=BasicProperties(reply_to="nowhere", correlation_id="one"))
    server.expect(r"^ \[!\] the answer for queue 'nowhere' was dropped: there is no such queue any more$")
    assert Asker(channel).ask(b"10") == ("reply", "55")
    assert "connecting again" not in "\n".join(server.lines)


@pytest.mark.parametrize("address", [f"{DIRECT}.garbage", f"{DIRECT}.", DIRECT])
def test_an_address_that_leads_nowhere_does_no_harm(address: str, settings: Settings, server: Script) -> None:
    with connect("foreign", settings) as connection:
        # RabbitMQ itself replaces the bare name, and refuses it without a consumer.
        channel = connection.channel()
        if address == DIRECT:
            channel.basic_consume(DIRECT, lambda *_: None, auto_ack=True)
        channel.basic_publish("", QUEUE, b"7", BasicProperties(reply_to=address))
        server.expect(r"fib\(7\)")
        assert Asker(connection.channel()).ask(b"10") == ("reply", "55")
    assert "connecting again" not in "\n".join(server.lines)


def test_a_client_that_goes_in_mid_call_does_no_harm(settings: Settings, environ: dict[str, str]) -> None:
    with Script(SERVER, "--seconds-per-step", "0.1", environ=environ) as server:
        server.expect("Waiting")
        with Script(CLIENT, "10", environ=environ) as asking:
            server.expect(r"fib\(10\)")
            asking.kill()
        with connect("next", settings) as connection:
            assert Asker(connection.channel()).ask(b"1") == ("reply", "1")
        server.terminate()
        assert server.wait() == 0
    assert "connecting again" not in "\n".join(server.lines)


def test_replies_that_belong_to_no_call_are_dropped_and_told(
    client: ModuleType, settings: Settings, channel: BlockingChannel, capfd: pytest.CaptureFixture[str]
) -> None:
    """A server of bad manners: no id, an unknown id, then the reply, then the reply once more."""
    queue = channel.queue_declare("", exclusive=True).method.queue
    with client.Client("test", settings) as asking:
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
    told = capfd.readouterr().err.splitlines()
    assert told == [
        " [!] a reply without id was dropped: no call waits for it",
        " [!] a reply to call 99 was dropped: no call waits for it",
        " [!] a reply to call 1 was dropped: no call waits for it",
    ]


def test_the_request_expires_with_its_call(client: ModuleType, settings: Settings, channel: BlockingChannel) -> None:
    queue = channel.queue_declare("", exclusive=True).method.queue
    with client.Client("test", settings) as asking:
        call = asking.send(queue, b"7", deadline=1.0)
        [(request, _)] = take(channel, queue, 1)
        assert 900 <= int(str(request.expiration)) <= 1000
        with pytest.raises(client.NoReply, match=r"no reply within 1 s"):
            asking.wait(call)
        gone = asking.send(queue, b"8", deadline=0.3)
        with pytest.raises(client.NoReply):
            asking.wait(gone)
    # RabbitMQ counts it from when it got it.
    wait_until(lambda: channel.queue_declare(queue, passive=True).method.message_count == 0)


# The client


def test_a_request_that_is_held_back_goes_with_the_next(
    client: ModuleType, settings: Settings, channel: BlockingChannel
) -> None:
    queue = channel.queue_declare("", exclusive=True).method.queue

    def reply(count: int) -> None:
        for request, body in take(channel, queue, count):
            answer = BasicProperties(correlation_id=request.correlation_id)
            channel.basic_publish("", str(request.reply_to), body * 2, answer)

    with client.Client("test", settings) as asking:
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


def test_many_large_requests_go_out_without_anybody_waiting(
    client: ModuleType, settings: Settings, channel: BlockingChannel
) -> None:
    """More than the socket takes at once."""
    queue = channel.queue_declare("", exclusive=True).method.queue
    with client.Client("test", settings) as asking:
        for number in range(30):
            asking.send(queue, b"%d" % (number % 10) * 1_000_000, deadline=LIMIT)
        assert [len(body) for _, body in take(channel, queue, 30)] == [1_000_000] * 30


def test_nobody_there_is_told_at_once_also_when_many_ask(environ: dict[str, str]) -> None:
    result = run_script(CLIENT, "--deadline", "3600", "--count", "50", "7", environ=environ)
    assert result.code == ExitCode.UNROUTABLE
    assert result.err == "error: no server is there; start one with: python rpc/rpc_server.py\n"


@pytest.mark.parametrize(
    "arguments",
    [
        (CLIENT, "--deadline", "-1"),
        (CLIENT, "--in-flight", "0"),
        (CLIENT, "--count", "0"),
        (SERVER, "--prefetch", "0"),
        (SERVER, "--seconds-per-step", "nan"),
    ],
)
def test_a_number_out_of_range_is_told_in_one_line(arguments: tuple[str, ...], offline: dict[str, str]) -> None:
    result = run_script(*arguments, environ=offline)
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert re.fullmatch(rf"error: argument {arguments[1]}: must be .+ see \w+\.py --help\n", result.err)


@pytest.mark.parametrize("number", ["", "\udcff"])
def test_what_cannot_be_sent_is_told_in_one_line(number: str, offline: dict[str, str]) -> None:
    result = run_script(CLIENT, number, environ=offline)
    assert (result.code, result.out) == (ExitCode.DATA, "")
    assert re.fullmatch(r"error: the text is .+\n", result.err)


def test_both_work_from_their_own_folder_and_have_help(environ: dict[str, str]) -> None:
    folder = ROOT / "rpc"
    for script in ("rpc_server.py", "rpc_client.py"):
        assert f"python rpc/{script}" in run_script(script, "--help", environ=environ, folder=folder).out
    with Script("rpc_server.py", environ=environ, folder=folder) as server:
        server.expect("Waiting")
        assert run_script("rpc_client.py", "10", environ=environ, folder=folder).out.endswith(" [.] Got 55\n")


def test_calls_are_asked_again_when_the_connection_breaks(
    client: ModuleType, settings: Settings, server: Script, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        Proxy(settings.addresses[0]) as proxy,
        client.Client("test", replace(settings, addresses=(proxy.address,))) as asking,
    ):
        for _ in range(3):
            calls = {number: asking.send(QUEUE, b"%d" % number, deadline=LIMIT) for number in range(20)}
            proxy.cut()
            for number, call in calls.items():
                assert asking.wait(call).text() == str(fibonacci(number))
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 3
    assert all(re.fullmatch(r" \[!\] .+; connected again, calls asked again: \d+", line) for line in told)
    assert server.code is None


def test_calls_fail_in_one_line_when_the_connection_does_not_come_back(
    client: ModuleType, settings: Settings, server: Script
) -> None:
    with (
        Proxy(settings.addresses[0]) as proxy,
        client.Client("test", replace(settings, addresses=(proxy.address,))) as asking,
    ):
        call = asking.send(QUEUE, b"7", deadline=1.0)
        proxy.refuse()
        proxy.cut()
        with pytest.raises(client.ConnectionFailure, match="nothing answers at"):
            asking.wait(call)
        proxy.accept()
        assert asking.ask(QUEUE, b"8", deadline=LIMIT).text() == "21"
    assert server.code is None


def test_what_rabbitmq_refuses_fails_at_once(
    client: ModuleType, settings: Settings, management: Management, server: Script
) -> None:
    name = f"user.{settings.vhost}"
    management.create_user(name, "secret")
    try:
        management.set_permissions(name, settings.vhost, write="^$")
        with client.Client("test", replace(settings, user=name, password="secret")) as asking:
            calls = [asking.send(QUEUE, b"7", deadline=600) for _ in range(3)]
            for call in calls:
                with pytest.raises(client.Refused, match="may not publish"):
                    asking.wait(call)
            management.set_permissions(name, settings.vhost)
            # RabbitMQ remembers for a while what a channel may do; this is a new one.
            assert asking.ask(QUEUE, b"8", deadline=LIMIT).text() == "21"
    finally:
        management.delete_user(name)
    assert server.code is None
