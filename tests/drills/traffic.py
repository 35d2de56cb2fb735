"""Publishing and consuming at the same time, with ``common`` as an example uses it, while something is broken."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from common import messages
from common.config import Settings
from common.connection import connect
from robust_pika import Confirmation, DeclaringChannel, Message, Outcome, Publisher, consume
from tests.drills.tally import Tally

QUEUE = "drill"

BACKLOG = 2_000
"""Messages sent and not seen, at most: the publisher is faster, and both are to be at work when something breaks."""

# Most messages are small; some are large enough to be cut in the middle of a frame.
SMALL = b"." * 100
LARGE = b"." * 50_000


class Traffic:
    """A publisher and a consumer, each on a thread of its own; use it with ``with``, which stops both.

    Publishing ends when ``enough`` says so, with the number of messages sent so far.
    """

    def __init__(self, publishing: Settings, consuming: Settings, enough: Callable[[int], bool]) -> None:
        self.tally = Tally()
        self._publishing = publishing
        self._consuming = consuming
        self._enough = enough
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._publisher = threading.Thread(target=self._guard, args=(self._publish,), name="publisher")
        self._consumer = threading.Thread(target=self._guard, args=(self._consume,), name="consumer")

    def __enter__(self) -> Traffic:
        self._consumer.start()
        self.wait(self._ready.is_set, 30, "the consumer to be ready")
        self._publisher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        else:
            # The publisher stops at its next message, with what is in flight.
            self._enough = lambda _: True
            self._stop.set()

    def _finish(self) -> None:
        self.wait(lambda: not self._publisher.is_alive(), 120, "the publisher to end")
        self.wait(lambda: not self.tally.missing, 60, "what is confirmed to be seen")
        # What was seen may come once more, because its acknowledgement was lost.
        self.wait(self._quiet, 60, "the queue to be empty")
        self._stop.set()
        self.wait(lambda: not self._consumer.is_alive(), 60, "the consumer to stop")

    def _quiet(self) -> bool:
        """Whether nothing is in the queue, and nothing comes for a second."""
        if self.left(self._consuming):
            return False
        total = self.tally.total
        time.sleep(1)
        return self.tally.total == total and not self.left(self._consuming)

    def wait(self, condition: Callable[[], bool], limit: float, what: str) -> None:
        """As Tally.wait; raises at once what the publisher or the consumer raised."""

        def settled() -> bool:
            if self._failures:
                raise self._failures[0]
            return condition()

        self.tally.wait(settled, limit, what)
        settled()

    def left(self, settings: Settings) -> int:
        """How many messages are in the queue, once the consumer is gone: those that it did not acknowledge."""
        with connect("drill", settings) as connection:
            return int(connection.channel().queue_declare(QUEUE, passive=True).method.message_count)

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._failures.append(error)

    def _publish(self) -> None:
        pending: deque[tuple[int, Confirmation]] = deque()

        def note() -> None:
            while pending and pending[0][1].done:
                number, confirmation = pending.popleft()
                if confirmation.error is None:
                    self.tally.confirm(number)

        with Publisher("drill publisher", self._publishing, declare=declare) as publisher:
            while not self._enough(self.tally.sent):
                if self.tally.sent - self.tally.seen >= BACKLOG:
                    note()
                    self.tally.wait(self._room, 60, "the consumer to catch up")
                    continue
                number = self.tally.sent
                body = b"%d %s" % (number, LARGE if number % 100 == 0 else SMALL)
                pending.append((number, publisher.publish("", QUEUE, body, messages.properties())))
                self.tally.sent += 1
                note()
        note()

    def _room(self) -> bool:
        return self.tally.sent - self.tally.seen < BACKLOG or self._enough(self.tally.sent)

    def _consume(self) -> None:
        def handle(message: Message) -> Outcome:
            self.tally.see(int(message.body.split()[0]))
            return Outcome.ACK

        consume(
            "drill consumer",
            self._consuming,
            declare,
            handle,
            on_ready=lambda _: self._ready.set(),
            stop=self._stop,
        )


def declare(channel: DeclaringChannel) -> str:
    """Declare the queue of the traffic; return its name."""
    channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    return QUEUE
