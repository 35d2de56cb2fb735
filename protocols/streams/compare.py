"""Send the same events through a stream and through a quorum queue, with confirms, read them back, and compare.

python protocols/streams/compare.py                    a million events of 100 bytes each way
python protocols/streams/compare.py --count 50000

The ways take turns, so that other load on the machine affects them all; the results are the medians of the rounds.
The script checks that every event comes back, in order.
"""

import statistics
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import client
import place
import topology

from common import console
from common.config import Settings
from common.connection import connect
from common.errors import Failure
from extras.optional import packages_for
from robust_pika import Message, Outcome, Publisher, consume
from robust_pika.errors import NotTaken

with packages_for(__file__):
    from rstream import ConfirmationStatus, Consumer, MessageContext, Producer

NAME = "streams/compare.py"
SIZE = 100
WINDOW = 400_000
"""Unconfirmed events. rstream collects entries for half a second before it sends them: fewer would bound the rate."""
DATA = b"\x00\x53\x75\xa0" + bytes([SIZE])
"""What makes bytes a message of AMQP 1.0 (a data section); without it, AMQP 0-9-1 could not read the stream."""


class Wrong(Failure):
    """An event is missing, or came twice, or not in its place."""


def event(number: int) -> bytes:
    return b"%0*d" % (SIZE, number)


class Expected:
    """Sees that the events come one after the other."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.number = 0

    def check(self, body: bytes) -> bool:
        """Whether this was the last one. Raises Wrong."""
        if body != event(self.number):
            raise Wrong(f"event {self.number} was to come, not {body[:SIZE]!r}")
        self.number += 1
        return self.number == self.count


async def publish_to_stream(settings: Settings, count: int, per_entry: int) -> float:
    """Seconds until all are confirmed. An entry is what is confirmed and stored as one: a message, or many."""
    confirmed = sent = 0
    async with client.connected(Producer, NAME, settings) as (producer, link):

        def on_confirm(status: ConfirmationStatus) -> None:
            nonlocal confirmed
            if not status.is_confirmed:
                link.fail(NotTaken(f"RabbitMQ refused entry {status.message_id}"))
            confirmed += per_entry
            link.changed()

        def room() -> bool:
            return sent - confirmed < WINDOW

        began = time.perf_counter()
        batch = max(per_entry, 500)
        for sent in range(0, count, batch):
            await link.until(room, settings.blocked_timeout)
            bodies = [DATA + event(number) for number in range(sent, min(sent + batch, count))]
            if per_entry == 1:
                await producer.send_batch(topology.COMPARED_STREAM, bodies, on_publish_confirm=on_confirm)
                continue
            for first in range(0, len(bodies), per_entry):
                entry = bodies[first : first + per_entry]
                await producer.send_sub_entry(topology.COMPARED_STREAM, entry, on_publish_confirm=on_confirm)
        await link.until(lambda: confirmed >= count, settings.blocked_timeout)
        return time.perf_counter() - began


async def read_stream(settings: Settings, count: int) -> float:
    """Seconds until the last one has come."""
    expected = Expected(count)
    async with client.connected(Consumer, NAME, settings) as (consumer, link):

        def on_message(body: bytes, _context: MessageContext) -> None:
            try:
                if expected.check(body[len(DATA) :]):
                    link.changed()
            except Wrong as error:
                link.fail(error)

        began = time.perf_counter()
        begin = client.specification(place.Place("first"))
        await consumer.subscribe(topology.COMPARED_STREAM, on_message, offset_specification=begin)
        await link.until(lambda: expected.number == count, settings.blocked_timeout)
        return time.perf_counter() - began


def publish_to_queue(settings: Settings, count: int) -> float:
    """Seconds until all are confirmed, with many on their way at once."""
    with Publisher(NAME, settings, window=5000) as publisher:
        began = time.perf_counter()
        for number in range(count):
            publisher.publish("", topology.COMPARED_QUEUE, event(number))
        publisher.flush()
        return time.perf_counter() - began


def read_queue(settings: Settings, count: int) -> float:
    """Seconds from the consumer's start until the last one has come."""
    expected = Expected(count)
    stop = threading.Event()
    times: list[float] = []
    wrong: list[Wrong] = []

    def handle(message: Message) -> Outcome:
        try:
            done = expected.check(message.body)
        except Wrong as error:
            wrong.append(error)
            done = True
        if done:
            times.append(time.perf_counter())
            stop.set()
        return Outcome.ACK

    def on_ready(_queue: str) -> None:
        times.append(time.perf_counter())

    consume(NAME, settings, topology.declare_compared, handle, prefetch=500, on_ready=on_ready, stop=stop)
    if wrong:
        raise wrong[0]
    return times[-1] - times[0]


def waited(measure: Callable[[], Coroutine[Any, Any, float]]) -> float:
    """What ``measure`` returns."""
    times: list[float] = []

    async def main() -> None:
        times.append(await measure())

    client.run(main)
    if not times:
        raise KeyboardInterrupt
    return times[0]


def one_round(settings: Settings, count: int, per_entry: int, for_queue: int) -> dict[str, tuple[float, float]]:
    """Way → events published and read per second."""
    rates = {}
    for way, size in ((f"stream, {per_entry} in an entry", per_entry), ("stream, one by one", 1)):
        with connect(NAME, settings) as connection:
            channel = connection.channel()
            channel.queue_delete(topology.COMPARED_STREAM)
            topology.declare_compared(channel)
        published = count / waited(partial(publish_to_stream, settings, count, size))
        rates[way] = published, count / waited(lambda: read_stream(settings, count))
    published = for_queue / publish_to_queue(settings, for_queue)
    rates["quorum queue"] = published, for_queue / read_queue(settings, for_queue)
    return rates


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--count", type=console.whole(1000, 10_000_000), default=1_000_000, metavar="N", help="events")
    parser.add_argument("--rounds", type=console.whole(1, 100), default=3, metavar="N", help="3 by default")
    parser.add_argument("--per-entry", type=console.whole(2, 1000), default=100, metavar="N", help="100 by default")
    parser.add_argument("--queue-count", type=console.whole(1000, 10_000_000), metavar="N", help="as many by default")
    arguments = parser.parse_args()
    settings = Settings.load()
    for_queue = -(-(arguments.queue_count or arguments.count) // arguments.rounds)
    each = -(-arguments.count // arguments.rounds // arguments.per_entry) * arguments.per_entry

    with connect(NAME, settings) as connection:
        topology.declare_compared(connection.channel())
        connection.channel().queue_purge(topology.COMPARED_QUEUE)
    rounds = [one_round(settings, each, arguments.per_entry, for_queue) for _ in range(arguments.rounds)]
    with connect(NAME, settings) as connection:
        for name in (topology.COMPARED_STREAM, topology.COMPARED_QUEUE):
            connection.channel().queue_delete(name)

    queue = "quorum queue"
    counts = f"{each * arguments.rounds:,} events each way"
    if each != for_queue:
        counts += f", {for_queue * arguments.rounds:,} through the queue"
    console.say(f" [x] {counts}, in order, none missing, none twice; per second:")
    for way in rounds[0]:
        published, read = (statistics.median(times[way][index] for times in rounds) for index in (0, 1))
        more = [statistics.median(times[way][index] / times[queue][index] for times in rounds) for index in (0, 1)]
        ratio = "" if way == queue else f" ({more[0]:.1f} and {more[1]:.1f} times the quorum queue)"
        console.say(f" [x] {way}: {published:,.0f} published, {read:,.0f} read{ratio}")


if __name__ == "__main__":
    console.run(main)
