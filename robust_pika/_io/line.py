"""The Publisher's line to the broker: one connection at a time, on a thread of its own, renewed when it breaks."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable

import pika
from pika import exceptions, frame, spec
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential
from tenacity.nap import sleep_using_event

from robust_pika._io.ledger import Confirmation, Ledger
from robust_pika._io.wire import Batch, Wire
from robust_pika.connecting import connect, parameters, tls_context
from robust_pika.declaring import DeclaringChannel
from robust_pika.errors import Nacked, PublisherClosed, PublisherFailed, Refused, Returned, RobustPikaError
from robust_pika.explaining import explain
from robust_pika.settings import ConnectionSettings

log = logging.getLogger("robust_pika")

SETTLED = 5.0
"""Seconds after which a connection counts as a good one although it has confirmed nothing."""

GOODBYE = 1.0
"""Seconds that closing a connection may take."""

CONNECTION_FORCED = 320
INTERNAL_ERROR = 541
INSIDE_ATTEMPTS = 8
"""So often a message that is sent alone may meet INTERNAL_ERROR until it is taken for the cause of it (malformed
properties are): a node that comes back from a crash answers so for a while, too. The pauses make it some seconds."""


class Line:
    """Takes messages out of the ledger, sends them, and settles them there as the broker answers.

    ``wake``, ``stop`` and ``join`` are for other threads; all else happens on the I/O thread.
    """

    def __init__(
        self,
        name: str,
        settings: ConnectionSettings,
        ledger: Ledger,
        declare: Callable[[DeclaringChannel], object] | None,
    ) -> None:
        self._name = name
        self._settings = settings
        self._ledger = ledger
        self._declare = declare
        context = tls_context(settings)
        self._parameters = [parameters(name, settings, address, context) for address in settings.addresses]
        self._loop = IOLoop()
        self._wire = Wire(self._loop)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"publisher {name}", daemon=True)

        self._connection: pika.SelectConnection | None = None
        self._channel: Channel | None = None  # only while it takes messages
        self._reason: BaseException = exceptions.AMQPConnectionError()  # why the connection ended
        self._opened = False  # the connection, at least once
        self._ever_up = False
        self._useful = False  # the connection has settled something
        self._told = False  # the user knows that the connection is broken

        self._queue: deque[Confirmation] = deque()  # to be sent, or sent again
        self._unconfirmed: dict[int, Confirmation] = {}  # by delivery tag, and so in the order of sending
        self._next_tag = 1
        self._suspects = 0  # so many at the head of the queue are sent one by one: see _blame
        self._alone = False  # a suspect is in flight
        self._failed_inside = 0  # so often in a row has the broker answered a suspect with INTERNAL_ERROR

    def start(self) -> None:
        """Start the I/O thread."""
        self._thread.start()

    def wake(self) -> None:
        """There is something in the ledger's outbox."""
        self._loop.add_callback_threadsafe(self._send)

    def stop(self) -> None:
        """Disconnect and end the thread."""
        self._stopping.set()
        self._loop.add_callback_threadsafe(self._hang_up)

    def join(self) -> None:
        """Wait a moment for the end of the thread; it may be busy connecting, and ends by itself after that."""
        self._thread.join(2 * GOODBYE)

    def _run(self) -> None:
        """Connect, publish until the connection ends, and again, until stopped or without hope."""
        try:
            while not self._stopping.is_set():
                retrying = Retrying(
                    stop=self._give_up,
                    wait=wait_random_exponential(multiplier=0.1, max=5),
                    sleep=sleep_using_event(self._stopping),
                    retry=retry_if_exception(lambda error: getattr(error, "transient", False)),
                    before_sleep=self._tell_once,
                    reraise=True,
                )
                retrying(self._session)
        except RobustPikaError as failure:
            self._ledger.end(failure)
        except BaseException as error:  # whatever ends this thread, those who wait must hear of it
            self._ledger.end(PublisherFailed(f"the publisher failed: {type(error).__name__}: {error}"))
            raise
        finally:
            self._ledger.end(PublisherClosed("the publisher is closed"))
            self._loop.close()

    def _give_up(self, state: RetryCallState) -> bool:
        limit = self._settings.reconnect_timeout if self._ever_up else self._settings.connect_timeout
        return self._stopping.is_set() or (state.seconds_since_start or 0.0) >= limit

    def _tell_once(self, state: RetryCallState) -> None:
        if self._ever_up and not self._told and state.outcome is not None:
            self._tell_broken(state.outcome.exception())

    def _tell_broken(self, failure: BaseException | None) -> None:
        self._told = True
        log.warning(f"{failure}; connecting again, for {self._settings.reconnect_timeout:g} s at most")

    def _session(self) -> None:
        """One connection from its beginning to its end. Returns if it was of use, else raises why it ended."""
        began = time.monotonic()
        self._opened = self._useful = False
        try:
            self._connect()
        finally:
            self._ledger.state(up=False)
            # Sent and not confirmed: first in line for the next connection.
            self._queue.extendleft(reversed(self._unconfirmed.values()))
            self._unconfirmed.clear()
            self._alone = False
            self._channel = self._connection = None
        if self._stopping.is_set():
            return
        if isinstance(self._reason, exceptions.ConnectionBlockedTimeout):
            self._queue.clear()
            self._suspects = 0
            self._ledger.abandon(f"the broker has been in alarm for {self._settings.blocked_timeout:g} s")
        failure = explain(self._reason, self._settings)
        if not self._useful and not (self._opened and time.monotonic() - began > SETTLED):
            # It does not count: the time to reconnect goes on, and so does the back-off.
            raise failure
        self._tell_broken(failure)

    def _connect(self) -> None:
        """Try the addresses in turn; with the first that answers, stay until the connection ends."""
        if self._declare is not None:
            try:
                with connect(self._name, self._settings, deadline=0) as connection:
                    self._declare(connection.channel())
            except exceptions.AMQPError as error:
                raise explain(error, self._settings) from None
        told: BaseException | None = None
        for choice in self._parameters:
            if self._stopping.is_set():
                return
            self._connection = pika.SelectConnection(
                choice,
                on_open_callback=self._on_open,
                on_open_error_callback=self._on_closed,
                on_close_callback=self._on_closed,
                custom_ioloop=self._wire,
            )
            self._loop.start()  # until _on_closed stops it
            if self._opened:
                return
            # A refusal says more than a host that is down.
            if told is None or not getattr(explain(self._reason, self._settings), "transient", False):
                told = self._reason
        self._reason = told or self._reason

    def _hang_up(self) -> None:
        if self._connection is not None and not (self._connection.is_closed or self._connection.is_closing):
            self._connection.close()
            # The network may swallow the goodbye.
            self._loop.call_later(GOODBYE, self._loop.stop)

    def _on_open(self, connection: pika.SelectConnection) -> None:
        self._opened = True
        if self._told:
            self._told = False
            log.warning(f"connected again; unconfirmed messages that are sent again: {len(self._queue):,}")
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        connection.channel(on_open_callback=self._on_channel_open)

    def _on_closed(self, _connection: pika.SelectConnection, reason: BaseException) -> None:
        self._reason = reason
        # An operator or a node that stops says 320. What else a broker says may be over one message.
        if isinstance(reason, exceptions.ConnectionClosedByBroker) and reason.reply_code != CONNECTION_FORCED:
            inside = reason.reply_code == INTERNAL_ERROR
            self._failed_inside += self._alone and inside
            self._blame(reason, sure=self._alone and not (inside and self._failed_inside < INSIDE_ATTEMPTS))
        self._loop.stop()

    def _on_blocked(self, _connection: pika.SelectConnection, blocked: frame.Method[spec.Connection.Blocked]) -> None:
        log.warning(
            f"the broker is in alarm ({blocked.method.reason}) and takes no messages; "
            f"waiting, for {self._settings.blocked_timeout:g} s at most"
        )
        self._ledger.state(up=True, blocked=True)

    def _on_unblocked(self, _connection: pika.SelectConnection, _frame: object) -> None:
        log.warning("the broker's alarm is over; publishing goes on")
        self._ledger.state(up=True)

    def _on_channel_open(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, functools.partial(self._on_ready, channel))

    def _on_ready(self, channel: Channel, _frame: frame.Method[spec.Confirm.SelectOk]) -> None:
        self._channel = channel
        self._next_tag = 1
        self._ever_up = True
        self._ledger.state(up=True)
        self._send()

    def _on_channel_closed(self, _channel: Channel, reason: BaseException) -> None:
        self._channel = None
        # Any other reason: the connection is closing as well, and _on_closed comes next.
        if isinstance(reason, exceptions.ChannelClosedByBroker) and self._connection is not None:
            self._blame(reason, sure=True)
            self._connection.channel(on_open_callback=self._on_channel_open)

    def _blame(
        self, reason: exceptions.ChannelClosedByBroker | exceptions.ConnectionClosedByBroker, *, sure: bool
    ) -> None:
        """The broker closed the channel over one of the unconfirmed messages, and does not say over which.

        If there is only one, it is that one. If there are more, they are sent again one by one, and the next
        time we know. The innocent are delivered, perhaps twice, as when a connection breaks. For a closed
        connection, which may have other causes, one time is not enough (``sure``); for a node that failed inside,
        not even two are.
        """
        accused = list(self._unconfirmed.values())
        self._unconfirmed.clear()
        self._alone = False
        if not accused:
            return
        # One step nearer to the end of it; not so if the node may do better after a pause.
        self._useful = self._useful or sure or not self._failed_inside
        if len(accused) == 1 and sure:
            self._failed_inside = 0
            self._ledger.settle(accused, lambda message: Refused(message, reason.reply_code, reason.reply_text))
        else:
            self._suspects += len(accused)
            self._queue.extendleft(reversed(accused))

    def _send(self) -> None:
        """Send what there is to send."""
        self._queue.extend(self._ledger.take())
        channel, queue, unconfirmed = self._channel, self._queue, self._unconfirmed
        if channel is None or not channel.is_open:
            return
        batch = Batch(self._wire, channel.channel_number, channel.connection.params.frame_max)
        while queue:
            if self._suspects or self._alone:
                if unconfirmed:
                    break  # its confirm calls again
                self._alone = self._suspects > 0
                self._suspects -= self._alone
            message = queue.popleft()
            if message.done:
                continue  # abandoned meanwhile
            unconfirmed[self._next_tag] = message
            self._next_tag += 1
            batch.add(message)
        batch.flush()

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
        self._failed_inside = 0
        if isinstance(method, spec.Basic.Nack):
            self._ledger.settle(batch, lambda message: Nacked(message, "was nacked: its queue is full, perhaps"))
        else:
            self._ledger.settle(batch)
        if self._alone:
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
        if self._alone:
            self._send()
