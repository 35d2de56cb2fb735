"""The proxy breaks what it is told to break, and nothing else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from common.config import Address
from tests.support.proxy import Proxy


@pytest.fixture
def echo() -> Iterator[Address]:
    """A server that sends back what it receives."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                while received := connection.recv(65536):
                    connection.sendall(received)
            except OSError:
                return

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield Address("127.0.0.1", listener.getsockname()[1])
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def client(proxy: Proxy) -> socket.socket:
    return socket.create_connection((proxy.address.host, proxy.address.port), timeout=10)


def said(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return connection.recv(100)


def test_forwards_both_ways_and_the_end_of_a_stream(echo: Address) -> None:
    with Proxy(echo) as proxy, client(proxy) as connection:
        assert said(connection, b"hello") == b"hello"
        assert proxy.connections == 1
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""


def test_cut_breaks_as_many_connections_as_asked_for(echo: Address) -> None:
    with Proxy(echo) as proxy, client(proxy) as one, client(proxy) as two:
        assert said(one, b"1") == b"1"
        assert said(two, b"2") == b"2"
        assert proxy.cut(1) == 1
        assert proxy.connections == 1
        assert proxy.cut() == 1
        for connection in (one, two):
            with pytest.raises(ConnectionResetError):
                connection.recv(100)
        with client(proxy) as another:
            assert said(another, b"again") == b"again"


def test_stall_holds_everything_back_and_resume_lets_it_go(echo: Address) -> None:
    with Proxy(echo) as proxy, client(proxy) as connection:
        assert said(connection, b"before") == b"before"
        proxy.stall()
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            said(connection, b"held")
        proxy.resume()
        connection.settimeout(10)
        assert connection.recv(100) == b"held"


def test_refuse_turns_new_connections_away_and_keeps_the_old(echo: Address) -> None:
    with Proxy(echo) as proxy, client(proxy) as connection:
        assert said(connection, b"old") == b"old"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            client(proxy)
        assert said(connection, b"still") == b"still"
        proxy.accept()
        with client(proxy) as new:
            assert said(new, b"new") == b"new"


def test_a_target_that_is_down_breaks_the_connection() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with Proxy(Address(*nobody.getsockname())) as proxy, pytest.raises(ConnectionResetError):
            client(proxy).recv(100)


def test_limit_ends_new_connections_after_so_many_bytes(echo: Address) -> None:
    with Proxy(echo) as proxy, client(proxy) as old:
        assert said(old, b"old") == b"old"
        proxy.limit(3)
        with client(proxy) as new:
            assert said(new, b"hello") == b"hel"
            assert new.recv(100) == b""
        assert said(old, b"hello") == b"hello"
        proxy.limit(None)
        with client(proxy) as another:
            assert said(another, b"hello") == b"hello"


def test_answer_ends_a_connection_with_what_it_returns(echo: Address) -> None:
    asked: list[bytes] = []

    def answer(piece: bytes) -> bytes | None:
        asked.append(piece)
        return b"enough" if piece == b"no" else None

    with Proxy(echo) as proxy:
        proxy.answer(answer)
        with client(proxy) as connection:
            assert said(connection, b"yes") == b"yes"
            assert said(connection, b"no") == b"enough"
            assert connection.recv(100) == b""
        assert asked == [b"yes", b"no"]
        proxy.answer(None)
        with client(proxy) as another:
            assert said(another, b"no") == b"no"
