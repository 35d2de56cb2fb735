"""A connection for one thread that does the I/O itself: nothing is sent or received unless it calls ``run``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika import ConnectionParameters, SelectConnection
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel
from pika.exceptions import AMQPConnectionError

from robust_pika._io.incoming import Incoming, Take
from robust_pika._io.wire import Batch, Wire
from robust_pika.messages import Message

GOODBYE = 5.0
"""Seconds that closing a connection may take."""


class Link:
    """One connection with one channel. All that comes, callbacks included, comes while ``run`` runs.

    pika's BlockingConnection would do, but for what sending costs: it hands over the frames of a message one by one,
    and waits each time until they are gone. What is put into ``outgoing`` here goes out in one piece.

    ``consuming`` says whether deliveries will come. Raises pika's error if the connection cannot be opened.
    """

    outgoing: Batch
    """What goes out with the next ``run``, or when it is flushed inside of one."""

    def __init__(self, choice: ConnectionParameters, *, consuming: bool = True) -> None:
        self.broken: BaseException | None = None
        """Why the connection or its channel has ended."""
        self._opened: Channel | None = None
        self._take: Take | None = None
        self._stopped = True
        self._loop = IOLoop()
        self._loop.activate_poller()
        between = (lambda protocol: Incoming(protocol, self._on_delivery, self._on_data)) if consuming else None
        self._wire = Wire(self._loop, between)
        self.connection = SelectConnection(
            choice,
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_closed,
            on_close_callback=self._on_closed,
            custom_ioloop=self._wire,
        )
        self.channel = self._first_answer()

    def reopen(self) -> None:
        """Open another channel, after the broker has closed the one before. Raises pika's error."""
        self.broken = None
        self._on_open(self.connection)
        self.channel = self._first_answer()

    def run(self, seconds: float | None = None) -> None:
        """Send and receive until ``stop``, until the link is broken, or for ``seconds``."""
        if self.broken:
            return
        self.outgoing.flush()
        self._run(seconds)

    def stop(self) -> None:
        """Have ``run`` return, if it runs; for callbacks inside of it."""
        self._stopped = True

    def call(self, function: Callable[[], None]) -> None:
        """Have ``function`` called soon, while ``run`` runs; from any thread. After ``close`` nothing happens."""
        self._loop.add_callback_threadsafe(function)

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Have ``function`` called while ``run`` runs, in ``seconds``."""
        self._loop.call_later(seconds, function)

    def ask(self, method: Callable[..., object], *arguments: object, **named: object) -> Any:
        """Call a method of the channel which RabbitMQ answers; the answer. Raises pika's error if the link breaks."""
        answers: list[object] = []

        def answered(answer: object) -> None:
            answers.append(answer)
            self.stop()

        if not self.broken:
            method(*arguments, callback=answered, **named)
        while not (answers or self.broken):
            self.run()
        if not answers:
            raise self.broken or AMQPConnectionError()
        return answers[0]

    def consume(self, queue: str, take: Take, **options: object) -> str:
        """Have ``take`` called with the tag and the Message of each delivery from ``queue``; the consumer's tag.

        ``options`` are those of pika's basic_consume. There can be one consumer on a link.
        """
        self._take = take
        answer = self.ask(self.channel.basic_consume, queue, on_message_callback=_never, **options)
        return str(answer.method.consumer_tag)

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken yet."""
        transport = self._wire.transport
        return 0 if self.broken or transport is None else transport.get_write_buffer_size()

    def close(self, seconds: float = GOODBYE) -> None:
        """Close it, if it is open; waits for ``seconds`` at most."""
        if self.connection.is_open:
            if self._opened is not None:
                self.outgoing.flush()
            self.connection.close()
            self._run(seconds)
        self.broken = self.broken or AMQPConnectionError()
        self._loop.deactivate_poller()
        self._loop.close()

    def _first_answer(self) -> Channel:
        """Run until the channel is open or the link is broken; pika has time limits of its own for this."""
        self._opened = None
        self._run()
        if self._opened is None:
            self.close()
            raise self.broken or AMQPConnectionError()
        # The limit that both sides have agreed on.
        frame_max = self._opened.connection.params.frame_max
        self.outgoing = Batch(self._wire, self._opened.channel_number, frame_max)
        return self._opened

    def _run(self, seconds: float | None = None) -> None:
        timer = None if seconds is None else self._loop.call_later(max(0.0, seconds), self.stop)
        self._stopped = False
        # Not IOLoop.start(), which makes a new poller each time: a run may be short.
        while not self._stopped:
            self._loop.poll()
            self._loop.process_timeouts()
        if timer:
            self._loop.remove_timeout(timer)

    def _on_delivery(self, tag: int, message: Message) -> None:
        if self._take is not None:
            self._take(tag, message)

    def _on_data(self) -> None:
        # By this number pika's heartbeats know that RabbitMQ is there; pika itself counts only what it sees.
        self.connection.bytes_received += 1

    def _on_open(self, connection: SelectConnection) -> None:
        connection.channel(on_open_callback=self._on_channel_open)

    def _on_channel_open(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._on_channel_closed)
        self._opened = channel
        self.stop()

    def _on_channel_closed(self, _channel: Channel, reason: BaseException) -> None:
        self.broken = self.broken or reason
        # Otherwise the end of the connection is on its way, and comes next.
        if self.connection.is_open:
            self.stop()

    def _on_closed(self, _connection: SelectConnection, reason: BaseException) -> None:
        # The channel's end, if there was one before, is not why this connection ended.
        self.broken = self.broken or reason
        self.stop()


def _never(*_delivery: object) -> None:
    """What pika would call with a delivery; Incoming has taken it out of the stream before."""
    raise AssertionError("deliveries do not come this way")
