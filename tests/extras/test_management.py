"""The client of the management API, against a real broker: what it reads, what it sets up, how it fails."""

from __future__ import annotations

import http.server
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import pytest
from pika.exceptions import AMQPError

from common.config import Settings
from common.connection import connect
from common.errors import ExitCode, Failure
from extras.management import (
    Management,
    ManagementAccessRefused,
    ManagementFailure,
    ManagementUnavailable,
    NotFound,
    NotManagement,
    NoVhost,
)

Value = TypeVar("Value")
NAME = "tests.q/é ✓?#%&+ x"


def eventually(ask: Callable[[], Value], *, seconds: float = 30) -> Value:
    """What ``ask`` returns as soon as it is true; the API's counts lag by some seconds."""
    deadline = time.monotonic() + seconds
    while not (value := ask()):
        assert time.monotonic() < deadline, f"still {value!r} after {seconds} s"
        time.sleep(0.2)
    return value


@pytest.fixture
def vhost() -> Iterator[str]:
    """A virtual host with a name that has to be quoted, removed after the test."""
    name = f"tests/management é {uuid.uuid4().hex[:8]}"
    with Management(Settings.load()) as api:
        api.create_vhost(name, "made by a test")
        yield name
        if any(found.name == name for found in api.vhosts()):
            api.delete_vhost(name)


@pytest.fixture
def here(vhost: str) -> Settings:
    return replace(Settings.load(), vhost=vhost)


@pytest.fixture
def api(here: Settings) -> Iterator[Management]:
    with Management(here) as management:
        yield management


def test_the_broker_introduces_itself(api: Management) -> None:
    api.ping()
    assert [int(part) for part in api.version().split(".")[:2]] >= [3, 10]
    nodes = api.nodes()
    assert nodes
    assert all(node.running for node in nodes)
    assert api.alarms() == [
        f"{kind} alarm on {node.name}"
        for node in nodes
        for kind, on in (("memory", node.memory_alarm), ("disk", node.disk_alarm))
        if on
    ]


def test_a_virtual_host_comes_and_goes(api: Management, vhost: str) -> None:
    api.create_vhost(vhost, "made by a test")
    assert api.get_vhost().description == "made by a test"
    assert [found.name for found in api.vhosts()].count(vhost) == 1
    api.delete_vhost(vhost)
    assert vhost not in [found.name for found in api.vhosts()]
    with pytest.raises(NoVhost):
        api.delete_vhost(vhost)


def test_what_is_declared_over_amqp_is_seen(api: Management, here: Settings) -> None:
    with connect("tests.management", here) as connection:
        channel = connection.channel()
        channel.queue_declare(NAME, durable=True, arguments={"x-queue-type": "quorum"})
        channel.exchange_declare("tests.x", "fanout", durable=True)
        channel.queue_bind(NAME, "tests.x")
        channel.confirm_delivery()
        for _ in range(3):
            channel.basic_publish("tests.x", "", b"x")

    queue = eventually(lambda: (found := api.queue(NAME)).ready == 3 and found.state == "running" and found)
    assert queue in api.queues()
    assert (queue.name, queue.type, queue.durable, queue.exclusive) == (NAME, "quorum", True, False)
    assert queue.vhost == here.vhost
    assert queue.arguments["x-queue-type"] == "quorum"
    exchanges = {exchange.name: exchange for exchange in api.exchanges()}
    assert exchanges["tests.x"].type == "fanout"
    assert "" in exchanges
    assert [(b.source, b.destination, b.destination_type) for b in api.bindings() if b.source] == [
        ("tests.x", NAME, "queue")
    ]

    api.purge_queue(NAME)
    with connect("tests.management", here) as connection:
        declared = connection.channel().queue_declare(NAME, passive=True)
        assert declared.method.message_count == 0
    api.delete_queue(NAME)
    api.delete_exchange("tests.x")
    assert api.queues() == []
    assert "tests.x" not in [exchange.name for exchange in api.exchanges()]


def test_who_is_connected_is_seen_and_can_be_closed(api: Management, here: Settings) -> None:
    connection = connect("tests.management watched", here)
    channel = connection.channel()
    channel.queue_declare(NAME, exclusive=True)
    channel.basic_qos(prefetch_count=7)
    tag = channel.basic_consume(NAME, lambda *_: None)

    # An entry is there before its details, which come with the broker's next sample.
    consumer = eventually(lambda: [c for c in api.consumers() if c.connection])[0]
    assert (consumer.tag, consumer.queue, consumer.prefetch, consumer.active) == (tag, NAME, 7, True)
    found = eventually(lambda: [c for c in api.connections() if c.label == "tests.management watched"])[0]
    assert (found.vhost, found.protocol) == (here.vhost, "AMQP 0-9-1")
    assert consumer.connection == found.name
    opened = eventually(lambda: [c for c in api.channels() if c.connection])[0]
    assert (opened.connection, opened.number) == (found.name, channel.channel_number)

    api.close_connection(found.name, "tests:\nmake  room é")
    with pytest.raises(AMQPError, match=r"320.*tests: make room \?"):
        connection.process_data_events(time_limit=20)
    with pytest.raises(NotFound, match="any more"):
        eventually(lambda: api.close_connection(found.name))


def test_policies(api: Management, here: Settings) -> None:
    api.set_policy("tests/limit", r"^tests\.", {"max-length": 1}, apply_to="queues", priority=3)
    policy = api.policies()[0]
    assert (policy.name, policy.pattern, policy.apply_to) == ("tests/limit", r"^tests\.", "queues")
    assert (policy.definition, policy.priority, policy.vhost) == ({"max-length": 1}, 3, here.vhost)
    with connect("tests.management", here) as connection:
        channel = connection.channel()
        channel.queue_declare("tests.limited", durable=True)
        eventually(lambda: api.queue("tests.limited").policy == "tests/limit")
        channel.confirm_delivery()
        for _ in range(3):
            channel.basic_publish("", "tests.limited", b"x")
        assert channel.queue_declare("tests.limited", passive=True).method.message_count == 1
    api.delete_policy("tests/limit")
    assert api.policies() == []


def test_a_policy_that_makes_no_sense_is_told_in_one_line(api: Management) -> None:
    with pytest.raises(ManagementFailure, match=r"400 Validation failed.*not a valid maximum length") as caught:
        api.set_policy("tests", ".*", {"max-length": "many"})
    assert "\n" not in str(caught.value)


def test_the_firehose_copies_messages_and_keeps_the_description(api: Management, here: Settings) -> None:
    api.set_tracing(True)
    found = api.get_vhost()
    assert (found.tracing, found.description) == (True, "made by a test")
    with connect("tests.management", here) as connection:
        channel = connection.channel()
        copies = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(copies, "amq.rabbitmq.trace", "publish.#")
        channel.basic_publish("amq.fanout", "key", b"traced")
        method, _, body = eventually(lambda: (got := channel.basic_get(copies, auto_ack=True))[0] and got)
        assert (method.routing_key, body) == ("publish.amq.fanout", b"traced")
    api.set_tracing(False)
    assert not api.get_vhost().tracing


def test_definitions_go_out_and_come_in(api: Management, here: Settings) -> None:
    copy = f"tests-copy-{uuid.uuid4().hex[:8]}"
    api.create_vhost(copy)
    try:
        with connect("tests.management", replace(here, vhost=copy)) as connection:
            channel = connection.channel()
            channel.queue_declare(NAME, durable=True)
            channel.queue_bind(NAME, "amq.topic", "a.#")
        exported = api.definitions(copy)
    finally:
        api.delete_vhost(copy)
    assert [queue["name"] for queue in exported["queues"]] == [NAME]
    api.import_definitions(exported)
    assert api.queue(NAME).durable
    assert ("amq.topic", "a.#") in [(binding.source, binding.routing_key) for binding in api.bindings()]


def test_a_user_and_what_it_may_do(api: Management, here: Settings) -> None:
    name = f"tests-{uuid.uuid4().hex[:8]}"
    api.create_user(name, "hush-hush", tags="management")
    try:
        theirs = replace(here, user=name, password="hush-hush")
        with Management(theirs) as their_api:
            their_api.ping()
            with pytest.raises((ManagementAccessRefused, NoVhost), match="user") as caught:
                their_api.queues()
            api.set_permissions(name, write="", configure="")
            assert their_api.queues() == []
        assert "hush" not in str(caught.value)
    finally:
        api.delete_user(name)
    with pytest.raises(NotFound, match=f"user '{name}' does not exist"):
        api.delete_user(name)


def test_a_wrong_password_is_told_without_it(configured: Settings) -> None:
    with (
        Management(replace(configured, password="hush-hush")) as api,
        pytest.raises(ManagementAccessRefused, match="refused user") as caught,
    ):
        api.ping()
    assert caught.value.exit_code == ExitCode.ACCESS
    assert "hush" not in str(caught.value) + repr(caught.value)


def test_credentials_in_the_url_are_used_and_not_shown(configured: Settings) -> None:
    url = configured.management_url.replace("://", "://somebody:hush-hush@")
    with (
        Management(replace(configured, management_url=url)) as api,
        pytest.raises(ManagementAccessRefused, match="'somebody'") as caught,
    ):
        api.queues()
    assert "hush" not in str(caught.value) + api.url


@pytest.mark.parametrize(
    ("ask", "missing"),
    [
        (lambda api: api.queue("tests.none"), "queue 'tests.none'"),
        (lambda api: api.delete_queue("tests.none"), "queue 'tests.none'"),
        (lambda api: api.purge_queue("tests.none"), "queue 'tests.none'"),
        (lambda api: api.delete_exchange("tests.none"), "exchange 'tests.none'"),
        (lambda api: api.delete_policy("tests.none"), "policy 'tests.none'"),
    ],
)
def test_what_is_not_there_is_named(api: Management, ask: Callable[[Management], object], missing: str) -> None:
    with pytest.raises(NotFound, match=f"{missing} does not exist in virtual host") as caught:
        ask(api)
    assert not isinstance(caught.value, NoVhost)


@pytest.mark.parametrize(
    "ask",
    [
        lambda api: api.queue("tests.none"),
        lambda api: api.queues(),
        lambda api: api.exchanges(),
        lambda api: api.bindings(),
        lambda api: api.consumers(),
        lambda api: api.connections(),
        lambda api: api.channels(),
        lambda api: api.policies(),
        lambda api: api.definitions(),
        lambda api: api.get_vhost(),
        lambda api: api.set_tracing(True),
        lambda api: api.set_policy("p", ".*", {"max-length": 1}),
    ],
)
def test_a_missing_virtual_host_is_named(configured: Settings, ask: Callable[[Management], object]) -> None:
    with (
        Management(replace(configured, vhost="tests/none at all")) as api,
        pytest.raises(NoVhost, match="virtual host 'tests/none at all' does not exist") as caught,
    ):
        ask(api)
    assert caught.value.exit_code == ExitCode.NO_VHOST


@pytest.mark.parametrize("name", ["", ".", "..", "\ud800"])
def test_a_name_that_has_no_address_reaches_nothing_else(api: Management, here: Settings, name: str) -> None:
    with connect("tests.management", here) as connection:
        connection.channel().queue_declare(NAME, durable=True)
    with pytest.raises(ManagementFailure, match="name"):
        api.delete_queue(name)
    with pytest.raises(ManagementFailure, match="name"):
        api.delete_vhost(name)
    assert api.queue(NAME).name == NAME


@contextmanager
def listening(answer: bytes | None) -> Iterator[int]:
    """A port of this machine that reads a request and then answers so; None: never."""
    done = threading.Event()

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                client.recv(65536)
                if answer is None:
                    done.wait(20)
                else:
                    client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            done.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def failure(configured: Settings, url: str, **options: float) -> Failure:
    with (
        Management(replace(configured, management_url=url), **options) as api,
        pytest.raises(ManagementFailure) as caught,
    ):
        api.overview()
    assert "\n" not in str(caught.value)
    return caught.value


def test_nobody_listens(configured: Settings) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # taken, but not listening: nobody else can come to listen there meanwhile
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        told = failure(configured, url)
    assert isinstance(told, ManagementUnavailable)
    assert told.exit_code == ExitCode.UNAVAILABLE
    assert url in str(told)
    assert "make broker" in str(told)


def test_a_host_without_an_address(configured: Settings) -> None:
    told = failure(configured, "http://no-such-host.invalid:15672")
    assert isinstance(told, ManagementUnavailable)
    assert "no-such-host.invalid" in str(told)


def test_no_answer_in_time(configured: Settings) -> None:
    with listening(None) as port:
        began = time.monotonic()
        told = failure(configured, f"http://127.0.0.1:{port}", timeout=0.5)
    assert isinstance(told, ManagementUnavailable)
    assert "did not answer in time" in str(told)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Type: text/html\r\nContent-Length: 1\r\n\r\n.",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"AMQP\x00\x00\x09\x01",
        b"",
    ],
    ids=["page", "redirect", "other JSON", "nothing inside", "AMQP", "nothing"],
)
def test_something_else_answers(configured: Settings, answer: bytes) -> None:
    with listening(answer) as port:
        told = failure(configured, f"http://127.0.0.1:{port}")
    assert isinstance(told, NotManagement)
    assert "RABBITMQ_MANAGEMENT_URL" in str(told)


def test_an_answer_that_breaks_off_is_told(configured: Settings) -> None:
    with listening(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n{"a"') as port:
        told = failure(configured, f"http://127.0.0.1:{port}")
    assert "broken JSON" in str(told)


def test_a_kept_connection_that_is_closed_as_it_is_used_again(configured: Settings) -> None:
    asked: list[str] = []

    class Once(http.server.BaseHTTPRequestHandler):
        """Answers one request of each connection, and reads the next one in vain."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            if self.close_connection or hasattr(self, "answered"):
                self.close_connection = True
                return
            self.answered = True
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_DELETE = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Once) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with Management(replace(configured, management_url=f"http://127.0.0.1:{server.server_port}")) as api:
                assert [api.request("GET", "whoami") for _ in range(3)] == [{}] * 3
                assert len(asked) == 5
                # It may have been done already: nobody can tell, so it is not sent again.
                with pytest.raises(ManagementFailure):
                    api.request("DELETE", "queues", "/", "tests.none")
        finally:
            server.shutdown()
            thread.join()
    assert len(asked) == 6


def test_http_where_tls_is_expected(configured: Settings) -> None:
    handler = http.server.BaseHTTPRequestHandler
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            told = failure(configured, f"https://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
    assert "TLS" in str(told)


def test_a_proxy_of_the_environment_is_not_asked(configured: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with Management(configured) as api:
        api.ping()
