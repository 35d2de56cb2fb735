"""Compare how much a consumer is given at once, and how fast it is, with different prefetches.

python reliability/back_pressure/compare_prefetch.py
python reliability/back_pressure/compare_prefetch.py --count 5000

Its queue is its own, and is deleted afterwards.
"""

import statistics
import time

import topology

from common import console, messages
from common.config import Settings
from common.connection import Connection, connect
from common.errors import Failure
from robust_pika import DeclaringChannel, Publisher

QUEUE = f"{topology.READINGS}.measured"
PREFETCHES = (1, 10, 100, 1000)
ROUNDS = 3
QUIET = 0.3
"""Seconds without a further delivery after which a consumer has no more than its prefetch."""
LONG_QUIET = 2.0
"""The same without a prefetch, where a pause may be just that."""
LIMIT = 30.0
"""Seconds after which another program must have taken the messages that do not come."""


def declare(channel: DeclaringChannel) -> str:
    channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 1000})
    return QUEUE


def held(connection: Connection, prefetch: int) -> int:
    """How many messages a consumer is given that acknowledges none; 0 is no limit."""
    channel = connection.channel()
    channel.basic_qos(prefetch_count=prefetch)
    tags: list[int] = []
    channel.basic_consume(QUEUE, lambda _channel, method, _properties, _body: tags.append(method.delivery_tag))
    deadline = time.monotonic() + LIMIT
    while len(tags) < prefetch:
        if time.monotonic() > deadline:
            raise Failure(f"{len(tags)} of {prefetch} messages came; does another program take them from {QUEUE!r}?")
        connection.process_data_events(time_limit=1)
    before = -1
    while len(tags) > before:
        before = len(tags)
        connection.sleep(QUIET if prefetch else LONG_QUIET)
    channel.close()
    return len(tags)


def seconds(connection: Connection, prefetch: int, count: int) -> float:
    """How long it takes to receive and acknowledge ``count`` messages, each by itself."""
    channel = connection.channel()
    channel.basic_qos(prefetch_count=prefetch)
    began = time.monotonic()
    for received, (method, _properties, _body) in enumerate(channel.consume(QUEUE, inactivity_timeout=LIMIT), 1):
        if method is None:
            raise Failure(f"no message for {LIMIT:g} s; does another program take them from {QUEUE!r}?")
        channel.basic_ack(method.delivery_tag)
        if received == count:
            break
    took = time.monotonic() - began
    channel.close()
    return took


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--count", type=console.whole(100, 100_000), default=1000, metavar="N", help="messages a round")
    count = parser.parse_args().count
    settings = Settings.load()
    with connect("back_pressure/compare_prefetch.py", settings) as connection:
        channel = connection.channel()
        channel.queue_delete(QUEUE)
        with Publisher("back_pressure/compare_prefetch.py", settings, declare=declare) as publisher:
            for _ in range(count * ROUNDS * len(PREFETCHES)):
                publisher.publish("", QUEUE, b"reading", messages.properties())
        given = {prefetch: held(connection, prefetch) for prefetch in (*PREFETCHES, 0)}
        # Interleaved, so that what else goes on on this machine hits all of them.
        took: dict[int, list[float]] = {prefetch: [] for prefetch in PREFETCHES}
        for _ in range(ROUNDS):
            for prefetch in PREFETCHES:
                took[prefetch].append(seconds(connection, prefetch, count))
        channel.queue_delete(QUEUE)
    slowest = statistics.median(took[1])
    for prefetch in PREFETCHES:
        faster = slowest / statistics.median(took[prefetch])
        console.say(f" [x] prefetch {prefetch}: {given[prefetch]} in hand, {faster:.1f} times as fast")
    console.say(f" [x] no prefetch: {given[0]} in hand")


if __name__ == "__main__":
    console.run(main)
