"""What the sections run in another process: ``python -m benchmarks.child WHAT QUEUE …``."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable

import psutil
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic

from benchmarks import publishers
from common import console
from common.config import Settings
from common.connection import connect
from robust_pika import Message, Outcome, Publisher, consume


def publish(settings: Settings, queue: str, count: str) -> None:
    """Publish so many messages when a line comes in, and say when they are confirmed."""
    with Publisher("benchmarks", settings) as publisher:
        console.say("ready")
        sys.stdin.readline()
        for _ in range(int(count)):
            publisher.publish("", queue, b"x" * 100)
        publisher.flush()
        console.say("done")


def receive(settings: Settings, queue: str, way: str, count: str) -> None:
    """Take so many messages whose body is when they were due, and say how late each came, in seconds."""
    late: list[float] = []
    total = int(count)
    ways: dict[str, Callable[[], None]] = {
        "ours": lambda: receive_ours(settings, queue, total, late),
        "pika": lambda: receive_pika(settings, queue, total, late),
        "aio-pika": lambda: asyncio.run(receive_aio_pika(settings, queue, total, late)),
    }
    ways[way]()
    console.say(json.dumps(late))


def receive_ours(settings: Settings, queue: str, count: int, late: list[float]) -> None:
    stop = threading.Event()

    def handle(message: Message) -> Outcome:
        late.append(time.monotonic() - float(message.body[:32]))
        if len(late) == count:
            stop.set()
        return Outcome.ACK

    consume(
        "benchmarks", settings, lambda _channel: queue, handle, prefetch=200, on_ready=lambda _: console.say("ready"),
        stop=stop,
    )  # fmt: skip


def receive_pika(settings: Settings, queue: str, count: int, late: list[float]) -> None:
    def on_message(channel: BlockingChannel, method: Basic.Deliver, _properties: BasicProperties, body: bytes) -> None:
        late.append(time.monotonic() - float(body[:32]))
        channel.basic_ack(method.delivery_tag)
        if len(late) == count:
            channel.stop_consuming()

    with connect("benchmarks", settings) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=200)
        channel.basic_consume(queue, on_message)
        console.say("ready")
        channel.start_consuming()


async def receive_aio_pika(settings: Settings, queue: str, count: int, late: list[float]) -> None:
    import aio_pika  # noqa: PLC0415
    from aio_pika.abc import AbstractIncomingMessage  # noqa: PLC0415

    finished = asyncio.Event()

    async def on_message(message: AbstractIncomingMessage) -> None:
        late.append(time.monotonic() - float(message.body[:32]))
        await message.ack()
        if len(late) == count:
            finished.set()

    async with await aio_pika.connect(publishers.url(settings)) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=200)
        await (await channel.get_queue(queue)).consume(on_message)
        console.say("ready")
        await finished.wait()


def first(settings: Settings, queue: str, way: str) -> None:
    """Publish one message and end."""
    ways = {
        "ours": publishers.ours,
        "pika": publishers.pika_blocking,
        "aio-pika": publishers.aio_pika_gathered,
        "kombu": publishers.kombu_confirmed,
    }
    ways[way](settings, queue, 1, b"x" * 100)


def memory(settings: Settings, queue: str, window: str) -> None:
    """Fill the window and say how many KiB that took, at most."""
    process = psutil.Process()
    with Publisher("benchmarks", settings, window=int(window)) as publisher:
        publisher.publish("", queue, b"x" * 100).wait()
        before = most = process.memory_info().rss
        for number in range(3 * int(window)):
            publisher.publish("", queue, b"x" * 100, publishers.persistent())
            if number % 500 == 0:
                most = max(most, process.memory_info().rss)
        most = max(most, process.memory_info().rss)
        publisher.flush()
    console.say(f"{(most - before) / 1024:.0f}")


def compute(settings: Settings, queue: str) -> None:
    """A worker whose tasks keep the processor busy, until the process is ended."""
    stop = threading.Event()

    def handle(_message: Message) -> Outcome:
        sum(number * number for number in range(100_000))
        return Outcome.ACK

    consume(
        "benchmarks", settings, lambda _channel: queue, handle, prefetch=2, on_ready=lambda _: console.say("ready"),
        stop=stop,
    )  # fmt: skip


def steady(settings: Settings, queue: str, rate: str, seconds: str) -> None:
    """Publish and consume at a rate, and say every so often what this process holds."""
    process = psutil.Process()
    stop = threading.Event()

    def handle(_message: Message) -> Outcome:
        return Outcome.ACK

    def produce() -> None:
        start = time.monotonic()
        samples: list[tuple[float, float, int, int]] = []
        due = float(seconds) / 20
        with Publisher("benchmarks", settings) as publisher:
            number = 0
            while (now := time.monotonic() - start) < float(seconds):
                while number < now * float(rate):
                    publisher.publish("", queue, b"x" * 100)
                    number += 1
                if now >= due * len(samples):
                    samples.append((now, process.memory_info().rss / 2**20, process.num_threads(), process.num_fds()))
                time.sleep(0.005)
        console.say(json.dumps(samples))
        stop.set()

    thread = threading.Thread(target=produce)
    thread.start()
    consume("benchmarks", settings, lambda _channel: queue, handle, prefetch=200, stop=stop)
    thread.join()


def main() -> None:
    """Do what the arguments say."""
    what, *arguments = sys.argv[1:]
    jobs: dict[str, Callable[..., None]] = {
        "publish": publish,
        "receive": receive,
        "first": first,
        "memory": memory,
        "compute": compute,
        "steady": steady,
    }
    jobs[what](Settings.load(), *arguments)


if __name__ == "__main__":
    console.run(main)
