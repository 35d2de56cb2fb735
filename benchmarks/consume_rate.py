"""common.consume against pika's BlockingConnection with prefetch 1, on the broker of the settings.

Quorum queue, persistent messages of 100 bytes, a handler that does nothing, every message acknowledged. The two take
turns, so that whatever else the machine does hits both. Prints the rate of each round and the median of the ratios:

    python benchmarks/consume_rate.py [--rounds 5] [--messages 50000]
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

from pika import BasicProperties, DeliveryMode
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic

from common import console
from common.config import Settings
from common.connection import connect
from common.consumer import Outcome, consume
from common.messages import Message
from common.publisher import Publisher

QUEUE = "benchmarks.consume_rate"
BODY = b"x" * 100


def declare(channel: BlockingChannel) -> str:
    channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    return QUEUE


def one_by_one(settings: Settings, count: int) -> float:
    """Messages per second, each acknowledged before the next is sent."""
    left = count

    def on_message(channel: BlockingChannel, method: Basic.Deliver, _properties: BasicProperties, _body: bytes) -> None:
        nonlocal left
        channel.basic_ack(method.delivery_tag)
        left -= 1
        if not left:
            channel.stop_consuming()

    with connect("one by one", settings) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(QUEUE, on_message)
        start = time.perf_counter()
        channel.start_consuming()
        return count / (time.perf_counter() - start)


def consuming(settings: Settings, count: int) -> float:
    """Messages per second with common.consume as it is, prefetch and all."""
    stop = threading.Event()
    seen = 0
    start = end = 0.0

    def begin(_queue: str) -> None:
        nonlocal start
        start = time.perf_counter()

    def handle(_message: Message) -> Outcome:
        nonlocal seen, end
        seen += 1
        if seen == count:
            end = time.perf_counter()
            stop.set()
        return Outcome.ACK

    consume("consuming", settings, declare, handle, on_ready=begin, stop=stop)
    return count / (end - start)


def counted(settings: Settings, run: Callable[[Settings, int], float], count: int) -> float:
    """Fill the queue, run, and see that it is empty again: every message was acknowledged."""
    properties = BasicProperties(delivery_mode=DeliveryMode.Persistent)
    with Publisher("fill", settings, declare=declare) as publisher:
        for _ in range(count):
            publisher.publish("", QUEUE, BODY, properties)
    rate = run(settings, count)
    with connect("count", settings) as connection:
        left = connection.channel().queue_declare(QUEUE, passive=True).method.message_count
    if left:
        raise SystemExit(f"{left} of {count} messages are still in the queue")
    return rate


def main() -> None:
    arguments = console.parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=5, help="how often each has its turn (default: 5)")
    arguments.add_argument("--messages", type=int, default=50_000, help="for consume; a 15th for the other")
    args = arguments.parse_args()
    settings = Settings.load()
    with connect("declare", settings) as connection:
        channel = connection.channel()
        channel.queue_purge(declare(channel))
    ratios = []
    for number in range(1, args.rounds + 1):
        slow = counted(settings, one_by_one, max(1, args.messages // 15))
        fast = counted(settings, consuming, args.messages)
        ratios.append(fast / slow)
        console.say(f"round {number}: prefetch 1 {slow:,.0f}/s, consume {fast:,.0f}/s: x {ratios[-1]:.1f}")
    console.say(f"median ratio: x {statistics.median(ratios):.1f}")
    with connect("clean up", settings) as connection:
        connection.channel().queue_delete(QUEUE)


if __name__ == "__main__":
    console.run(main)
