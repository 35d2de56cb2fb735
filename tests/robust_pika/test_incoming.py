"""What is delivered is taken out of the stream, and pika gets the rest as it came, wherever the pieces are cut."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import BasicProperties, frame, spec
from pika.adapters.utils.nbio_interface import AbstractStreamProtocol, AbstractStreamTransport

from robust_pika import Message
from robust_pika._io.incoming import Incoming

CHANNEL = 1
BODY_MAX = 50
HEARTBEAT = frame.Heartbeat().marshal()
OTHERS = [
    HEARTBEAT,
    frame.Method(0, spec.Connection.Blocked("memory")).marshal(),
    frame.Method(0, spec.Connection.Unblocked()).marshal(),
    frame.Method(CHANNEL, spec.Basic.ConsumeOk("ctag")).marshal(),
    frame.Method(CHANNEL, spec.Basic.Ack(7, multiple=True)).marshal(),
    frame.Method(CHANNEL, spec.Basic.Cancel("ctag")).marshal(),
    # A message that comes back is pika's, with all its frames.
    frame.Method(CHANNEL, spec.Basic.Return(312, "NO_ROUTE", "", "key")).marshal()
    + frame.Header(CHANNEL, 3, BasicProperties(message_id="back")).marshal()
    + frame.Body(CHANNEL, b"abc").marshal(),
]


class Pika(AbstractStreamProtocol):
    """Keeps what it gets, with a note of how many deliveries had been taken before."""

    def __init__(self, taken: list[tuple[int, Message]]) -> None:
        self.got: list[tuple[int, bytes]] = []
        self.lost: list[BaseException | None] = []
        self.made: list[object] = []
        self._taken = taken

    def connection_made(self, transport: AbstractStreamTransport) -> None:
        self.made.append(transport)

    def connection_lost(self, error: BaseException | None) -> None:
        self.lost.append(error)

    def eof_received(self) -> bool | None:
        return False

    def data_received(self, data: bytes) -> None:
        assert data, "nothing is nothing to tell"
        self.got.append((len(self._taken), data))

    @property
    def all(self) -> bytes:
        return b"".join(data for _, data in self.got)


class Stream:
    """An Incoming, what it has taken, and what has gone to pika."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, Message]] = []
        self.heard = 0
        self.pika = Pika(self.taken)
        self.incoming = Incoming(self.pika, lambda tag, message: self.taken.append((tag, message)), self.hear)

    def hear(self) -> None:
        self.heard += 1

    def feed(self, data: bytes, size: int) -> None:
        for start in range(0, len(data), size):
            self.incoming.data_received(data[start : start + size])


def delivery(tag: int, body: bytes, *, between: bytes = b"", message_id: str | None = None, **more: Any) -> bytes:
    """The frames of a delivery as RabbitMQ sends them; ``between`` them comes something of another channel."""
    given = {"redelivered": False, "exchange": "", "routing_key": "", **more}
    deliver = frame.Method(CHANNEL, spec.Basic.Deliver("ctag", tag, **given))
    frames = [deliver, frame.Header(CHANNEL, len(body), BasicProperties(message_id=message_id))]
    frames += [frame.Body(CHANNEL, body[start : start + BODY_MAX]) for start in range(0, len(body), BODY_MAX)]
    return between.join(one.marshal() for one in frames)


@st.composite
def parts(draw: st.DrawFn) -> list[tuple[bytes, dict[str, Any] | None]]:
    """Pieces of a stream: frames of pika's, or a delivery and what is in it."""
    found: list[tuple[bytes, dict[str, Any] | None]] = []
    for tag in range(draw(st.integers(0, 12))):
        if draw(st.booleans()):
            found.append((draw(st.sampled_from(OTHERS)), None))
            continue
        what = {
            "body": draw(st.binary(max_size=4 * BODY_MAX)),
            "exchange": draw(st.text(max_size=60)),
            "routing_key": draw(st.text(max_size=60)),
            "redelivered": draw(st.booleans()),
            "message_id": draw(st.none() | st.text(max_size=20)),
        }
        found.append((delivery(tag, **what), {"tag": tag, **what}))
    return found


@given(parts(), st.integers(1, 300))
@settings(deadline=None)
def test_each_gets_its_own_in_order(stream_of: list[tuple[bytes, dict[str, Any] | None]], size: int) -> None:
    stream = Stream()
    stream.feed(b"".join(data for data, _ in stream_of), size)
    expected = [what for _, what in stream_of if what]
    assert [
        {
            "tag": tag,
            "body": message.body,
            "exchange": message.exchange,
            "routing_key": message.routing_key,
            "redelivered": message.redelivered,
            "message_id": message.properties.message_id,
        }
        for tag, message in stream.taken
    ] == expected
    assert stream.pika.all == b"".join(data for data, what in stream_of if what is None)
    # What comes before a delivery is told before it, and what comes behind it, behind.
    position = before = 0
    for data, what in stream_of:
        if what:
            before += 1
            continue
        told = {taken for taken, _ in pieces(stream.pika.got, position, len(data))}
        assert told == {before}
        position += len(data)


def pieces(got: list[tuple[int, bytes]], start: int, length: int) -> list[tuple[int, bytes]]:
    """Those that hold the bytes from ``start`` on, ``length`` of them."""
    found, position = [], 0
    for taken, data in got:
        if position < start + length and start < position + len(data):
            found.append((taken, data))
        position += len(data)
    return found


def test_what_comes_between_the_frames_of_a_delivery_goes_to_pika() -> None:
    blocked = OTHERS[1]
    stream = Stream()
    stream.feed(delivery(1, b"x" * 120, between=HEARTBEAT + blocked), 7)
    assert [(tag, message.body) for tag, message in stream.taken] == [(1, b"x" * 120)]
    assert stream.pika.all == (HEARTBEAT + blocked) * 4


def test_all_that_is_whole_is_handed_over_at_once_and_in_large_pieces() -> None:
    stream = Stream()
    stream.incoming.data_received(HEARTBEAT * 1000 + delivery(1, b"a") + HEARTBEAT * 1000 + HEARTBEAT[:3])
    assert [len(data) for _, data in stream.pika.got] == [8000, 8000]
    stream.incoming.data_received(HEARTBEAT[3:])
    assert stream.pika.all == HEARTBEAT * 2001
    assert stream.heard == 2


@pytest.mark.parametrize(
    "nonsense",
    [
        b"AMQP\x00\x00\x09\x01",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x01\x00\x00\x00\x00\x00\x04abcd\x00",
        b"\x09" * 8,
    ],
    ids=["another version", "HTTP", "no end", "unknown kind"],
)
@pytest.mark.parametrize("before", [b"", HEARTBEAT], ids=["at first", "later"])
def test_what_is_not_amqp_goes_to_pika_whole(before: bytes, nonsense: bytes) -> None:
    stream = Stream()
    stream.incoming.data_received(before + nonsense)
    stream.incoming.data_received(delivery(1, b"x"))
    assert stream.pika.all == before + nonsense + delivery(1, b"x")
    assert stream.taken == []


def test_the_rest_of_the_protocol_is_pikas() -> None:
    stream = Stream()
    transport: Any = object()
    stream.incoming.connection_made(transport)
    error = OSError()
    assert stream.incoming.eof_received() is False
    stream.incoming.connection_lost(error)
    assert stream.pika.made == [transport]
    assert stream.pika.lost == [error]


def test_names_that_are_not_utf_8_do_no_harm() -> None:
    data = delivery(1, b"x", exchange="abc", routing_key="def").replace(b"\x03def", b"\x03d\xff\xfe")
    stream = Stream()
    stream.feed(data, 1000)
    [(_tag, message)] = stream.taken
    assert message.exchange == "abc"
    assert message.routing_key == "d��"


def test_a_frame_in_many_pieces_is_put_together_once() -> None:
    body = bytes(16 * 1024 * 1024)
    header = frame.Method(CHANNEL, spec.Basic.Deliver("ctag", 1, False, "", "")).marshal()
    header += frame.Header(CHANNEL, len(body), BasicProperties()).marshal()
    stream = Stream()
    began = time.process_time()
    stream.feed(header + frame.Body(CHANNEL, body).marshal(), 4096)
    # Again with each of the 4,096 pieces, it would copy 32 GiB.
    assert time.process_time() - began < 2
    assert stream.taken[0][1].body == body
