"""Consuming: bounded, acknowledged after the work, recovering, stopped cleanly, and with heartbeats that never stop."""

from __future__ import annotations

import logging
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pika.exceptions import AMQPError

from robust_pika._io.grace import Grace
from robust_pika._io.handlers import HandlerThreads
from robust_pika._io.link import Link
from robust_pika._io.session import Session
from robust_pika.connecting import STEADY_SECONDS, backing_off, is_transient, reach_amqp
from robust_pika.declaring import DeclaringChannel, declaring
from robust_pika.errors import ChannelFailure, ConnectionFailure, ConsumerCancelled, NotAmqp, RobustPikaError
from robust_pika.explaining import explain
from robust_pika.hooks import Hooks
from robust_pika.messages import Message
from robust_pika.outcomes import Answer, OnError, Outcome
from robust_pika.settings import ConnectionSettings

Handler = Callable[[Message], Outcome | Answer]

log = logging.getLogger("robust_pika")


def consume(
    name: str,
    settings: ConnectionSettings,
    declare: Callable[[DeclaringChannel], str],
    handler: Handler,
    *,
    prefetch: int | None = None,
    threads: int = 1,
    on_error: OnError = OnError.REQUEUE,
    in_order: bool = False,
    exclusive: bool = False,
    arguments: dict[str, Any] | None = None,
    on_ready: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
    grace: float = 30.0,
    hooks: Hooks | None = None,
) -> None:
    """Call ``handler`` with each message of a queue until a stop is asked for. Delivery is at-least-once.

    ``declare(channel)`` declares what is needed and returns the queue's name. It is run again, followed by
    ``on_ready(queue)``, each time that a broken connection, a closed channel or a cancelled consumer was replaced;
    that is tried for ``settings.reconnect_timeout`` seconds (the first time: ``settings.connect_timeout``).

    ``handler`` runs on one of ``threads`` threads, never on the calling one, which keeps the heartbeats going
    however long a message takes. With one thread, messages are handled in the queue's order. It returns an Outcome,
    or an Answer. If it raises

    - Reject (BadMessage is one), the message is rejected;
    - StopConsuming, SystemExit or KeyboardInterrupt, the message is given back, and the error is raised from here;
    - anything else, ``on_error`` says what happens; the traceback is logged.

    At most ``prefetch`` messages (``settings.prefetch`` by default) are held at once. ``exclusive`` and
    ``arguments`` are those of basic.consume.

    SIGINT and SIGTERM (if called on the main thread) and ``stop``, which they set, end it: what the handlers have in
    hand is finished, for at most ``grace`` seconds, and acknowledged; everything else stays on the queue. A second
    signal leaves at once, with KeyboardInterrupt.

    ``in_order`` is for a queue with a single active consumer: at a stop, all that was delivered is handled before the
    queue is released. Otherwise the next consumer would begin behind the messages held here, and get those afterwards;
    that still happens when the ``grace`` is over, and when a handler raises StopConsuming.
    (https://www.rabbitmq.com/docs/consumers#single-active-consumer)

    Raises a ConnectionFailure when trying again makes no sense or took too long; ValueError for a prefetch of 0,
    which would mean no bound.
    """
    prefetch = settings.prefetch if prefetch is None else prefetch
    if prefetch < 1 or threads < 1:
        raise ValueError(f"prefetch and threads must be at least 1, not {prefetch} and {threads}")
    stop = stop or threading.Event()
    consumer = _Consumer(
        name,
        settings,
        declare,
        HandlerThreads(name, threads, handler, on_error, stop),
        prefetch=prefetch,
        in_order=in_order,
        options={"exclusive": exclusive, "arguments": arguments},
        on_ready=on_ready,
        stop=stop,
        grace=Grace(grace),
        hooks=hooks or Hooks(),
    )
    with _signals_set(stop):
        consumer.run()


class _Consumer:
    """One session after the other on the calling thread, which is the I/O thread."""

    def __init__(
        self,
        name: str,
        settings: ConnectionSettings,
        declare: Callable[[DeclaringChannel], str],
        handlers: HandlerThreads,
        *,
        prefetch: int,
        in_order: bool,
        options: dict[str, Any],
        on_ready: Callable[[str], None] | None,
        stop: threading.Event,
        grace: Grace,
        hooks: Hooks,
    ) -> None:
        self._name = name
        self._settings = settings
        self._declare = declare
        self._handlers = handlers
        self._prefetch = prefetch
        self._in_order = in_order
        self._options = options
        self._on_ready = on_ready
        self._grace = grace
        self._hooks = hooks
        # Signal handlers set it, so the main thread must neither wait for it nor set it: it could meet itself inside
        # the event's lock. A thread waits for it and sets `awake`, which the main thread does wait for.
        self._stop = stop
        self._awake = threading.Event()
        self._session: Session | None = None
        self._ran_before = False
        self._over = False

    def run(self) -> None:
        """Consume until stopped; raise what a handler wants raised."""
        self._handlers.start()
        threading.Thread(target=self._watch, name=f"{self._name}-stop", daemon=True).start()
        try:
            self._consume_until_stopped()
        except KeyboardInterrupt:  # the second signal
            self._grace.end()
            raise
        finally:
            self._over = True
            # A handler that works on, though its connection is gone for good, still gets its time.
            self._handlers.end(self._grace.left)
        if self._handlers.exit:
            raise self._handlers.exit

    def _watch(self) -> None:
        """Wait for the stop, and tell the I/O thread; on a thread of its own."""
        while not self._stop.wait(1):
            if self._over:
                return
        self._awake.set()
        if session := self._session:
            if self._in_order and not self._handlers.exit:
                grace = self._grace.left()
                session.link.call(lambda: session.hold(grace))
            else:
                session.link.call(session.link.stop)

    def _consume_until_stopped(self) -> None:
        delay = 0.0
        while (session := self._open()) is not None:
            began = time.monotonic()
            broken = self._serve(session)
            session.link.close()
            if broken is None:
                return
            log.warning("%s; connecting again", broken)
            delay = 0.0 if time.monotonic() - began > STEADY_SECONDS else min(5.0, 2 * delay + 0.1)
            self._sleep(delay * random.random())

    def _open(self) -> Session | None:
        """A session that consumes; None if a stop was asked for meanwhile."""
        limit = self._settings.reconnect_timeout if self._ran_before else self._settings.connect_timeout
        return backing_off(limit, sleep=self._sleep, retry=self._worth_another_try)(self._open_once)

    def _sleep(self, seconds: float) -> None:
        """Sleep, but not any longer when a stop is asked for."""
        self._awake.wait(seconds)

    def _worth_another_try(self, error: BaseException) -> bool:
        if not isinstance(error, ConnectionFailure):
            return False
        # What worked before may fail for a moment while the broker comes back: a proxy without its broker
        # (NotAmqp), a queue without its leader, or one that is still held by the connection that we lost
        # (405 RESOURCE_LOCKED, 403 "in exclusive use").
        passing = isinstance(error, ChannelFailure | NotAmqp) or "exclusive use" in str(error)
        return is_transient(error) or (self._ran_before and passing)

    def _open_once(self) -> Session | None:
        if self._stop.is_set():
            return None
        link = reach_amqp(self._name, self._settings, Link, deadline=0)
        try:
            session = Session(link, self._declare(declaring(link)), self._handlers, self._hooks)
            session.consume(self._prefetch, self._options)
            if self._ran_before:
                self._hooks.reconnected()
            if self._on_ready:
                self._on_ready(session.queue)
        except AMQPError as error:
            link.close()
            raise explain(error, self._settings) from error
        except Exception:
            link.close()
            raise
        return session

    def _serve(self, session: Session) -> RobustPikaError | None:
        """Consume until stopped (None) or until something breaks (what)."""
        self._ran_before = True
        self._session = session  # before we look at `stop`: it may be set by now
        try:
            if not (self._stop.is_set() or session.cancelled):
                session.begin()
                session.link.run()
            if self._stop.is_set():
                session.finish(self._grace)
                return None
            if session.cancelled:
                return ConsumerCancelled(
                    f"RabbitMQ cancelled the consumer of queue {session.queue!r} "
                    "(the queue was deleted, or a message was not acknowledged in time)"
                )
            assert session.link.broken
            return explain(session.link.broken, self._settings)
        finally:
            self._session = None
            self._handlers.take_back()


@contextmanager
def _signals_set(stop: threading.Event) -> Iterator[None]:
    """While inside, the first SIGINT or SIGTERM sets ``stop``; the next raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python only lets the main thread have signal handlers.
        return
    came: list[int] = []

    def on_signal(signum: int, _frame: FrameType | None) -> None:
        came.append(signum)
        if len(came) > 1:
            raise KeyboardInterrupt
        stop.set()

    before = {signum: signal.signal(signum, on_signal) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
