"""What was published and what became of it: the book that the threads of a Publisher share."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import pika
from pika import spec

from robust_pika.errors import BadMessage, DeliveryError, NotConfirmed, NotDelivered, PublisherClosed, RobustPikaError

WINDOW_BYTES = 64 * 1024 * 1024
"""Most bytes of bodies that are in flight at once: a window of large messages must not fill the memory."""

FAILURES_KEPT = 10_000
"""Most failures that are kept for a flush that never comes."""


class Encoded(pika.BasicProperties):
    """Properties as they are now: the caller may change its own, and use them again, before we come to send.

    Raises BadMessage if AMQP cannot carry them.
    """

    def __init__(self, properties: pika.BasicProperties) -> None:
        # Not super().__init__: pika asks for nothing but encode(), and this is done for every message.
        name = properties.message_id
        self.message_id = name.decode() if isinstance(name, bytes) else name
        try:
            self.encoded: bytes = b"".join(properties.encode())
        except Exception as error:  # pika raises assertions, struct errors and its own, depending on the field
            raise BadMessage(f"the message's properties cannot be encoded: {error or type(error).__name__}") from None
        # They must fit into one frame, with some bytes around them.
        if len(self.encoded) > spec.FRAME_MAX_SIZE - 100:
            raise BadMessage(
                f"the message's properties have {len(self.encoded):,} bytes; AMQP allows {spec.FRAME_MAX_SIZE - 100:,}"
            )

    def encode(self) -> list[bytes]:
        """What pika puts into the message's header frame."""
        return [self.encoded]


class Confirmation:
    """What the broker will say about one published message: ``done``, and then ``error`` or None."""

    # Thousands exist at once: slots keep them small, and none has a lock of its own.
    __slots__ = (
        "_ledger", "body", "done", "error", "exchange", "mandatory", "message_id", "properties", "routing_key",
    )  # fmt: skip

    def __init__(
        self,
        ledger: Ledger,
        exchange: str,
        routing_key: str,
        *,
        body: bytes,
        properties: Encoded,
        mandatory: bool,
    ) -> None:
        self._ledger = ledger
        self.exchange = exchange
        self.routing_key = routing_key
        self.body = body
        self.properties = properties
        self.mandatory = mandatory
        self.message_id: str | None = properties.message_id
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
        self._ledger.wait_for(self, timeout)


class Ledger:
    """The messages in flight and the failures that nobody has seen; every method may be called from any thread.

    ``window`` is the most messages that may be in flight. A wait without a timeout of its own lasts ``timeout``
    seconds from when the broker last settled anything, or ``blocked_timeout`` while it is in alarm. While the
    connection is down it lasts until the I/O thread, which has a deadline, has settled everything.
    """

    def __init__(self, *, window: int, timeout: float, blocked_timeout: float) -> None:
        self._window = window
        self._timeout = timeout
        self._blocked_timeout = blocked_timeout
        # Its lock guards all that follows; it is told of every change.
        self._changed = threading.Condition()
        self._pending: dict[Confirmation, None] = {}  # accepted and not settled, oldest first
        self._pending_bytes = 0
        self._outbox: deque[Confirmation] = deque()  # accepted, and not yet taken by the I/O thread
        self._woken = False  # the I/O thread has been told to look into the outbox
        self._failures: dict[Confirmation, NotDelivered] = {}  # not seen by anybody
        self._failures_unlisted = 0
        self._up = False
        self._blocked = False
        self._progress = 0.0  # when anything was settled last, or the connection came up
        self._closed = False
        self._ended: RobustPikaError | None = None

    # For the publishing threads.

    def accept(self, message: Confirmation, wake: Callable[[], None]) -> None:
        """Put a message into the outbox, when there is room for it; ``wake`` tells the I/O thread if need be."""
        with self._changed:
            # The first three are what usable() asks; spelled out because this is done for every message.
            if (
                len(self._pending) >= self._window
                or self._pending_bytes + len(message.body) > WINDOW_BYTES
                or self._blocked
                or self._closed
                or self._ended
            ):
                self._wait_for_room(message)
            self._outbox.append(message)
            self._pending[message] = None
            self._pending_bytes += len(message.body)
            if not self._woken:
                # Under the lock: the I/O thread must not take the outbox before we note that it was told.
                wake()
                self._woken = True

    def wait_for(self, message: Confirmation, timeout: float | None) -> None:
        """Wait until the message is settled; raise its error."""
        if not message.done:
            with self._changed:
                if not self._wait_until(lambda: message.done, timeout):
                    if timeout is None and self._blocked:
                        why = f"the broker has been in alarm for {self._blocked_timeout:g} s"
                        raise NotConfirmed(message, f"is not confirmed: {why}")
                    limit = self._timeout if timeout is None else timeout
                    raise NotConfirmed(message, f"is not confirmed after {limit:g} s")
        if message.error:
            with self._changed:
                self._failures.pop(message, None)
            raise message.error

    def wait_for_all(self, timeout: float | None) -> list[Confirmation]:
        """Wait for the messages that are in flight now; returns those that still are at the end."""
        with self._changed:
            waiting = list(reversed(self._pending))

            def all_done() -> bool:
                while waiting and waiting[-1].done:
                    waiting.pop()
                return not waiting

            self._wait_until(all_done, timeout)
            return [message for message in reversed(waiting) if not message.done]

    def wait_until_up(self) -> None:
        """Wait until the connection is up for the first time; raise why it will not be."""
        with self._changed:
            self._changed.wait_for(lambda: self._up or self._ended)
            if self._ended:
                raise self._ended

    def close(self) -> bool:
        """Accept no more messages; whether we did before."""
        with self._changed:
            open_before = not self._closed
            self._closed = True
            self._changed.notify_all()
            return open_before

    def raise_failures(self, late: Sequence[NotConfirmed] = ()) -> None:
        """Raise a DeliveryError with the failures that nobody has seen, and these; none: return."""
        with self._changed:
            failures = [*self._failures.values(), *late]
            unlisted = self._failures_unlisted
            self._failures.clear()
            self._failures_unlisted = 0
        if failures:
            raise DeliveryError(failures, unlisted)

    def _wait_for_room(self, message: Confirmation) -> None:
        def usable() -> bool:
            if self._closed:
                raise PublisherClosed(f"{message} was not sent: the publisher is closed")
            if self._ended:
                raise NotConfirmed(message, f"was not sent: {self._ended}")
            return (
                not self._blocked
                and len(self._pending) < self._window
                # A message that is larger than the limit itself goes alone.
                and (self._pending_bytes + len(message.body) <= WINDOW_BYTES or not self._pending)
            )

        if not self._wait_until(usable):
            full = f"{len(self._pending):,} before it are not confirmed"
            raise NotConfirmed(message, f"was not sent: {'the broker is in alarm' if self._blocked else full}")

    def _wait_until(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait, with the lock held; whether it became true in time."""
        start = time.monotonic()
        while not ready():
            left: float | None = None
            if timeout is not None:
                left = start + timeout - time.monotonic()
            elif self._blocked:
                left = start + self._blocked_timeout - time.monotonic()
            elif self._up:
                left = max(start, self._progress) + self._timeout - time.monotonic()
            if left is not None and left <= 0:
                return False
            self._changed.wait(left)
        return True

    # For the I/O thread.

    def take(self) -> list[Confirmation]:
        """Empty the outbox."""
        with self._changed:
            self._woken = False
            batch = list(self._outbox)
            self._outbox.clear()
        return batch

    def settle(self, batch: Iterable[Confirmation], why: Callable[[Confirmation], NotDelivered] | None = None) -> None:
        """The fate of these messages is known; ``why`` makes the error of one that failed."""
        with self._changed:
            for message in batch:
                if message.done:
                    continue  # end() was faster
                del self._pending[message]
                self._pending_bytes -= len(message.body)
                message.body = b""  # the caller may keep a million of these
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
        """Settle everything that is in flight as not confirmed."""
        with self._changed:
            self._outbox.clear()
            self.settle(list(self._pending), lambda message: NotConfirmed(message, f"is not confirmed: {why}"))

    def end(self, failure: RobustPikaError) -> None:
        """No message will be sent any more, for this reason (the first that is given counts)."""
        with self._changed:
            self._ended = self._ended or failure
            self.abandon(str(self._ended))
