"""common.Publisher against pika's BlockingConnection, both with confirms, on the broker of the settings.

Quorum queue, persistent messages of 100 bytes. The two take turns, so that whatever else the machine does hits
both. Prints the rate of each round and the median of the ratios:

    python benchmarks/publish_rate.py [--rounds 5] [--messages 50000]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pika
from pika.adapters.blocking_connection import BlockingChannel

from common import console
from common.config import Settings
from common.connection import connect
from common.publisher import Publisher

QUEUE = "benchmarks.publish_rate"
BODY = b"x" * 100


def declare(channel: BlockingChannel) -> None:
    channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})


def blocking(settings: Settings, count: int) -> float:
    """Messages per second, each confirmed before the next is sent."""
    properties = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
    with connect("blocking", settings) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        start = time.perf_counter()
        for _ in range(count):
            channel.basic_publish("", QUEUE, BODY, properties, mandatory=True)
        return count / (time.perf_counter() - start)


def pipelined(settings: Settings, count: int) -> float:
    """Messages per second until all are confirmed, many in flight."""
    properties = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
    with Publisher("pipelined", settings) as publisher:
        start = time.perf_counter()
        for _ in range(count):
            publisher.publish("", QUEUE, BODY, properties)
        publisher.flush()
        return count / (time.perf_counter() - start)


def counted(settings: Settings, run: Callable[[Settings, int], float], count: int) -> float:
    """Run into an empty queue, and see that every confirmed message is in it."""
    with connect("count", settings) as connection:
        channel = connection.channel()
        channel.queue_purge(QUEUE)
        rate = run(settings, count)
        found = channel.queue_declare(QUEUE, passive=True).method.message_count
        if found != count:
            raise SystemExit(f"{found} of {count} confirmed messages are in the queue")
    return rate


def main() -> None:
    arguments = console.parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=5, help="how often each has its turn (default: 5)")
    arguments.add_argument("--messages", type=int, default=50_000, help="for the Publisher; a 15th for the other")
    args = arguments.parse_args()
    if args.rounds < 1 or args.messages < 1:
        arguments.error("--rounds and --messages must be at least 1")
    settings = Settings.load()
    ratios = []
    with connect("declare", settings) as connection:
        declare(connection.channel())
    for number in range(1, args.rounds + 1):
        slow = counted(settings, blocking, max(1, args.messages // 15))
        fast = counted(settings, pipelined, args.messages)
        ratios.append(fast / slow)
        console.say(f"round {number}: BlockingConnection {slow:,.0f}/s, Publisher {fast:,.0f}/s: x {ratios[-1]:.1f}")
    console.say(f"median ratio: x {statistics.median(ratios):.1f}")
    with connect("clean up", settings) as connection:
        connection.channel().queue_delete(QUEUE)


if __name__ == "__main__":
    console.run(main)
