"""The bytes of robust_pika._io.wire are those that pika would send, whatever the sizes, in few pieces."""

from __future__ import annotations

import pika
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import frame, spec
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.nbio_interface import AbstractStreamProtocol, AbstractStreamTransport

from robust_pika._io.ledger import Confirmation, Encoded, Ledger
from robust_pika._io.wire import PIECE, Batch, Wire

FRAME_MAX = 8192
BODY_MAX = FRAME_MAX - 8
"""What pika puts into one frame of that size."""


class Transport(AbstractStreamTransport):
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        assert data, "pika refuses to write nothing"
        self.written.append(data)

    def abort(self) -> None:
        raise NotImplementedError

    def get_protocol(self) -> AbstractStreamProtocol:
        raise NotImplementedError

    def get_write_buffer_size(self) -> int:
        return 0


def sent(bodies: list[bytes], exchange: str = "", key: str = "queue", mandatory: bool = True) -> list[bytes]:
    """The pieces in which these bodies are written."""
    ledger = Ledger(window=1, timeout=1, blocked_timeout=1)
    loop = IOLoop()
    try:
        wire = Wire(loop)
        wire.transport = transport = Transport()
        batch = Batch(wire, 1, FRAME_MAX)
        for body in bodies:
            properties = Encoded(pika.BasicProperties(message_id="7", delivery_mode=2))
            batch.add(Confirmation(ledger, exchange, key, body=body, properties=properties, mandatory=mandatory))
        batch.flush()
        batch.flush()
    finally:
        loop.close()
    return transport.written


def expected(body: bytes, exchange: str = "", key: str = "queue", mandatory: bool = True) -> bytes:
    """What pika makes of the same message."""
    publish = spec.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)
    properties = pika.BasicProperties(message_id="7", delivery_mode=2)
    frames: list[frame.Frame] = [frame.Method(1, publish), frame.Header(1, len(body), properties)]
    frames += [frame.Body(1, body[start : start + BODY_MAX]) for start in range(0, len(body), BODY_MAX)]
    return b"".join(one.marshal() for one in frames)


@pytest.mark.parametrize("size", [0, 1, 100, BODY_MAX - 1, BODY_MAX, BODY_MAX + 1, 2 * BODY_MAX, 1024 * 1024])
def test_a_body_is_split_into_frames_as_pika_does(size: int) -> None:
    body = bytes(index % 251 for index in range(size))
    assert b"".join(sent([body])) == expected(body)


@given(
    bodies=st.lists(st.binary(max_size=3 * BODY_MAX), max_size=20),
    exchange=st.text(max_size=60),
    key=st.text(max_size=60),
    mandatory=st.booleans(),
)
@settings(deadline=None, max_examples=50)
def test_a_batch_is_what_pika_would_send(bodies: list[bytes], exchange: str, key: str, mandatory: bool) -> None:
    pieces = sent(bodies, exchange, key, mandatory)
    assert b"".join(pieces) == b"".join(expected(body, exchange, key, mandatory) for body in bodies)


def test_what_is_said_of_deliveries_is_what_pika_would_send_and_in_order() -> None:
    loop = IOLoop()
    try:
        wire = Wire(loop)
        wire.transport = transport = Transport()
        batch = Batch(wire, 7, FRAME_MAX)
        batch.ack(1)
        batch.ack(2**40, multiple=True)
        batch.reject(3, requeue=False)
        batch.reject(4, requeue=True)
        batch.give_back(5)
        batch.flush()
    finally:
        loop.close()
    said = [
        spec.Basic.Ack(1),
        spec.Basic.Ack(2**40, multiple=True),
        spec.Basic.Reject(3, requeue=False),
        spec.Basic.Reject(4, requeue=True),
        spec.Basic.Nack(5, multiple=False, requeue=True),
    ]
    assert transport.written == [b"".join(frame.Method(7, one).marshal() for one in said)]


def test_small_messages_go_together_and_no_piece_is_much_larger_than_a_socket_takes() -> None:
    assert len(sent([b"x" * 100] * 100)) == 1
    pieces = sent([b"x" * 100] * 10_000 + [b"y" * 10 * PIECE])
    assert max(map(len, pieces)) < 2 * PIECE
    assert len(pieces) < 40


def test_without_a_connection_nothing_is_written_and_nothing_is_kept() -> None:
    loop = IOLoop()
    try:
        wire = Wire(loop)
        batch = Batch(wire, 1, FRAME_MAX)
        properties = Encoded(pika.BasicProperties())
        ledger = Ledger(window=1, timeout=1, blocked_timeout=1)
        batch.add(Confirmation(ledger, "", "queue", body=b"x", properties=properties, mandatory=True))
        batch.flush()
        wire.transport = transport = Transport()
        batch.flush()
    finally:
        loop.close()
    assert transport.written == []
