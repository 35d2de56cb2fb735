"""Consuming: bounded, acknowledged after the work, recovering, stopped cleanly, and with heartbeats that never stop."""

from __future__ import annotations

import logging
import queue
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from types import FrameType
from typing import Any, NamedTuple

from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

from robust_pika._io.ledger import Encoded
from robust_pika._io.link import Link
from robust_pika.connecting import backing_off, reach_amqp
from robust_pika.declaring import DeclaringChannel, declaring
from robust_pika.errors import (
    ChannelFailure,
    ConnectionFailure,
    ConsumerCancelled,
    NotAmqp,
    Reject,
    RobustPikaError,
    StopConsuming,
)
from robust_pika.explaining import explain
from robust_pika.messages import Message, check_name
from robust_pika.settings import ConnectionSettings

log = logging.getLogger("robust_pika")

STEADY_SECONDS = 10.0
"""A consumer that broke sooner than this after it began waits longer and longer before it begins again."""

LINGER_SECONDS = 0.2
"""How long a channel stays open after the last acknowledgement. RabbitMQ passes a burst of them on to a quorum queue
little by little, and forgets those it has not passed on when the channel closes: they would be delivered again.
(Measured on 3.10 and 4.3: after every other stop under load without it, never with 0.03.)"""


class Outcome(Enum):
    """What becomes of a message when its handler has returned."""

    ACK = auto()
    """Done: the broker forgets the message."""
    REJECT = auto()
    """Not wanted: to the queue's dead letters. (A queue without a dead-letter exchange drops it: declare one.)"""
    REQUEUE = auto()
    """Not now: back to the queue. Counts towards a quorum queue's delivery limit."""


class Answer:
    """What a handler returns instead of ``Outcome.ACK`` when a message is to be answered first.

    The answer goes to the queue ``address``, on the channel that the message came on and right before its
    acknowledgement. RabbitMQ does what it is told on a channel in order, so a message that it takes as done has been
    answered; one that is delivered again, because the channel broke, may be answered twice. A ``mandatory`` answer
    that no queue takes is told in one line. Raises BadMessage for what AMQP cannot carry.
    """

    exchange = ""

    def __init__(self, address: str, body: bytes, properties: BasicProperties, *, mandatory: bool = False) -> None:
        # Here and not when it is sent: what is wrong with one answer must not end the consumer.
        check_name("address of the answer", address)
        self.routing_key = address
        self.body = body
        self.properties = Encoded(properties)
        self.mandatory = mandatory


Handler = Callable[[Message], Outcome | Answer]


def consume(
    name: str,
    settings: ConnectionSettings,
    declare: Callable[[DeclaringChannel], str],
    handler: Handler,
    *,
    prefetch: int | None = None,
    threads: int = 1,
    in_order: bool = False,
    exclusive: bool = False,
    arguments: dict[str, Any] | None = None,
    on_ready: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
    grace: float = 30.0,
) -> None:
    """Hand a queue's messages to ``handler`` until told to stop. Delivery is at-least-once.

    ``declare(channel)`` declares what is needed and returns the queue's name. It is run again, followed by
    ``on_ready(queue)``, each time that a broken connection, a closed channel or a cancelled consumer was replaced;
    that is tried for ``settings.reconnect_timeout`` seconds (the first time: ``settings.connect_timeout``).

    ``handler`` runs on one of ``threads`` threads, never on the calling one, which keeps the heartbeats going
    however long a message takes. With one thread, messages are handled in the queue's order. What it raises
    rejects the message; StopConsuming, SystemExit and KeyboardInterrupt give the message back, end the consumer and
    are raised here. To answer a message, it returns an Answer.

    At most ``prefetch`` messages (``settings.prefetch`` by default) are held at once. ``exclusive`` and
    ``arguments`` are those of basic.consume.

    SIGINT and SIGTERM (if called on the main thread) and ``stop``, which they set, end it: what the handlers have in
    hand is finished, for at most ``grace`` seconds, and acknowledged; everything else stays on the queue. A second
    signal leaves at once, with KeyboardInterrupt.

    ``in_order`` is for a queue with a single active consumer: all that was delivered is handled first, and then the
    queue is let go of. Otherwise the next consumer would begin behind what we hold, and get that afterwards; so it
    does when the ``grace`` is over, and when a handler raises StopConsuming.
    (https://www.rabbitmq.com/docs/consumers#single-active-consumer)

    Raises a ConnectionFailure when trying again makes no sense or took too long; ValueError for a prefetch of 0,
    which would mean no bound.
    """
    prefetch = settings.prefetch if prefetch is None else prefetch
    if prefetch < 1 or threads < 1:
        raise ValueError(f"prefetch and threads must be at least 1, not {prefetch} and {threads}")
    options = {"exclusive": exclusive, "arguments": arguments}
    stop = stop or threading.Event()
    with _signals_set(stop):
        _Consumer(name, settings, declare, handler, prefetch, in_order, options, on_ready, stop, grace).run(threads)


class _Result(NamedTuple):
    """How the message with this delivery tag came out; ``why`` it was rejected is for the reader."""

    tag: int
    outcome: Outcome
    why: str
    answer: Answer | None = None


class _Session:
    """One consumer on one channel: what was delivered on it and is not settled yet.

    Delivery tags mean nothing on another channel, so a result goes to the session its message came from; if that
    has ended, the result is dropped, and the broker delivers the message again.
    """

    def __init__(self, link: Link, queue_name: str, jobs: _Jobs) -> None:
        self.link = link
        self.queue = queue_name
        self.unsettled: dict[int, Message] = {}
        self.cancelled = False
        self._jobs = jobs
        self._tag = ""
        # What no handler may have: delivered before the beginning, or after the end.
        self._kept: list[tuple[_Session, int, Message]] | None = []
        self._results: deque[_Result] = deque()
        self._waking = False
        self._holding = False
        self._all_is_here = False
        self._last_settled = 0.0

    def consume(self, prefetch: int, options: dict[str, Any]) -> None:
        """Become a consumer; what is delivered waits for ``begin``. Raises pika's error."""
        channel = self.link.channel
        self.link.ask(channel.basic_qos, prefetch_count=prefetch)
        channel.add_on_cancel_callback(self._on_cancelled)
        channel.add_on_return_callback(self._tell_returned)
        self._tag = self.link.consume(self.queue, self._deliver, **options)

    def begin(self) -> None:
        """Let the handler threads have the messages."""
        kept, self._kept = self._kept or (), None
        for job in kept:
            self._jobs.put(job)

    def _deliver(self, tag: int, message: Message) -> None:
        self.unsettled[tag] = message
        if self._kept is None:
            self._jobs.put((self, tag, message))
        else:
            self._kept.append((self, tag, message))

    def _on_cancelled(self, _frame: object) -> None:
        self.cancelled = True
        self.link.stop()

    def _tell_returned(self, _channel: object, method: Basic.Return, _properties: object, _body: bytes) -> None:
        log.warning(f"the answer for queue {method.routing_key!r} was dropped: there is no such queue any more")

    def finished(self, result: _Result) -> None:
        """Take a handler's result (called on its thread)."""
        self._results.append(result)
        # The I/O thread takes all results there are each time it is woken, so one call on its way is enough: that
        # is what coalesces the acknowledgements of fast handlers without ever waiting for slow ones.
        if not self._waking:
            self._waking = True
            self.link.call(self._settle)

    def hold(self, grace: float) -> None:
        """Acknowledge nothing, so that nothing new comes; ``run`` returns when all is handled, or after ``grace``."""
        self._holding = True
        # What was acknowledged just now may bring another message.
        self.link.call_later(LINGER_SECONDS, self._arrived)
        self.link.call_later(grace, self.link.stop)

    def _arrived(self) -> None:
        self._all_is_here = True
        self._settle()

    def cancel(self) -> None:
        """Have no more messages delivered; what was held back is acknowledged after that."""
        self._holding = False
        self._kept = self._kept or []  # what still comes is not begun
        if not self.cancelled:
            with suppress(AMQPError):
                self.link.ask(self.link.channel.basic_cancel, self._tag)
        self.cancelled = True
        self._settle()

    def give_back(self, tags: Iterable[int]) -> None:
        """Return messages that no handler has seen, and those that none could see yet."""
        for tag in (*tags, *(tag for _, tag, _ in self._kept or ())):
            del self.unsettled[tag]
            self.link.outgoing.give_back(tag)
            self._last_settled = time.monotonic()

    def linger(self) -> None:
        """Wait until RabbitMQ has passed on what it was told last."""
        end = self._last_settled + LINGER_SECONDS
        while not self.link.broken and (left := end - time.monotonic()) > 0:
            self.link.run(left)

    def _settle(self) -> None:
        if self.link.broken:
            return
        # First, so that a result that comes from now on wakes us again.
        self._waking = False
        if self._holding:
            if self._all_is_here and len(self._results) == len(self.unsettled):
                self.link.stop()
            return
        results = [self._results.popleft() for _ in range(len(self._results))]
        outgoing = self.link.outgoing
        together = 0
        for tag, outcome, why, answer in sorted(results):
            oldest = next(iter(self.unsettled))
            if answer:
                outgoing.add(answer)
            message = self.unsettled.pop(tag)
            if outcome is not Outcome.ACK:
                outgoing.reject(tag, requeue=outcome is Outcome.REQUEUE)
                if why:
                    # Shortened, because an error's text may quote the whole body.
                    log.warning(f"message {message.name} rejected: {why:.300}")
            elif tag == oldest:
                together = tag
            else:
                # An older message is still being worked on; it must not hold up this one.
                outgoing.ack(tag)
        if together:
            outgoing.ack(together, multiple=True)
        outgoing.flush()
        self._last_settled = time.monotonic()
        if self.cancelled and not self.unsettled:
            self.link.stop()  # all that was waited for


_Jobs = queue.SimpleQueue[tuple[_Session, int, Message] | None]


@dataclass(eq=False)
class _Consumer:
    """One session after the other on the calling thread, and the threads that do the work."""

    name: str
    settings: ConnectionSettings
    declare: Callable[[DeclaringChannel], str]
    handler: Handler
    prefetch: int
    in_order: bool
    options: dict[str, Any]
    on_ready: Callable[[str], None] | None
    # Set by signal handlers, so the main thread must never wait for it or set it: it could meet itself inside the
    # event's lock. A thread waits for it and sets `awake`, which the main thread does wait for.
    stop: threading.Event
    grace: float

    awake: threading.Event = field(default_factory=threading.Event)
    jobs: _Jobs = field(default_factory=queue.SimpleQueue)
    session: _Session | None = None
    ran_before: bool = False
    over: bool = False
    exit: BaseException | None = None
    deadline: float = 0.0

    def run(self, threads: int) -> None:
        workers = [threading.Thread(target=self.work, name=f"{self.name}-{n}", daemon=True) for n in range(threads)]
        for thread in (*workers, threading.Thread(target=self.watch, name=f"{self.name}-stop", daemon=True)):
            thread.start()
        try:
            self.consume_until_stopped()
        except KeyboardInterrupt:  # the second signal
            self.grace = self.deadline = 0.0
            raise
        finally:
            self.over = True
            for _ in workers:
                self.jobs.put(None)
            # A handler that works on, though its connection is gone for good, still gets its time.
            for thread in workers:
                thread.join(self.time_left())
        if self.exit:
            raise self.exit

    def time_left(self) -> float:
        """What is left of the grace, in seconds; it begins with the first question."""
        self.deadline = self.deadline or time.monotonic() + self.grace
        return max(0.0, self.deadline - time.monotonic())

    # On the handler threads

    def work(self) -> None:
        while job := self.jobs.get():
            session, tag, message = job
            outcome, why, answer = Outcome.REJECT, "", None
            try:
                result = self.handler(message)
                if isinstance(result, Outcome):
                    outcome = result
                elif isinstance(result, Answer):
                    outcome, answer = Outcome.ACK, result
                else:
                    why = f"the handler returned {result!r} instead of an Outcome"
            except StopConsuming as failure:
                outcome = Outcome.REQUEUE
                if not self.stop.is_set():  # else it has given up because it was asked to
                    self.exit = failure
                    self.stop.set()
            except Reject as failure:
                why = str(failure)
            except Exception as error:  # whatever it is, the message must not be lost and the next one must be tried
                why = f"{type(error).__name__}: {error}"
            except BaseException as error:
                self.exit, outcome = error, Outcome.REQUEUE
                self.stop.set()
            session.finished(_Result(tag, outcome, why, answer))
            if self.exit:
                return

    # On a thread of its own

    def watch(self) -> None:
        while not self.stop.wait(1):
            if self.over:
                return
        self.awake.set()
        if session := self.session:
            if self.in_order and not self.exit:
                grace = self.time_left()
                session.link.call(lambda: session.hold(grace))
            else:
                session.link.call(session.link.stop)

    # On the calling thread, which is the I/O thread

    def consume_until_stopped(self) -> None:
        delay = 0.0
        while (session := self.open()) is not None:
            began = time.monotonic()
            broken = self.serve(session)
            session.link.close()
            if broken is None:
                return
            log.warning(f"{broken}; connecting again")
            delay = 0.0 if time.monotonic() - began > STEADY_SECONDS else min(5.0, 2 * delay + 0.1)
            self.sleep(delay * random.random())

    def open(self) -> _Session | None:
        """A session that consumes; None if we were stopped while trying."""
        limit = self.settings.reconnect_timeout if self.ran_before else self.settings.connect_timeout
        retrying = backing_off(limit, sleep=self.sleep, retry=self.worth_another_try)
        return retrying(self.open_once)

    def sleep(self, seconds: float) -> None:
        """Sleep, but not any longer when asked to stop."""
        self.awake.wait(seconds)

    def worth_another_try(self, error: BaseException) -> bool:
        if not isinstance(error, ConnectionFailure):
            return False
        # What worked before may fail for a moment while the broker comes back: a proxy without its broker
        # (NotAmqp), a queue without its leader, or one that is still held by the connection that we lost
        # (405 RESOURCE_LOCKED, 403 "in exclusive use").
        passing = isinstance(error, ChannelFailure | NotAmqp) or "exclusive use" in str(error)
        return error.transient or (self.ran_before and passing)

    def open_once(self) -> _Session | None:
        if self.stop.is_set():
            return None
        link = reach_amqp(self.name, self.settings, Link, deadline=0)
        try:
            session = _Session(link, self.declare(declaring(link)), self.jobs)
            session.consume(self.prefetch, self.options)
            if self.on_ready:
                self.on_ready(session.queue)
        except AMQPError as error:
            link.close()
            raise explain(error, self.settings) from error
        except Exception:
            link.close()
            raise
        return session

    def serve(self, session: _Session) -> RobustPikaError | None:
        """Consume until stopped (None) or until something breaks (what)."""
        self.ran_before = True
        self.session = session  # before we look at `stop`: it may be set by now
        try:
            if not (self.stop.is_set() or session.cancelled):
                session.begin()
                session.link.run()
            if self.stop.is_set():
                self.finish(session)
                return None
            if session.cancelled:
                return ConsumerCancelled(
                    f"RabbitMQ cancelled the consumer of queue {session.queue!r} "
                    "(the queue was deleted, or a message was held for too long)"
                )
            assert session.link.broken
            return explain(session.link.broken, self.settings)
        finally:
            self.session = None
            self.take_jobs()

    def finish(self, session: _Session) -> None:
        """Give back what no handler has begun, and wait for the others."""
        untouched = self.take_jobs()
        session.cancel()
        session.give_back(untouched)
        while session.unsettled and not session.link.broken and (left := self.time_left()):
            session.link.run(left)
        if session.unsettled and not session.link.broken:
            log.warning(f"{len(session.unsettled)} not finished after {self.grace:g} s: back to {session.queue!r}")
        session.linger()

    def take_jobs(self) -> list[int]:
        """The delivery tags of the messages that no handler has begun; now none will."""
        tags = []
        with suppress(queue.Empty):
            while job := self.jobs.get_nowait():
                tags.append(job[1])
        return tags


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
