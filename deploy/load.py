"""Publish at a steady rate, consume the same messages, and count: a confirmed message that does not arrive is lost.

python -m deploy.load                            200 messages a second for a minute
python -m deploy.load --rate 50 --seconds 10
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter, deque

from common import console, messages
from common.config import Settings
from common.connection import connect
from common.errors import ExitCode, Failure
from robust_pika import Confirmation, DeclaringChannel, Message, Outcome, Publisher, consume

CATCH_UP = 120.0
"""Seconds that confirmed messages may take to arrive, after the last message was sent."""


class Lost(Failure):
    """Messages that RabbitMQ has confirmed did not arrive; the text says how many."""

    exit_code = ExitCode.DATA


class Load:
    """One run, on its own queue, which is deleted afterwards; ``rate`` is in messages per second."""

    def __init__(self, settings: Settings, rate: int, seconds: float) -> None:
        self._settings = settings
        self._rate = rate
        self._total = round(rate * seconds)
        self._queue = f"load.{uuid.uuid4().hex[:8]}"
        self._ready, self._stop = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._confirmed: set[int] = set()
        self._seen: Counter[int] = Counter()
        self._pause = 0.0

    def run(self) -> None:
        """Publish and consume; print the counts every ten seconds. Raises Lost if a message is missing."""
        consumer = threading.Thread(target=self._consume, name="consumer")
        consumer.start()
        try:
            while not self._ready.wait(0.2):
                self._check()
            self._publish()
            deadline = time.monotonic() + CATCH_UP
            while self._missing() and time.monotonic() < deadline:
                self._check()
                time.sleep(0.2)
        finally:
            self._stop.set()
            consumer.join()
        missing = self._missing()
        console.say(f" [x] {self._counts()}, {missing:,} missing, longest pause {self._pause:.1f} s")
        if missing:
            raise Lost(f"{missing} confirmed messages were lost; what is left is in the queue {self._queue!r}")
        with connect("load", self._settings) as connection:
            connection.channel().queue_delete(self._queue)

    def _publish(self) -> None:
        pending: deque[tuple[int, Confirmation]] = deque()
        last = start = time.monotonic()
        told = start + 10

        def note() -> None:
            nonlocal last
            before = time.monotonic()
            while pending and pending[0][1].done:
                number, confirmation = pending.popleft()
                if confirmation.error is None:
                    self._confirmed.add(number)
                    self._pause, last = max(self._pause, before - last), before

        with Publisher("load", self._settings, declare=self._declare) as publisher:
            for number in range(self._total):
                due = start + number / self._rate
                while (now := time.monotonic()) < due:
                    time.sleep(min(0.01, due - now))
                    note()
                pending.append((number, publisher.publish("", self._queue, b"%d" % number, messages.properties())))
                note()
                self._check()
                if now > told:
                    told = now + 10
                    console.say(f" [*] {self._counts()}")
            publisher.flush()
            note()

    def _consume(self) -> None:
        def see(message: Message) -> Outcome:
            with self._lock:
                self._seen[int(message.body)] += 1
            return Outcome.ACK

        try:
            consume(
                "load",
                self._settings,
                self._declare,
                see,
                on_ready=lambda _: self._ready.set(),
                stop=self._stop,
            )
        except BaseException as error:
            self._failure = error

    def _declare(self, channel: DeclaringChannel) -> str:
        # A queue that nobody uses for an hour goes away, should this program be killed.
        arguments = {"x-queue-type": "quorum", "x-expires": 3_600_000}
        channel.queue_declare(self._queue, durable=True, arguments=arguments)
        return self._queue

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _missing(self) -> int:
        with self._lock:
            return len(self._confirmed - self._seen.keys())

    def _counts(self) -> str:
        with self._lock:
            duplicates = self._seen.total() - len(self._seen)
            return (
                f"{len(self._confirmed):,} confirmed of {self._total:,}, {len(self._seen):,} seen, "
                f"{duplicates:,} seen again"
            )


def main() -> None:
    parser = console.parser(__doc__)
    parser.prog = "python -m deploy.load"
    parser.add_argument("--rate", type=console.whole(1, 5000), default=200, metavar="N", help="messages a second")
    parser.add_argument("--seconds", type=console.seconds, default=60.0, metavar="S", help="for how long")
    arguments = parser.parse_args()
    Load(Settings.load(), arguments.rate, arguments.seconds).run()


if __name__ == "__main__":
    console.run(main)
