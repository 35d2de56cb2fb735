"""The threads on which a consumer's handler runs, so that the I/O thread can go on sending heartbeats."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from robust_pika.errors import Reject, StopConsuming
from robust_pika.messages import Message
from robust_pika.outcomes import Answer, OnError, Outcome

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
"""Seconds for which a thread waits after its handler failed; each failure in a row doubles the pause."""

log = logging.getLogger("robust_pika")


Result = tuple[int, Outcome, str, Answer | None]
"""What becomes of the message with this delivery tag, why it was rejected (for the log), and the answer to it."""


class Origin(Protocol):
    """Where a message came from, and its result goes to."""

    def finished(self, result: Result) -> None:
        """Take a result; called on a handler thread."""


Job = tuple[Origin, int, Message]


class HandlerThreads:
    """Calls ``handler`` with one message after the other on ``count`` threads.

    ``stop`` is set when the handler asks for the end; ``exit`` is then what the consumer raises.
    """

    def __init__(
        self,
        name: str,
        count: int,
        handler: Callable[[Message], Outcome | Answer],
        on_error: OnError,
        stop: threading.Event,
    ) -> None:
        self.exit: BaseException | None = None
        self._handler = handler
        self._on_error = on_error
        self._stop = stop
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.put: Callable[[Job], None] = self._jobs.put
        """Have a message handled, in its turn."""
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{n}", daemon=True) for n in range(count)]

    @property
    def idle(self) -> bool:
        """Whether no message waits for a thread."""
        return self._jobs.empty()

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def take_back(self) -> list[int]:
        """The delivery tags of the messages that no thread has begun; none will be begun."""
        tags = []
        with suppress(queue.Empty):
            while job := self._jobs.get_nowait():
                tags.append(job[1])
        return tags

    def end(self, left: Callable[[], float]) -> None:
        """End the threads when they have done what they are at; wait for that as long as ``left()`` says."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(left())

    def _work(self) -> None:
        failures = 0
        handler, next_job = self._handler, self._jobs.get
        while job := next_job():
            origin, tag, message = job
            try:
                outcome, why, answer = self._read(handler(message))
                failures = 0
            except Reject as reason:
                outcome, why, answer = Outcome.REJECT, str(reason), None
                failures = 0
            except StopConsuming as failure:
                outcome, why, answer = Outcome.REQUEUE, "", None
                # If a stop was asked for anyway, the handler has given up because of that.
                if not self._stop.is_set():
                    self._leave(failure)
            except Exception as error:  # a bug in the handler must neither lose the message nor end this thread
                failures += 1
                outcome, why, answer = self._after_error(message, error, failures), "", None
            except BaseException as error:
                outcome, why, answer = Outcome.REQUEUE, "", None
                self._leave(error)
            origin.finished((tag, outcome, why, answer))
            if self.exit:
                return

    def _read(self, result: object) -> tuple[Outcome, str, Answer | None]:
        if isinstance(result, Outcome):
            return result, "", None
        if isinstance(result, Answer):
            return Outcome.ACK, "", result
        raise TypeError(f"the handler returned {result!r} instead of an Outcome or an Answer")

    def _after_error(self, message: Message, error: Exception, failures: int) -> Outcome:
        """Log the handler's error, and wait or stop as the caller of ``consume`` wants it."""
        what = f"the handler failed on message {message.name} with {type(error).__name__}: {str(error)[:300]}"
        match self._on_error:
            case OnError.REJECT:
                log.error("%s; the message is rejected", what, exc_info=error)
                return Outcome.REJECT
            case OnError.STOP:
                log.error("%s; the consumer stops", what, exc_info=error)
                self._leave(error)
            case OnError.REQUEUE:
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (failures - 1))
                log.error("%s; the message goes back to the queue in %g s", what, pause, exc_info=error)
                self._stop.wait(pause)
        return Outcome.REQUEUE

    def _leave(self, error: BaseException) -> None:
        self.exit = error
        self._stop.set()
