"""Connecting: what succeeds, what is tried again and for how long, and how each failure is told."""

from __future__ import annotations

import logging
import re
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pika import exceptions

from common.config import Address, Settings, Tls
from common.connection import connect, require, server_version
from common.errors import ExitCode, Unsupported, described
from extras.management import Management
from robust_pika import ConnectionFailure
from robust_pika.errors import (
    AccessRefused,
    BrokerUnavailable,
    CertificateDemanded,
    ChannelFailure,
    DeclaredOtherwise,
    HostNotFound,
    InvalidSettings,
    TlsFailure,
    VhostNotFound,
)
from robust_pika.explaining import explain
from tests.support.proxy import Proxy
from tests.support.tls import Authority, Pair, TlsProxy

SECRET = "hush-hush"


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """pika reports each failed attempt in its log; here they are wanted."""
    caplog.set_level(logging.CRITICAL, logger="pika")


def refused(settings: Settings, *, deadline: float | None = None) -> ConnectionFailure:
    """The failure of connect(): one line, without the password."""
    with pytest.raises(ConnectionFailure) as caught:
        connect("tests.connection", settings, deadline=deadline).close()
    text = str(caught.value)
    assert text
    assert "\n" not in text
    assert SECRET not in text + repr(caught.value)
    return caught.value


@contextmanager
def nobody_listens() -> Iterator[Address]:
    """A port that refuses: it is taken, so that nobody else comes to listen there meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield Address("127.0.0.1", held.getsockname()[1])


def test_it_is_open_and_carries_its_name(settings: Settings, management: Management) -> None:
    name = f"tests.connection é {uuid.uuid4().hex[:8]}"
    with connect(name, settings) as connection:
        assert connection.is_open
        deadline = time.monotonic() + 30
        while name not in [found.label for found in management.connections()]:
            assert time.monotonic() < deadline, "the management API does not show the name"
            connection.sleep(0.2)
    assert connection.is_closed


def test_the_version_is_that_of_the_management_api(settings: Settings, management: Management) -> None:
    with connect("tests.connection", settings) as connection:
        version = server_version(connection)
        require(connection, version, "this test")
        require(connection, (3, 10), "this test")
        with pytest.raises(Unsupported, match=r"streams need.* 99\.1 or later; this broker is \d+\.\d+\.\d+") as caught:
            require(connection, (99, 1), "streams need a broker that")
    assert ".".join(map(str, version)) == management.version()
    assert described(caught.value)[1] == ExitCode.UNSUPPORTED


def test_nobody_listens(settings: Settings) -> None:
    with nobody_listens() as address:
        began = time.monotonic()
        failure = refused(replace(settings, addresses=(address,)), deadline=1.0)
        took = time.monotonic() - began
    assert isinstance(failure, BrokerUnavailable)
    assert described(failure)[1] == ExitCode.UNAVAILABLE
    assert str(address) in str(failure)
    assert "make broker" in described(failure)[0]
    assert took < 4.0


def test_it_is_tried_again_until_somebody_listens(settings: Settings) -> None:
    with Proxy(settings.addresses[0]) as proxy:
        proxy.refuse()
        later = threading.Timer(1.0, proxy.accept)
        later.start()
        began = time.monotonic()
        with connect("tests.connection", replace(settings, addresses=(proxy.address,)), deadline=60):
            took = time.monotonic() - began
        later.join()
    assert 1.0 <= took < 20


def test_the_pauses_between_attempts_grow_and_the_deadline_holds(settings: Settings) -> None:
    """Counted at the other end: some attempts, not thousands, and none after the deadline."""
    attempts: list[float] = []

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            attempts.append(time.monotonic())
            client.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        counter = threading.Thread(target=serve)
        counter.start()
        address = Address("127.0.0.1", listener.getsockname()[1])
        began = time.monotonic()
        refused(replace(settings, addresses=(address,)), deadline=4.0)
        ended = time.monotonic()
        listener.shutdown(socket.SHUT_RDWR)
        counter.join()
    assert ended - began < 5.0
    # The pauses are random, up to 0.1, 0.2, 0.4, … s: 4 s are spent after some 6 of them, rarely a few more.
    assert 3 <= len(attempts) <= 60
    assert attempts[-1] <= ended


def test_a_wrong_password_is_told_at_once(settings: Settings) -> None:
    began = time.monotonic()
    failure = refused(replace(settings, password=SECRET), deadline=60)
    assert time.monotonic() - began < 10
    assert isinstance(failure, AccessRefused)
    assert not failure.transient
    assert described(failure)[1] == ExitCode.ACCESS
    assert repr(settings.user) in str(failure)
    assert "RABBITMQ_PASSWORD" in described(failure)[0]


# What RabbitMQ's own sentences have in them: the reader's names must not be taken for it.
ODD_NAMES = ["unlimited é", "it is down", "access to vhost 'x'", "ConnectionClosedByBroker: (530) 'x'", "x" * 250]


@pytest.mark.parametrize("vhost", ODD_NAMES)
def test_a_missing_virtual_host_is_told_at_once(settings: Settings, vhost: str) -> None:
    began = time.monotonic()
    failure = refused(replace(settings, vhost=vhost), deadline=60)
    assert time.monotonic() - began < 10
    assert isinstance(failure, VhostNotFound)
    assert not failure.transient
    assert described(failure)[1] == ExitCode.NO_VHOST
    assert repr(vhost) in str(failure)


@pytest.mark.parametrize("name", ["limited", "the limit (1) is reached", "it's down, vhost not found"])
def test_a_user_without_permission_for_the_virtual_host(settings: Settings, management: Management, name: str) -> None:
    user = f"tests-{uuid.uuid4().hex[:8]} {name}"
    management.create_user(user, SECRET)
    try:
        failure = refused(replace(settings, user=user, password=SECRET), deadline=60)
        management.set_permissions(user)
        connect("tests.connection", replace(settings, user=user, password=SECRET)).close()
    finally:
        management.delete_user(user)
    assert isinstance(failure, AccessRefused)
    assert f"user {user!r} has no permission for virtual host {settings.vhost!r}" in str(failure)


def test_a_virtual_host_that_takes_no_more_connections_may_do_so_later(
    settings: Settings, management: Management
) -> None:
    management.request("PUT", "vhost-limits", settings.vhost, "max-connections", body={"value": 0})
    failure = refused(settings, deadline=0)
    assert isinstance(failure, BrokerUnavailable)
    assert "connection limit (0) is reached" in str(failure)


def test_a_host_without_an_address(settings: Settings) -> None:
    failure = refused(replace(settings, addresses=(Address("no-such-host.invalid", 5672),)), deadline=0.5)
    assert isinstance(failure, HostNotFound)
    assert described(failure)[1] == ExitCode.NO_HOST
    assert "no-such-host.invalid:5672" in str(failure)


def test_of_several_hosts_the_one_that_answers_is_used(settings: Settings) -> None:
    with nobody_listens() as down:
        several = (down, Address("no-such-host.invalid", 1), *settings.addresses)
        with connect("tests.connection", replace(settings, addresses=several)) as connection:
            assert connection.is_open


def test_of_several_hosts_none_answers(settings: Settings) -> None:
    with nobody_listens() as one, nobody_listens() as two:
        failure = refused(replace(settings, addresses=(one, two)), deadline=0.5)
    assert isinstance(failure, BrokerUnavailable)
    assert f"{one}, {two}" in str(failure)


def test_of_several_hosts_a_refusal_is_told_rather_than_one_that_is_down(settings: Settings) -> None:
    with nobody_listens() as down:
        several = replace(settings, addresses=(down, *settings.addresses, down), password=SECRET)
        failure = refused(several, deadline=60)
    assert isinstance(failure, AccessRefused)


def test_something_that_never_says_a_word(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address("127.0.0.1", silent.getsockname()[1])
        began = time.monotonic()
        failure = refused(replace(settings, addresses=(address,), connect_timeout=1.0))
        assert time.monotonic() - began < 5
    assert described(failure)[1] == ExitCode.PROTOCOL
    assert "does not speak AMQP" in str(failure)


def test_a_web_server(settings: Settings) -> None:
    port = int(settings.management_url.rpartition(":")[2])
    failure = refused(replace(settings, addresses=(Address("127.0.0.1", port),), connect_timeout=2.0))
    assert described(failure)[1] == ExitCode.PROTOCOL
    assert "AMQP" in str(failure)


def test_a_connection_cut_while_it_is_opened_is_not_a_refusal(settings: Settings) -> None:
    """After each number of the broker's bytes, so in each step of the opening: always something to try again."""
    with Proxy(settings.addresses[0]) as proxy:
        through = replace(settings, addresses=(proxy.address,))
        told: list[tuple[int, ConnectionFailure]] = []
        for count in range(1, 5000, 10):
            proxy.limit(count)
            try:
                connect("tests.connection", through, deadline=0)
            except ConnectionFailure as failure:
                told.append((count, failure))
            else:
                break
    assert len(told) > 20
    assert [(count, failure) for count, failure in told if not failure.transient] == []


# What goes wrong on an open connection


def test_a_queue_declared_otherwise_names_queue_and_argument(settings: Settings) -> None:
    with connect("tests.connection", settings) as connection:
        connection.channel().queue_declare("tests.q", durable=True, arguments={"x-max-length": 1})
        with pytest.raises(exceptions.ChannelClosedByBroker) as caught:
            connection.channel().queue_declare("tests.q", durable=True, arguments={"x-max-length": 2})
    failure = explain(caught.value, settings)
    assert isinstance(failure, DeclaredOtherwise)
    assert described(failure)[1] == ExitCode.DECLARED_OTHERWISE
    assert "queue 'tests.q' exists with another 'x-max-length'" in str(failure)


@pytest.mark.parametrize("name", ["it's", "unknown exchange type 'x'", "inequivalent arg 'x' for queue 'y'"])
def test_a_queue_of_any_name_declared_otherwise(settings: Settings, name: str) -> None:
    with connect("tests.connection", settings) as connection:
        connection.channel().queue_declare(name, durable=True)
        with pytest.raises(exceptions.ChannelClosedByBroker) as caught:
            connection.channel().queue_declare(name, durable=True, arguments={"x-max-length": 2})
    failure = explain(caught.value, settings)
    assert isinstance(failure, DeclaredOtherwise)
    assert f"queue {name!r} exists with another 'x-max-length'" in str(failure)


def test_an_exchange_declared_otherwise_names_it(settings: Settings) -> None:
    with connect("tests.connection", settings) as connection:
        connection.channel().exchange_declare("tests.x", "fanout", durable=True)
        with pytest.raises(exceptions.ChannelClosedByBroker) as caught:
            connection.channel().exchange_declare("tests.x", "topic", durable=True)
    failure = explain(caught.value, settings)
    assert isinstance(failure, DeclaredOtherwise)
    assert "exchange 'tests.x' exists with another 'type'" in str(failure)


def test_a_message_for_no_queue_is_not_a_broken_connection(settings: Settings) -> None:
    with connect("tests.connection", settings) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        with pytest.raises(exceptions.UnroutableError) as caught:
            channel.basic_publish("", "tests.none", b"x", mandatory=True)
    failure = explain(caught.value, settings)
    assert (described(failure)[1], failure.transient) == (ExitCode.UNROUTABLE, False)
    assert "no queue is bound" in str(failure)


def test_what_is_not_there_is_quoted(settings: Settings) -> None:
    with connect("tests.connection", settings) as connection, pytest.raises(exceptions.ChannelClosedByBroker) as caught:
        connection.channel().queue_declare("tests.none", passive=True)
    failure = explain(caught.value, settings)
    assert isinstance(failure, ChannelFailure)
    assert not failure.transient
    assert "404" in str(failure)
    assert "tests.none" in str(failure)


def test_a_connection_closed_by_an_operator_may_be_opened_again(settings: Settings, management: Management) -> None:
    connection = connect("tests.connection", settings)
    deadline = time.monotonic() + 30
    while not (found := management.connections()):
        assert time.monotonic() < deadline, "the management API does not show the connection"
        connection.sleep(0.2)
    management.close_connection(found[0].name, "maintenance")
    with pytest.raises(exceptions.ConnectionClosedByBroker) as caught:
        connection.sleep(20)
    failure = explain(caught.value, settings)
    assert isinstance(failure, BrokerUnavailable)
    assert failure.transient
    assert "maintenance" in str(failure)


@pytest.mark.parametrize(
    ("kind", "mend"),
    [
        ("x-delayed-message", "rabbitmq-plugins enable rabbitmq_delayed_message_exchange"),
        ("x-nonsense", "is a plugin missing?"),
    ],
)
def test_an_exchange_type_that_the_broker_does_not_have(settings: Settings, kind: str, mend: str) -> None:
    with connect("tests.connection", settings) as connection, pytest.raises(exceptions.AMQPError) as raised:
        connection.channel().exchange_declare("tests.unknown", kind)
    failure = explain(raised.value, settings)
    assert described(failure)[1] == ExitCode.UNSUPPORTED
    assert f"has no exchanges of type {kind!r}; " in str(failure)
    assert str(failure).endswith(mend)


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Pair:
    return authority.issue("server", "DNS:localhost,IP:127.0.0.1")


def over_tls(settings: Settings, proxy: TlsProxy, tls: Tls | None, host: str = "127.0.0.1") -> Settings:
    return replace(settings, addresses=(Address(host, proxy.port),), tls=tls)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_tls_with_the_authority_known(settings: Settings, authority: Authority, server: Pair, host: str) -> None:
    with (
        TlsProxy(settings.addresses[0], server) as proxy,
        connect("tests.connection", over_tls(settings, proxy, Tls(authority.ca), host)) as connection,
    ):
        channel = connection.channel()
        channel.queue_declare("tests.tls", durable=True)
        channel.confirm_delivery()
        body = b"x" * 1_000_000
        channel.basic_publish("", "tests.tls", body, mandatory=True)
        assert channel.basic_get("tests.tls", auto_ack=True)[2] == body


def test_tls_with_an_authority_that_nobody_knows(settings: Settings, server: Pair) -> None:
    with TlsProxy(settings.addresses[0], server) as proxy:
        began = time.monotonic()
        failure = refused(over_tls(settings, proxy, Tls()), deadline=60)
        assert time.monotonic() - began < 10
    assert isinstance(failure, TlsFailure)
    assert not failure.transient
    assert described(failure)[1] == ExitCode.PROTOCOL
    assert "cannot be trusted" in str(failure)
    assert described(failure)[0].endswith(
        "; RABBITMQ_CA_FILE must name the certificate of the authority that signed it"
    )


def test_tls_with_a_certificate_for_another_host(settings: Settings, authority: Authority) -> None:
    elsewhere = authority.issue("elsewhere", "DNS:rabbit.example.com")
    with TlsProxy(settings.addresses[0], elsewhere) as proxy:
        failure = refused(over_tls(settings, proxy, Tls(authority.ca)), deadline=60)
    assert isinstance(failure, TlsFailure)
    assert "not valid for '127.0.0.1'" in str(failure)
    assert described(failure)[0].endswith("; connect by a name that it has")


def test_tls_with_a_certificate_that_has_expired(settings: Settings, authority: Authority) -> None:
    with TlsProxy(settings.addresses[0], authority.issue("expired", "IP:127.0.0.1", days=-1)) as proxy:
        failure = refused(over_tls(settings, proxy, Tls(authority.ca)), deadline=60)
    assert isinstance(failure, TlsFailure)
    assert not failure.transient
    assert described(failure)[0].endswith("(certificate has expired); renew it, or is this machine's clock wrong?")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_where_the_broker_demands_a_certificate_of_ours(
    settings: Settings, authority: Authority, server: Pair, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    client = authority.issue("client", "DNS:client")
    stranger = Authority(tmp_path / "another").issue("client", "DNS:client")
    with TlsProxy(settings.addresses[0], server, client_ca=authority.ca, version=version) as proxy:
        with_own = Tls(authority.ca, client.cert, client.key)
        connect("tests.connection", over_tls(settings, proxy, with_own)).close()
        for tls in (Tls(authority.ca), Tls(authority.ca, stranger.cert, stranger.key)):
            failure = refused(over_tls(settings, proxy, tls), deadline=0.5)
            line, code = described(failure)
            assert code == ExitCode.PROTOCOL
            # Where it just hangs up in the middle of the handshake, that is but one possibility.
            assert re.search(r"demands? a client certificate", line)
            assert line.endswith("; check RABBITMQ_CERT_FILE and RABBITMQ_KEY_FILE") or "EOF" in line


def test_what_the_other_side_of_tls_says_of_our_certificate() -> None:
    """With TLS 1.3 it says so after the handshake, and pika has often written by then: it sees a broken pipe."""
    said = "StreamLostError: (\"Stream connection lost: SSLError(1, '[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] x')\",)"
    failure = explain(exceptions.IncompatibleProtocolError(said), Settings(tls=Tls()))
    assert isinstance(failure, CertificateDemanded)
    assert not failure.transient
    # What cannot be told apart may pass: a proxy whose broker is just starting looks the same.
    failure = explain(exceptions.IncompatibleProtocolError("StreamLostError"), Settings(tls=Tls()))
    assert failure.transient


def test_tls_to_a_port_without(settings: Settings) -> None:
    began = time.monotonic()
    failure = refused(replace(settings, tls=Tls()), deadline=60)
    assert time.monotonic() - began < 10
    assert isinstance(failure, TlsFailure)
    assert "is this its TLS port" in str(failure)


def test_no_tls_to_a_port_with(settings: Settings, server: Pair) -> None:
    with TlsProxy(settings.addresses[0], server) as proxy:
        failure = refused(over_tls(settings, proxy, None), deadline=1.0)
    assert described(failure)[1] == ExitCode.PROTOCOL
    assert "TLS" in str(failure)


def test_files_that_are_no_certificates_are_named(
    settings: Settings, authority: Authority, server: Pair, tmp_path: Path
) -> None:
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("no certificate\n", encoding="utf-8")
    with pytest.raises(InvalidSettings, match=r"^the CA file .*rubbish.pem' is not a PEM certificate") as caught:
        connect("tests.connection", replace(settings, tls=Tls(rubbish)))
    other = authority.issue("other", "DNS:other")
    assert "RABBITMQ_CA_FILE" in described(caught.value)[0]
    with pytest.raises(InvalidSettings, match=r"^the certificate and key files .* do not fit together"):
        connect("tests.connection", replace(settings, tls=Tls(authority.ca, server.cert, other.key)))
