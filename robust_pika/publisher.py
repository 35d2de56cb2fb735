"""Publishing so that nothing is lost silently: confirmed by the broker, pipelined, from any number of threads."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from types import TracebackType

import pika

from robust_pika._io.ledger import Confirmation, Encoded, Ledger
from robust_pika._io.line import Line
from robust_pika.declaring import DeclaringChannel
from robust_pika.errors import BadMessage, NotConfirmed, PublisherClosed, RobustPikaError
from robust_pika.hooks import Hooks
from robust_pika.messages import MAX_BODY_BYTES, check_name
from robust_pika.settings import ConnectionSettings

log = logging.getLogger("robust_pika")


__all__ = ["Confirmation", "Publisher"]


class Publisher:
    """Publishes with confirms, many messages in flight at once. Safe to use from several threads.

        with Publisher("send", settings) as publisher:
            publisher.publish("", "tasks", b"resize picture 7", messages.properties())

    **At least once.** When the connection breaks, the publisher connects again and sends again whatever was not
    confirmed. So a message may arrive twice, which consumers can tell by its ``message_id``. The messages of one
    thread keep their order as long as nothing breaks.

    **No failure is silent.** What the broker returns, nacks, refuses or does not confirm is raised by
    ``Confirmation.wait()``, or else by the next ``flush()`` or by the end of the ``with`` block.

    **Bounded.** At most ``window`` messages (and 64 MiB of bodies) are unconfirmed; ``publish`` waits for room.
    While the connection is down, a wait lasts for ``settings.reconnect_timeout`` seconds; while the broker is in
    alarm (short of memory or disk), ``settings.blocked_timeout``; otherwise ``timeout`` seconds since the broker
    last confirmed anything.

    ``declare`` gets a channel on which it may declare exchanges and queues; it is called before the first message
    and again after every reconnect. The constructor connects, and raises a readable Failure if it cannot.
    """

    def __init__(
        self,
        name: str,
        settings: ConnectionSettings,
        *,
        declare: Callable[[DeclaringChannel], object] | None = None,
        window: int = 1000,
        timeout: float = 30.0,
        hooks: Hooks | None = None,
    ) -> None:
        if window < 1:
            raise ValueError("window must be at least 1")
        self._process = os.getpid()
        self._timeout = timeout
        persistent = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
        self._default_properties = Encoded(persistent)
        self._ledger = Ledger(window=window, timeout=timeout, blocked_timeout=settings.blocked_timeout)
        self._line = Line(name, settings, self._ledger, declare, hooks or Hooks())
        self._line.start()
        try:
            self._ledger.wait_until_up()
        except BaseException:
            self._line.stop()
            raise

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        try:
            # Ctrl-C must not take long.
            self.close(min(self._timeout, 5.0))
        except RobustPikaError as failure:
            # The error that is on its way matters more, but what it does not say must not get lost.
            if failure is not error and str(failure) != str(error):
                log.warning(str(failure))

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

        Without ``properties`` the message is persistent, and that is all. If it is not ``mandatory`` and no queue
        takes it, it is dropped and counts as confirmed. Raises BadMessage for what AMQP or RabbitMQ cannot carry,
        NotConfirmed if there was no room in time or no way to reconnect (it was not sent), PublisherClosed.
        """
        self._check_process()
        check_name("name of the exchange", exchange)
        check_name("routing key", routing_key)
        message = Confirmation(
            self._ledger,
            exchange,
            routing_key,
            body=_checked_body(body),
            properties=self._default_properties if properties is None else Encoded(properties),
            mandatory=mandatory,
        )
        self._ledger.accept(message, self._line.wake)
        return message

    def flush(self, timeout: float | None = None) -> None:
        """Wait for all messages published before this call, ``timeout`` seconds at most.

        Raises DeliveryError with every failure that nobody has seen through ``Confirmation.wait()`` or an
        earlier flush, and with a NotConfirmed for each message that is still in flight when the time is up.
        """
        self._check_process()
        late = self._ledger.wait_for_all(timeout)
        self._ledger.raise_failures([NotConfirmed(message, "is not confirmed yet") for message in late])

    def close(self, timeout: float | None = None) -> None:
        """Refuse new messages, wait as ``flush`` does, and disconnect. Raises what flush raises.

        A message that is not confirmed when the time is up fails with NotConfirmed. To close again does nothing.
        """
        self._check_process()
        if not self._ledger.close():
            return
        try:
            self._ledger.wait_for_all(timeout)
        finally:
            self._ledger.end(PublisherClosed("the publisher was closed before that"))
            self._line.stop()
        self._line.join()
        self._ledger.raise_failures()

    def _check_process(self) -> None:
        # A forked child has our memory, locks included, but not our thread.
        if os.getpid() != self._process:
            raise PublisherClosed("this publisher belongs to the parent process; make a new one after the fork")


def _checked_body(body: bytes) -> bytes:
    if not isinstance(body, (bytes, bytearray, memoryview)):
        raise TypeError(f"body must be bytes, not {type(body).__name__}")
    # A copy of what can change, because it is sent later; bytes are not copied.
    body = bytes(body)
    if len(body) > MAX_BODY_BYTES:
        raise BadMessage(
            f"the body has {len(body):,} bytes, more than the {MAX_BODY_BYTES:,} that RabbitMQ accepts; "
            "store large data elsewhere and send where it is"
        )
    return body
