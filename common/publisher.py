"""Publishing so that nothing is lost silently: confirmed by the broker, pipelined, from any number of threads."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

import pika
from pika import exceptions, frame, spec
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential
from tenacity.nap import sleep_using_event

from common import console
from common.config import Settings
from common.connection import connect, explain, parameters
from common.errors import BadMessage, ExitCode, Failure
from common.messages import MAX_BODY_BYTES

WINDOW_BYTES = 64 * 1024 * 1024
"""Bodies in flight, in bytes: a window of large messages must not fill the memory."""

CONFIRMED_BY_NOW = 5.0
"""Seconds after which a connection counts as a healthy one although it confirmed nothing."""

FAILURES_KEPT = 10_000


class NotDelivered(Failure):
    """One message that was not delivered; ``exchange``, ``routing_key`` and ``message_id`` tell which."""

    exit_code = ExitCode.NOT_CONFIRMED

    def __init__(self, message: Confirmation, why: str) -> None:
        super().__init__(f"{message} {why}")
        self.exchange = message.exchange
        self.routing_key = message.routing_key
        self.message_id = message.message_id


class Returned(NotDelivered):
    """No queue takes the message (it was mandatory); ``reply_text`` is the broker's reason."""

    exit_code = ExitCode.UNROUTABLE

    def __init__(self, message: Confirmation, reply_text: str) -> None:
        super().__init__(message, f"was returned: no queue takes it ({reply_text})")
        self.reply_text = reply_text


class Nacked(NotDelivered):
    """The broker took no responsibility for the message: a queue is full or lost its leader. Try again later."""


class NotConfirmed(NotDelivered):
    """The broker did not say: the message may or may not have arrived."""


class Refused(NotDelivered):
    """The broker closed the channel over this message: no such exchange, no permission, a limit of its own."""

    def __init__(self, message: Confirmation, reply_code: int, reply_text: str) -> None:
        super().__init__(message, f"was refused: {reply_code} {reply_text}")
        self.reply_code = reply_code
        self.reply_text = reply_text
        known = {403: ExitCode.ACCESS, 404: ExitCode.UNROUTABLE, 406: ExitCode.DATA}
        self.exit_code = known.get(reply_code, ExitCode.PROTOCOL)


class DeliveryError(Failure):
    """What ``flush`` and ``close`` raise: ``failures`` has one NotDelivered for each message, oldest first.

    ``unlisted`` counts further ones, forgotten because nobody asked for a very long time.
    """

    def __init__(self, failures: Sequence[NotDelivered], unlisted: int = 0) -> None:
        count = len(failures) + unlisted
        kinds = ", ".join(sorted({type(failure).__name__ for failure in failures}))
        super().__init__(str(failures[0]) if count == 1 else f"{count:,} messages ({kinds}); the first: {failures[0]}")
        self.failures = tuple(failures)
        self.unlisted = unlisted
        self.exit_code = failures[0].exit_code


class PublisherClosed(Failure):
    """The publisher was closed before, or belongs to the process that this one was forked from."""


class Confirmation:
    """What the broker will say about one published message."""

    # Many exist at once: slots keep them small, and none has a lock of its own.
    __slots__ = (
        "_publisher", "body", "done", "error", "exchange", "mandatory", "message_id", "properties", "routing_key",
    )  # fmt: skip

    def __init__(
        self,
        publisher: Publisher,
        exchange: str,
        routing_key: str,
        *,
        body: bytes,
        properties: _Encoded,
        mandatory: bool,
    ) -> None:
        self._publisher = publisher
        self.exchange = exchange
        self.routing_key = routing_key
        self.body = body
        self.properties = properties
        self.mandatory = mandatory
        self.message_id = properties.message_id
        self.done = False
        self.error: NotDelivered | None = None

    def __str__(self) -> str:
        name = f"message {self.message_id}" if self.message_id else "a message"
        if not self.exchange:
            return f"{name} for queue {self.routing_key!r}"
        return f"{name} for exchange {self.exchange!r}, routing key {self.routing_key!r},"

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the broker has confirmed the message, ``timeout`` seconds at most.

        Without a timeout, the publisher's own rules bound the wait (see Publisher). Raises Returned, Nacked,
        Refused, or NotConfirmed, the last also when the time is up; the message is then still in flight.
        """
        self._publisher.wait(self, timeout)


class _Encoded(pika.BasicProperties):
    """Properties as they are now: the caller may change its own and use them again before we come to send."""

    def __init__(self, properties: pika.BasicProperties) -> None:
        # Not super().__init__: pika asks for nothing but encode(), and this is done once a message.
        self.message_id = properties.message_id
        try:
            self.encoded: bytes = b"".join(properties.encode())  # type: ignore[no-untyped-call]
        except Exception as error:  # pika raises assertions, struct errors and its own, depending on the field
            raise BadMessage(f"the message's properties cannot be encoded: {error or type(error).__name__}") from None
        if len(self.encoded) > spec.FRAME_MAX_SIZE - 100:
            raise BadMessage(
                f"the message's properties have {len(self.encoded):,} bytes; RabbitMQ accepts {spec.FRAME_MAX_SIZE:,}"
            )

    def encode(self) -> list[bytes]:
        return [self.encoded]


class Publisher:
    """Publishes with confirms, many messages in flight at once. Safe to use from several threads.

        with Publisher("send", settings) as publisher:
            publisher.publish("", "tasks", b"resize picture 7", messages.properties())

    **At least once.** When the connection breaks, the publisher connects again and sends again whatever was not
    confirmed, so a message may arrive twice, never not at all; consumers tell by ``message_id``. Messages of one
    thread keep their order as long as nothing breaks.

    **No failure is silent.** What the broker returns, nacks, refuses or does not confirm is raised by
    ``Confirmation.wait()``, or else by the next ``flush()`` or by the end of the ``with`` block.

    **Bounded.** At most ``window`` messages (and 64 MiB of bodies) are unconfirmed; ``publish`` waits for room.
    While the connection is down, all waits go on for ``settings.reconnect_timeout`` seconds; while the broker is
    in alarm (out of memory or disk), ``settings.blocked_timeout``; otherwise ``timeout`` seconds since the
    broker last confirmed anything.

    ``declare`` gets a channel on which it may declare exchanges and queues; it is called before the first message
    and again after every reconnect. The constructor connects, and raises a readable Failure if it cannot.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        declare: Callable[[BlockingChannel], object] | None = None,
        window: int = 1000,
        timeout: float = 30.0,
    ) -> None:
        if window < 1:
            raise ValueError("window must be at least 1")
        self._settings = settings
        self._window = window
        self._timeout = timeout
        self._process = os.getpid()
        persistent = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)  # type: ignore[no-untyped-call]
        self._default_properties = _Encoded(persistent)

        # Shared by all threads, guarded by this condition's lock, which is told of every change.
        self._changed = threading.Condition()
        self._pending: dict[Confirmation, None] = {}  # accepted and not settled, oldest first
        self._pending_bytes = 0
        self._outbox: deque[Confirmation] = deque()  # accepted, and not yet seen by the I/O thread
        self._woken = False  # the I/O thread has been told to look into the outbox
        self._failures: dict[Confirmation, NotDelivered] = {}  # not seen by anybody yet
        self._failures_unlisted = 0
        self._up = False
        self._blocked = False
        self._progress = 0.0  # when the broker last confirmed something, or came up
        self._closed = False
        self._ended: Failure | None = None

        self._line = _Line(self, name, settings, declare)
        self._thread = threading.Thread(target=self._line.run, name=f"publisher {name}", daemon=True)
        self._thread.start()
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._up or self._ended)
        except BaseException:
            self._line.stop()
            raise
        if self._ended:
            raise self._ended

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        try:
            # Ctrl-C should not take long.
            self.close(min(self._timeout, 5.0))
        except Failure as failure:
            # The error that is on its way matters more, but this one must not get lost.
            if failure is not error and error not in getattr(failure, "failures", ()):
                console.warn(str(failure))

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: pika.BasicProperties | None = None,
        *,
        mandatory: bool = True,
    ) -> Confirmation:
        """Send a message and return at once, unless the window is full or the broker is in alarm.

        Without ``properties`` the message is persistent and has no other. Not ``mandatory``: a message that no
        queue takes is dropped, and confirmed. Raises BadMessage for what AMQP or RabbitMQ cannot carry,
        NotConfirmed if there was no room in time or no way to reconnect (the message was not sent), PublisherClosed.
        """
        encoded = self._default_properties if properties is None else _Encoded(properties)
        _check(exchange, routing_key, body)
        message = Confirmation(
            self, exchange, routing_key, body=bytes(body), properties=encoded, mandatory=mandatory
        )
        size = len(body)
        with self._changed:
            # Fast path first: this is done for every message.
            if (
                len(self._pending) >= self._window
                or self._blocked
                or self._pending_bytes + size > WINDOW_BYTES
                or self._closed
                or self._ended
                or os.getpid() != self._process
            ):
                self._wait_for_room(message)
            self._outbox.append(message)
            self._pending[message] = None
            self._pending_bytes += size
            if not self._woken:
                # Under the lock, so that the I/O thread cannot have looked before we say that it was told.
                self._line.wake()
                self._woken = True
        return message

    def flush(self, timeout: float | None = None) -> None:
        """Wait for all messages published before this call, ``timeout`` seconds at most.

        Raises DeliveryError with every failure that nobody has seen through ``Confirmation.wait()`` or an
        earlier flush, and with a NotConfirmed for each message that is still in flight when the time is up.
        """
        self._check_process()
        late = self._drain(timeout)
        self._raise_failures([NotConfirmed(message, "is not confirmed yet") for message in late])

    def close(self, timeout: float | None = None) -> None:
        """Refuse new messages, wait as ``flush`` does, and disconnect. Raises what flush raises.

        A message that is not confirmed when the time is up fails with NotConfirmed. To close again does nothing.
        """
        self._check_process()
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        try:
            self._drain(timeout)
        finally:
            self.end(PublisherClosed("the publisher was closed before the broker confirmed it"))
            self._line.stop()
            # It has nothing left to do but say goodbye; if the network swallows that, let it.
            self._thread.join(1.0)
        self._raise_failures([])

    def wait(self, message: Confirmation, timeout: float | None = None) -> None:
        """``Confirmation.wait``."""
        if not message.done:
            self._check_process()
            with self._changed:
                if not self._wait_until(lambda: message.done, timeout):
                    limit = self._timeout if timeout is None else timeout
                    raise NotConfirmed(message, f"is not confirmed after {limit:g} s")
        if message.error:
            with self._changed:
                self._failures.pop(message, None)
            raise message.error

    def _wait_for_room(self, message: Confirmation) -> None:
        def usable() -> bool:
            if self._closed:
                raise PublisherClosed(f"{message} was not sent: the publisher is closed")
            if self._ended:
                raise NotConfirmed(message, f"was not sent: {self._ended}")
            return (
                not self._blocked
                and len(self._pending) < self._window
                # One message that is larger than the limit itself goes alone.
                and (self._pending_bytes + len(message.body) <= WINDOW_BYTES or not self._pending)
            )

        self._check_process()
        if not self._wait_until(usable):
            raise NotConfirmed(message, f"was not sent: {len(self._pending)} before it are not confirmed")

    def _wait_until(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait, with the lock held, and say whether it became true in time."""
        start = time.monotonic()
        while not ready():
            left: float | None = None
            if timeout is not None:
                left = start + timeout - time.monotonic()
            elif self._blocked:
                left = start + self._settings.blocked_timeout - time.monotonic()
            elif self._up:
                left = max(start, self._progress) + self._timeout - time.monotonic()
            # Otherwise it is down: the I/O thread gives up in time, settles everything and tells us.
            if left is not None and left <= 0:
                return False
            self._changed.wait(left)
        return True

    def _drain(self, timeout: float | None) -> list[Confirmation]:
        """Wait for what is pending now; return what is still pending at the end."""
        with self._changed:
            waiting = list(reversed(self._pending))

            def all_done() -> bool:
                while waiting and waiting[-1].done:
                    waiting.pop()
                return not waiting

            self._wait_until(all_done, timeout)
            return [message for message in reversed(waiting) if not message.done]

    def _raise_failures(self, late: list[NotConfirmed]) -> None:
        with self._changed:
            failures = [*self._failures.values(), *late]
            unlisted = self._failures_unlisted
            self._failures.clear()
            self._failures_unlisted = 0
        if failures:
            raise DeliveryError(failures, unlisted)

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise PublisherClosed("this publisher belongs to the parent process; make a new one after the fork")

    # What follows is called by the I/O thread.

    def take(self) -> list[Confirmation]:
        """The messages that were published since the last call."""
        with self._changed:
            self._woken = False
            batch = list(self._outbox)
            self._outbox.clear()
        return batch

    def settle(self, batch: Iterable[Confirmation], why: Callable[[Confirmation], NotDelivered] | None = None) -> None:
        """The fate of these messages is known; ``why`` makes the error of one that failed."""
        with self._changed:
            for message in batch:
                # Nothing but us takes messages out, unless end() was faster.
                if message.done:
                    continue
                del self._pending[message]
                self._pending_bytes -= len(message.body)
                message.body = b""  # callers may keep a million of these
                if why is not None:
                    message.error = why(message)
                    if len(self._failures) < FAILURES_KEPT:
                        self._failures[message] = message.error
                    else:
                        self._failures_unlisted += 1
                message.done = True
            self._progress = time.monotonic()
            self._changed.notify_all()

    def state(self, *, up: bool, blocked: bool = False) -> None:
        """The connection is up or down; the broker is in alarm or not."""
        with self._changed:
            self._up, self._blocked = up, blocked
            self._progress = time.monotonic()
            self._changed.notify_all()

    def abandon(self, why: str) -> None:
        """Settle everything that is pending as not confirmed."""
        with self._changed:
            self._outbox.clear()
            self.settle(list(self._pending), lambda message: NotConfirmed(message, why))

    def end(self, failure: Failure) -> None:
        """No message will be sent any more, for this reason."""
        with self._changed:
            self._ended = self._ended or failure
            self.abandon(f"is not confirmed: {self._ended}")


class _Line:
    """The line to the broker: one connection at a time, on the I/O thread, which alone calls what is in here."""

    def __init__(
        self, publisher: Publisher, name: str, settings: Settings, declare: Callable[[BlockingChannel], object] | None
    ) -> None:
        self._publisher = publisher
        self._name = name
        self._settings = settings
        self._declare = declare
        self._parameters = parameters(name, settings)
        self._loop = IOLoop()
        self._stopping = threading.Event()
        self._connection: pika.SelectConnection | None = None
        self._channel: Channel | None = None  # only while it takes messages
        self._opened = False
        self._ever_up = False
        self._healthy = False  # the present connection has confirmed something
        self._reason: BaseException | None = None
        self._next_tag = 1
        self._unconfirmed: dict[int, Confirmation] = {}  # by delivery tag, so in the order of sending
        self._queue: deque[Confirmation] = deque()  # to be sent, or sent again
        self._suspects = 0  # that many at the head of the queue go one by one

    # These two are for the other threads.

    def wake(self) -> None:
        """There is something in the outbox."""
        self._loop.add_callback_threadsafe(self._send)

    def stop(self) -> None:
        """Disconnect and end the thread."""
        self._stopping.set()
        self._loop.add_callback_threadsafe(self._hang_up)

    def run(self) -> None:
        """The I/O thread: connect, publish, and again, until stopped or without hope."""
        try:
            while not self._stopping.is_set():
                retrying = Retrying(
                    stop=self._give_up,
                    wait=wait_random_exponential(multiplier=0.1, max=5),
                    sleep=sleep_using_event(self._stopping),
                    retry=retry_if_exception(lambda error: getattr(error, "transient", False)),
                    reraise=True,
                )
                retrying(self._session)
        except Failure as failure:
            self._publisher.end(failure)
        except BaseException as error:  # whatever ends this thread, those who wait must hear of it
            self._publisher.end(Failure(f"the publisher failed: {type(error).__name__}: {error}"))
            raise
        finally:
            self._publisher.end(PublisherClosed("the publisher is closed"))
            self._loop.close()

    def _give_up(self, state: RetryCallState) -> bool:
        limit = self._settings.reconnect_timeout if self._ever_up else self._settings.connect_timeout
        return self._stopping.is_set() or (state.seconds_since_start or 0.0) >= limit

    def _session(self) -> None:
        """One connection from beginning to end. Returns if it was of use, raises why if it was not."""
        began = time.monotonic()
        try:
            self._connect()
        finally:
            self._publisher.state(up=False)
            # Sent and not confirmed: first in line for the next connection.
            self._queue.extendleft(reversed(self._unconfirmed.values()))
            self._unconfirmed.clear()
            self._channel = self._connection = None
        failure = self._reason and explain(self._reason, self._settings)
        if self._stopping.is_set() or failure is None:
            return
        if isinstance(self._reason, exceptions.ConnectionBlockedTimeout):
            self._queue.clear()
            self._publisher.abandon(f"is not confirmed: the broker's alarm lasted {self._settings.blocked_timeout:g} s")
        if not (self._healthy or (self._opened and time.monotonic() - began > CONFIRMED_BY_NOW)):
            raise failure
        console.warn(f"{failure}; connecting again, for {self._settings.reconnect_timeout:g} s at most")

    def _connect(self) -> None:
        """Try the addresses in turn; with the first that answers, stay until the connection ends."""
        if self._declare is not None:
            try:
                with connect(self._name, self._settings, deadline=0) as connection:
                    self._declare(connection.channel())
            except exceptions.AMQPError as error:
                raise explain(error, self._settings) from None
        self._opened = self._healthy = False
        told: BaseException | None = None
        for choice in self._parameters:
            if self._stopping.is_set():
                return
            self._connection = pika.SelectConnection(
                choice,
                on_open_callback=self._on_open,
                on_open_error_callback=self._on_closed,
                on_close_callback=self._on_closed,
                custom_ioloop=self._loop,
            )
            self._loop.start()
            if self._opened:
                return
            # A refusal says more than a host that is down.
            reason = self._reason or exceptions.AMQPConnectionError()
            if told is None or not getattr(explain(reason, self._settings), "transient", False):
                told = reason
        self._reason = told

    def _hang_up(self) -> None:
        if self._connection is not None and not (self._connection.is_closed or self._connection.is_closing):
            self._connection.close()

    def _on_open(self, connection: pika.SelectConnection) -> None:
        self._opened = True
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        connection.channel(on_open_callback=self._on_channel_open)

    def _on_closed(self, _connection: pika.SelectConnection, reason: BaseException) -> None:
        self._reason = reason
        if isinstance(reason, exceptions.ConnectionClosedByBroker) and reason.reply_code != 320:
            # 320 is an operator or a node that stops. Anything else may be the fault of one message.
            self._blame(reason.reply_code, reason.reply_text)
        self._loop.stop()

    def _on_channel_open(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, functools.partial(self._on_ready, channel))

    def _on_ready(self, channel: Channel, _frame: frame.Method[spec.Confirm.SelectOk]) -> None:
        if self._ever_up and not self._healthy and self._queue:
            console.warn(f"connected; sending {len(self._queue):,} unconfirmed messages again")
        self._channel = channel
        self._next_tag = 1
        self._ever_up = True
        self._publisher.state(up=True)
        self._send()

    def _on_channel_closed(self, _channel: Channel, reason: BaseException) -> None:
        self._channel = None
        # Otherwise the whole connection is closing, and _on_closed comes next.
        if isinstance(reason, exceptions.ChannelClosedByBroker) and self._connection is not None:
            self._blame(reason.reply_code, reason.reply_text)
            self._connection.channel(on_open_callback=self._on_channel_open)

    def _blame(self, reply_code: int, reply_text: str) -> None:
        """The broker closed the channel over one of the unconfirmed messages, and does not say over which.

        If there is only one, it is that one. If there are more, they are sent again one by one, and the next
        time we know. The innocent are delivered, twice perhaps, as at every broken connection.
        """
        accused = list(self._unconfirmed.values())
        self._unconfirmed.clear()
        if len(accused) == 1:
            self._healthy = True
            self._publisher.settle(accused, lambda message: Refused(message, reply_code, reply_text))
        else:
            self._suspects += len(accused)
            self._queue.extendleft(reversed(accused))

    def _send(self) -> None:
        """Send what there is to send."""
        self._queue.extend(self._publisher.take())
        channel, queue, unconfirmed = self._channel, self._queue, self._unconfirmed
        if channel is None or not channel.is_open:
            return
        while queue:
            if self._suspects:
                if unconfirmed:
                    return  # _on_confirm calls again
                self._suspects -= 1
            message = queue.popleft()
            if message.done:
                continue  # abandoned meanwhile
            unconfirmed[self._next_tag] = message
            self._next_tag += 1
            channel.basic_publish(
                message.exchange, message.routing_key, message.body, message.properties, message.mandatory
            )

    def _on_confirm(self, confirm: frame.Method[spec.Basic.Ack | spec.Basic.Nack]) -> None:
        method, unconfirmed = confirm.method, self._unconfirmed
        tags = [method.delivery_tag]
        if method.multiple:
            tags = []
            for tag in unconfirmed:
                if tag > method.delivery_tag:
                    break
                tags.append(tag)
        # A returned message is not here any more.
        batch = [unconfirmed.pop(tag) for tag in tags if tag in unconfirmed]
        self._healthy = True
        if isinstance(method, spec.Basic.Nack):
            self._publisher.settle(batch, lambda message: Nacked(message, "was nacked: a queue did not take it"))
        else:
            self._publisher.settle(batch)
        if self._suspects:
            self._send()

    def _on_return(
        self, _channel: Channel, method: spec.Basic.Return, properties: pika.BasicProperties, body: bytes
    ) -> None:
        # The broker returns a message before it confirms it, and does not say its delivery tag. If several are
        # alike in all of this, it makes no difference which of them is blamed.
        told = (method.exchange, method.routing_key, properties.message_id, body)
        for tag, message in self._unconfirmed.items():
            if (message.exchange, message.routing_key, message.message_id, message.body) == told:
                del self._unconfirmed[tag]
                self._healthy = True
                self._publisher.settle([message], lambda it: Returned(it, f"{method.reply_code} {method.reply_text}"))
                break
        if self._suspects:
            self._send()

    def _on_blocked(self, _connection: pika.SelectConnection, blocked: frame.Method[spec.Connection.Blocked]) -> None:
        console.warn(
            f"the broker is in alarm ({blocked.method.reason}) and takes no messages; "
            f"waiting, {self._settings.blocked_timeout:g} s at most"
        )
        self._publisher.state(up=True, blocked=True)

    def _on_unblocked(self, _connection: pika.SelectConnection, _frame: object) -> None:
        console.warn("the broker's alarm is over; publishing goes on")
        self._publisher.state(up=True)


def _check(exchange: str, routing_key: str, body: bytes) -> None:
    if not isinstance(body, (bytes, bytearray, memoryview)):
        raise TypeError(f"body must be bytes, not {type(body).__name__}; see common.messages.encode_text")
    if len(body) > MAX_BODY_BYTES:
        raise BadMessage(
            f"the body has {len(body):,} bytes, more than the {MAX_BODY_BYTES:,} that RabbitMQ accepts; "
            "store large data elsewhere and send where it is"
        )
    for what, name in (("exchange's name", exchange), ("routing key", routing_key)):
        # UTF-8 has at most 4 bytes a character, so most need no encoding to be known as short enough.
        if len(name) > 63:
            size = len(name.encode("utf-8", "replace"))
            if size > 255:
                raise BadMessage(f"the {what} has {size} bytes; AMQP allows 255")
