"""A Publisher's I/O thread: one link at a time, renewed when it breaks."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

import pika
from pika import exceptions, frame, spec
from pika.channel import Channel
from tenacity import RetryCallState
from tenacity.nap import sleep_using_event

from robust_pika._io.ledger import Confirmation, Ledger
from robust_pika._io.link import Link
from robust_pika._io.quarantine import Quarantine, may_be_over_a_message
from robust_pika.connecting import backing_off, reach_amqp
from robust_pika.declaring import DeclaringChannel, declaring
from robust_pika.errors import Nacked, PublisherClosed, PublisherFailed, Refused, Returned, RobustPikaError
from robust_pika.explaining import explain
from robust_pika.hooks import Hooks
from robust_pika.settings import ConnectionSettings

SETTLED = 5.0
"""Seconds after which a connection counts as a good one although nothing was confirmed on it."""

GOODBYE = 1.0
"""Seconds that closing a connection may take."""

log = logging.getLogger("robust_pika")


class Line:
    """Takes messages out of the ledger, sends them, and settles them there as the broker answers.

    ``start``, ``wake``, ``stop`` and ``join`` are for other threads; all else happens on the I/O thread.
    """

    def __init__(
        self,
        name: str,
        settings: ConnectionSettings,
        ledger: Ledger,
        declare: Callable[[DeclaringChannel], object] | None,
        hooks: Hooks,
    ) -> None:
        self._name = name
        self._settings = settings
        self._ledger = ledger
        self._declare = declare
        self._hooks = hooks
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"publisher {name}", daemon=True)
        self._link: Link | None = None  # only while it takes messages

        self._ever_up = False
        self._useful = False  # something was settled on the present connection
        self._told = False  # the log says that the connection is broken

        self._queue: deque[Confirmation] = deque()  # to be sent, or sent again
        self._unconfirmed: dict[int, Confirmation] = {}  # by delivery tag, and so in the order of sending
        self._next_tag = 1
        self._quarantine = Quarantine()

    def start(self) -> None:
        """Start the I/O thread."""
        self._thread.start()

    def wake(self) -> None:
        """There is something in the ledger's outbox."""
        # Without a link nothing is to be done: the next one begins with a look into the outbox.
        if link := self._link:
            link.call(self._send)

    def stop(self) -> None:
        """Disconnect and end the thread."""
        self._stopping.set()
        if link := self._link:
            link.call(link.stop)

    def join(self) -> None:
        """Wait a moment for the end of the thread; while it connects it cannot end, and does so after that."""
        self._thread.join(2 * GOODBYE)

    def _run(self) -> None:
        """Connect, publish until the connection ends, and again, until stopped or without hope."""
        try:
            while not self._stopping.is_set():
                retrying = backing_off(
                    self._limit, sleep=sleep_using_event(self._stopping), before_sleep=self._tell_once
                )
                retrying(self._session)
        except RobustPikaError as failure:
            self._ledger.end(failure)
        except BaseException as error:  # whatever ends this thread, those who wait must hear of it
            self._ledger.end(PublisherFailed(f"the publisher failed: {type(error).__name__}: {error}"))
            raise
        finally:
            self._ledger.end(PublisherClosed("the publisher is closed"))

    def _limit(self) -> float:
        return self._settings.reconnect_timeout if self._ever_up else self._settings.connect_timeout

    def _tell_once(self, state: RetryCallState) -> None:
        if self._ever_up and not self._told and state.outcome is not None:
            self._tell_broken(state.outcome.exception())

    def _tell_broken(self, failure: BaseException | None) -> None:
        self._told = True
        log.warning("%s; connecting again, for %g s at most", failure, self._settings.reconnect_timeout)

    def _session(self) -> None:
        """One connection from its beginning to its end. Returns if it was of use, else raises why it ended."""
        if self._stopping.is_set():
            return
        self._useful = False
        link = reach_amqp(self._name, self._settings, lambda choice: Link(choice, consuming=False), deadline=0)
        began = time.monotonic()
        try:
            reason = self._serve(link)
        finally:
            self._link = None
            self._ledger.state(up=False)
            link.close(GOODBYE)
        if reason is None:
            return
        self._send_again(reason)
        failure = explain(reason, self._settings)
        if not self._useful and time.monotonic() - began < SETTLED:
            # It does not count: the time to reconnect goes on, and so does the back-off.
            raise failure
        self._tell_broken(failure)

    def _serve(self, link: Link) -> BaseException | None:
        """Publish until stopped (None) or until the connection ends (why)."""
        link.connection.add_on_connection_blocked_callback(self._on_blocked)
        link.connection.add_on_connection_unblocked_callback(self._on_unblocked)
        try:
            if self._declare is not None:
                self._declare(declaring(link))
            self._begin(link)
            while not self._stopping.is_set():
                link.run()
                if isinstance(link.broken, exceptions.ChannelClosedByBroker):
                    self._link = None
                    self._send_again(link.broken)
                    link.reopen()
                    self._begin(link)
                elif link.broken:
                    return link.broken
        except exceptions.AMQPError as error:
            return error
        return None

    def _begin(self, link: Link) -> None:
        """Switch confirms on for a new channel, and send what there is to send."""
        link.channel.add_on_return_callback(self._on_return)
        link.ask(self._confirm_delivery(link.channel))
        self._next_tag = 1
        if self._told:
            self._told = False
            log.warning("connected again; unconfirmed messages that are sent again: %s", f"{len(self._queue):,}")
            self._hooks.reconnected()
        self._ever_up = True
        self._link = link
        self._ledger.state(up=True)
        self._send()

    def _confirm_delivery(self, channel: Channel) -> Callable[..., None]:
        return lambda callback: channel.confirm_delivery(self._on_confirm, callback)

    def _send_again(self, reason: BaseException) -> None:
        """What was sent and is not confirmed comes first on the next channel, unless the broker refuses it."""
        accused = list(self._unconfirmed.values())
        self._unconfirmed.clear()
        if isinstance(reason, exceptions.ConnectionBlockedTimeout):
            self._queue.clear()
            self._quarantine.clear()
            self._ledger.abandon(f"the broker has been in alarm for {self._settings.blocked_timeout:g} s")
            return
        if may_be_over_a_message(reason):
            assert isinstance(reason, exceptions.ChannelClosedByBroker | exceptions.ConnectionClosedByBroker)
            guilty, forward = self._quarantine.guilty(accused, reason)
            self._useful = self._useful or forward
            if guilty is not None:
                self._ledger.settle(accused, lambda it: Refused(it, reason.reply_code, reason.reply_text))
                return
        else:
            self._quarantine.interrupt()
        self._queue.extendleft(reversed(accused))

    def _on_blocked(self, _connection: pika.SelectConnection, blocked: frame.Method[spec.Connection.Blocked]) -> None:
        log.warning(
            "the broker is in alarm (%s) and takes no messages; waiting, for %g s at most",
            blocked.method.reason,
            self._settings.blocked_timeout,
        )
        self._ledger.state(up=True, blocked=True)

    def _on_unblocked(self, _connection: pika.SelectConnection, _frame: object) -> None:
        log.warning("the broker's alarm is over; publishing goes on")
        self._ledger.state(up=True)

    def _send(self) -> None:
        """Send what there is to send."""
        self._queue.extend(self._ledger.take())
        link, queue, unconfirmed, quarantine = self._link, self._queue, self._unconfirmed, self._quarantine
        if link is None or link.broken:
            return
        first = self._next_tag
        outgoing = link.outgoing
        careful = quarantine.active
        while queue:
            if careful and not quarantine.admit(len(unconfirmed)):
                break  # its confirm calls again
            message = queue.popleft()
            if message.done:
                continue  # abandoned meanwhile
            unconfirmed[self._next_tag] = message
            self._next_tag += 1
            outgoing.add(message)
        outgoing.flush()
        self._hooks.published(self._next_tag - first)
        self._hooks.in_flight(len(unconfirmed))

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
        self._useful = True
        self._quarantine.confirmed()
        if isinstance(method, spec.Basic.Nack):
            self._ledger.settle(batch, lambda message: Nacked(message, "was nacked: its queue may be full"))
            self._hooks.nacked(len(batch))
        else:
            self._ledger.settle(batch)
            self._hooks.confirmed(len(batch))
        self._hooks.in_flight(len(unconfirmed))
        if self._quarantine.active:
            self._send()

    def _on_return(
        self, _channel: Channel, method: spec.Basic.Return, properties: pika.BasicProperties, body: bytes
    ) -> None:
        # The broker returns a message before it confirms it, and does not say which delivery tag it had. Where
        # several are alike in all of this, it makes no difference which of them we take.
        returned = (method.exchange, method.routing_key, properties.message_id, body)
        tag = next(
            (
                tag
                for tag, it in self._unconfirmed.items()
                if (it.exchange, it.routing_key, it.message_id, it.body) == returned
            ),
            None,
        )
        if tag is None:
            if self._stopping.is_set():
                return  # the ledger may have let go of the body
            raise LookupError(f"a message was returned that is not in flight: {returned[:3]}")
        message = self._unconfirmed.pop(tag)
        self._useful = True
        self._ledger.settle([message], lambda it: Returned(it, f"{method.reply_code} {method.reply_text}"))
        self._hooks.returned(1)
        if self._quarantine.active:
            self._send()
