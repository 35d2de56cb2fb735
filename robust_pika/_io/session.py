"""One consumer on one channel: what was delivered on it and is not settled yet."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from pika.exceptions import AMQPError
from pika.spec import Basic

from robust_pika._io.grace import Grace
from robust_pika._io.handlers import HandlerThreads, Job, Result
from robust_pika._io.link import Link
from robust_pika.hooks import Hooks
from robust_pika.messages import Message
from robust_pika.outcomes import Outcome

LINGER_SECONDS = 0.2
"""How long a channel stays open after the last acknowledgement. RabbitMQ passes a burst of them on to a quorum queue
little by little, and drops those it has not passed on when the channel closes: they would be delivered again.
(Measured on 3.10 and 4.3: after every other stop under load without it, never with 0.03.)"""

log = logging.getLogger("robust_pika")


class Session:
    """Delivery tags mean nothing on another channel, so a result goes to the session its message came from.

    If that has ended, the result is dropped, and the broker delivers the message again.
    """

    def __init__(self, link: Link, queue_name: str, handlers: HandlerThreads, hooks: Hooks) -> None:
        self.link = link
        self.queue = queue_name
        self.unsettled: dict[int, Message] = {}
        self.cancelled = False
        self._handlers = handlers
        self._hooks = hooks
        self._tag = ""
        # What no handler may have: delivered before the beginning, or after the end.
        self._kept: list[Job] | None = []
        self._results: deque[Result] = deque()
        self._waking = False  # a call of _settle is on its way
        self._holding = False
        self._all_is_here = False
        self._last_settled = 0.0

    def consume(self, prefetch: int, options: dict[str, Any]) -> None:
        """Become a consumer; what is delivered waits for ``begin``. Raises pika's error."""
        channel = self.link.channel
        self.link.ask(channel.basic_qos, prefetch_count=prefetch)
        channel.add_on_cancel_callback(self._on_cancelled)
        channel.add_on_return_callback(self._log_returned)
        self._tag = self.link.consume(self.queue, self._deliver, **options)

    def begin(self) -> None:
        """Let the handler threads have the messages."""
        kept, self._kept = self._kept or (), None
        for job in kept:
            self._handlers.put(job)

    def finished(self, result: Result) -> None:
        """Take a handler's result (called on its thread)."""
        self._results.append(result)
        # The I/O thread takes all results there are each time it looks, so one call on its way is enough: that is
        # what coalesces the acknowledgements of fast handlers without ever waiting for slow ones.
        if not self._waking:
            self._waking = True
            self.link.call(self._settle)

    def hold(self, grace: float) -> None:
        """Acknowledge nothing, so that nothing new comes; ``run`` returns when all is handled, or after ``grace``."""
        self._holding = True
        # What was acknowledged just now may bring another message.
        self.link.call_later(LINGER_SECONDS, self._arrived)
        self.link.call_later(grace, self.link.stop)

    def finish(self, grace: Grace) -> None:
        """Give back what no handler has begun, and wait for the others."""
        untouched = self._handlers.take_back()
        self._cancel()
        self._give_back(untouched)
        while self.unsettled and not self.link.broken and (left := grace.left()):
            self.link.run(left)
        if self.unsettled and not self.link.broken:
            log.warning("%d not finished after %g s: back to %r", len(self.unsettled), grace.seconds, self.queue)
        self._linger()

    def _deliver(self, tag: int, message: Message) -> None:
        self.unsettled[tag] = message
        if self._kept is None:
            self._handlers.put((self, tag, message))
        else:
            self._kept.append((self, tag, message))
        self._hooks.delivered(1)

    def _on_cancelled(self, _frame: object) -> None:
        self.cancelled = True
        self.link.stop()

    def _log_returned(self, _channel: object, method: Basic.Return, _properties: object, _body: bytes) -> None:
        log.warning("the answer for queue %r was dropped: there is no such queue any more", method.routing_key)

    def _arrived(self) -> None:
        self._all_is_here = True
        self._settle()

    def _cancel(self) -> None:
        """Have no more messages delivered; what was held back is acknowledged after that."""
        self._holding = False
        self._kept = self._kept or []  # what still comes is not begun
        if not self.cancelled:
            with suppress(AMQPError):
                self.link.ask(self.link.channel.basic_cancel, self._tag)
        self.cancelled = True
        self._settle()

    def _give_back(self, tags: Iterable[int]) -> None:
        """Return messages that no handler has seen, and those that none could see yet."""
        for tag in (*tags, *(tag for _, tag, _ in self._kept or ())):
            del self.unsettled[tag]
            self.link.outgoing.give_back(tag)
            self._last_settled = time.monotonic()

    def _linger(self) -> None:
        """Wait until RabbitMQ has passed the last acknowledgements on."""
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
        pop, unsettled, outgoing = self._results.popleft, self.unsettled, self.link.outgoing
        results = sorted([pop() for _ in range(len(self._results))])
        together = acknowledged = rejected = 0
        oldest = next(iter(unsettled), 0)
        for tag, outcome, why, answer in results:
            if answer:
                outgoing.add(answer)
            message = unsettled.pop(tag)
            if outcome is not Outcome.ACK:
                rejected += self._reject(tag, message, outcome, why)
            elif tag == oldest:
                together = tag
                acknowledged += 1
            else:
                # An older message is still being worked on; it must not hold up this one.
                outgoing.ack(tag)
                acknowledged += 1
            if tag == oldest:
                oldest = next(iter(unsettled), 0)
        if together:
            outgoing.ack(together, multiple=True)
        outgoing.flush()
        self._last_settled = time.monotonic()
        self._count(acknowledged, rejected, len(results))
        if self.cancelled and not self.unsettled:
            self.link.stop()  # all that was waited for

    def _reject(self, tag: int, message: Message, outcome: Outcome, why: str) -> bool:
        """Reject a message, and log why; whether it is rejected for good."""
        self.link.outgoing.reject(tag, requeue=outcome is Outcome.REQUEUE)
        if why:
            # Shortened, because an error's text may quote the whole body.
            log.warning("message %s rejected: %.300s", message.name, why)
        return outcome is Outcome.REJECT

    def _count(self, acknowledged: int, rejected: int, total: int) -> None:
        self._hooks.acknowledged(acknowledged)
        if rejected:
            self._hooks.rejected(rejected)
        if requeued := total - acknowledged - rejected:
            self._hooks.requeued(requeued)
        self._hooks.in_flight(len(self.unsettled))
