"""Deliveries on their way from the socket: taken out of the stream before pika makes objects of them.

Of each frame pika makes an object, and copies what is left of the input; a delivery is three frames and goes through
some thirty calls. What is delivered needs none of that. pika lets its user bring the I/O services, and so the protocol
that gets what the socket has read: this one keeps the deliveries, and passes on everything else as it came.

`python -m benchmarks frames` measures what that is worth: consuming is 1.6 times as fast as with pika's own deliveries
on RabbitMQ 3.10, and 1.3 times on 4.3 (November 2026, two cores, shared with the broker, which is the limit there).
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from pika import spec
from pika.adapters.utils.nbio_interface import AbstractStreamProtocol, AbstractStreamTransport

from robust_pika.messages import Message

# https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, 2.3.5 and 4.2.6, and basic.deliver in 1.8.3.
FRAME = Struct(">BHI")
OVERHEAD = FRAME.size + 1
KINDS = frozenset((spec.FRAME_METHOD, spec.FRAME_HEADER, spec.FRAME_BODY, spec.FRAME_HEARTBEAT))
DELIVER = spec.Basic.Deliver.INDEX.to_bytes(4, "big")
TAG = Struct(">QB")
BODY_SIZE = Struct(">4xQ")
HEADER = Struct(">BHI4xQ")
HEADER_FIXED = 12

Take = Callable[[int, Message], None]


class _Method:
    """The first frame of a delivery: what it says, and the bytes by which another one is recognised that differs
    in its delivery tag alone."""

    __slots__ = ("exchange", "prefix", "redelivered", "routing_key", "suffix", "tag")

    def __init__(self, data: bytes, start: int, after: int) -> None:
        _consumer, tag_at = short_string(data, start + FRAME.size + len(DELIVER))
        self.tag, redelivered = TAG.unpack_from(data, tag_at)
        self.redelivered = bool(redelivered & 1)
        self.exchange, key_at = short_string(data, tag_at + TAG.size)
        self.routing_key, _ = short_string(data, key_at)
        self.prefix = data[start:tag_at]
        self.suffix = data[tag_at + TAG.size : after]


class Incoming(AbstractStreamProtocol):
    """The stream for ``protocol``, which is pika's, less the deliveries: ``take`` gets their tags and messages.

    They may be on one channel. ``heard`` is called whenever something has come: pika, which sees only a part of it,
    would think that RabbitMQ has fallen silent.
    """

    def __init__(self, protocol: AbstractStreamProtocol, take: Take, heard: Callable[[], None]) -> None:
        self.protocol = protocol
        self._take = take
        self._heard = heard
        self._not_amqp = False
        self._pieces: list[bytes] = []  # of a frame that is not whole
        self._size = 0
        self._wanted = OVERHEAD
        self._last: _Method | None = None  # of the last delivery
        # The delivery whose frames are coming: from the method to the last piece of the body.
        self._method: _Method | None = None
        self._properties = b""
        self._body: list[bytes] = []
        self._missing = 0

    def connection_made(self, transport: AbstractStreamTransport) -> None:
        """As in pika."""
        self.protocol.connection_made(transport)

    def connection_lost(self, error: BaseException | None) -> None:
        """As in pika."""
        self.protocol.connection_lost(error)

    def eof_received(self) -> bool | None:
        """As in pika."""
        return self.protocol.eof_received()

    def data_received(self, data: bytes) -> None:
        """Take the deliveries out of ``data``, and pass on the rest."""
        self._heard()
        if self._not_amqp:
            self.protocol.data_received(data)
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size < self._wanted:
            return
        data = b"".join(self._pieces)
        others = position = 0  # where the frames begin that are pika's, and the next frame
        self._wanted = OVERHEAD
        while position + OVERHEAD <= self._size:
            kind, _channel, size = FRAME.unpack_from(data, position)
            after = position + size + OVERHEAD
            if kind not in KINDS or (after <= self._size and data[after - 1] != spec.FRAME_END):
                # pika knows what to say of that.
                self._not_amqp = True
                position = self._size
                break
            if after > self._size:
                self._wanted = size + OVERHEAD
                break
            if self._method or (kind == spec.FRAME_METHOD and data.startswith(DELIVER, position + FRAME.size)):
                # In their order: what pika is told may decide what becomes of the delivery.
                if others < position:
                    self.protocol.data_received(data[others:position])
                others = after if self._keep(kind, data, position, after) else position
                if others == after and self._method is None:
                    others = after = self._take_like_the_last(data, after)
            position = after
        if others < position:
            self.protocol.data_received(data[others:position])
        self._pieces = [data[position:]] if position < self._size else []
        self._size -= position

    def _keep(self, kind: int, data: bytes, position: int, after: int) -> bool:
        """Whether the frame between these places belongs to a delivery; the last one completes it."""
        start, end = position + FRAME.size, after - 1
        if kind == spec.FRAME_METHOD:
            if self._method:
                return False
            self._method = self._last = _Method(data, position, after)
            return True
        if kind == spec.FRAME_HEADER:
            (self._missing,) = BODY_SIZE.unpack_from(data, start)
            self._properties = data[start + HEADER_FIXED : end]
        elif kind == spec.FRAME_BODY:
            self._body.append(data[start:end])
            self._missing -= end - start
        else:
            return False  # a heartbeat in between
        if self._missing <= 0 and self._method:
            method = self._method
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._method = None
            self._body.clear()
            message = Message(body, self._properties, method.exchange, method.routing_key, method.redelivered)
            self._take(method.tag, message)
        return True

    def _take_like_the_last(self, data: bytes, position: int) -> int:
        """Take the whole deliveries that begin here and have the same key as the last one; where they end.

        Nearly all deliveries of a busy consumer are such, and the few steps here are all that each of them costs. What
        is different in any way (a body in several frames or none, a heartbeat, the end of the data) is left alone.
        """
        last = self._last
        assert last is not None
        prefix, suffix, exchange, routing_key = last.prefix, last.suffix, last.exchange, last.routing_key
        to_tag, to_header, end_of_data = len(prefix), len(prefix) + TAG.size + len(suffix), len(data)
        take = self._take
        while data.startswith(prefix, position):
            header = position + to_header
            if header + HEADER.size > end_of_data or not data.startswith(suffix, header - len(suffix)):
                break
            kind, _channel, size, body_size = HEADER.unpack_from(data, header)
            body = header + FRAME.size + size + 1 + FRAME.size
            after = body + body_size + 1
            if kind != spec.FRAME_HEADER or after > end_of_data or data[body - OVERHEAD] != spec.FRAME_END:
                break
            kind, _channel, size = FRAME.unpack_from(data, body - FRAME.size)
            if kind != spec.FRAME_BODY or size != body_size or data[after - 1] != spec.FRAME_END:
                break
            tag, redelivered = TAG.unpack_from(data, position + to_tag)
            properties = data[header + HEADER.size : body - OVERHEAD]
            message = Message(data[body : after - 1], properties, exchange, routing_key, redelivered & 1 == 1)
            take(tag, message)
            position = after
        return position


def short_string(data: bytes, start: int) -> tuple[str, int]:
    """The string whose length is the byte at ``start``, and where it ends; a foreign client's may not be UTF-8."""
    begin = start + 1
    end = begin + data[start]
    return data[begin:end].decode("utf-8", "replace"), end
