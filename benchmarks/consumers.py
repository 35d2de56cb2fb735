"""The ways to consume that are compared. Each takes ``count`` messages from a queue and returns the seconds it took.

The clock runs from when the consumer is registered to the last acknowledgement given. The handler does nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from contextlib import suppress

from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic

from benchmarks.publishers import stream_port, url
from common.config import Settings
from common.connection import connect
from robust_pika import DeclaringChannel, Message, Outcome, consume


def ours(settings: Settings, queue: str, count: int, prefetch: int, threads: int = 1, *, stream: bool = False) -> float:
    """robust_pika.consume as it is; a ``stream`` from its beginning."""
    stop = threading.Event()
    numbers = itertools.count(1)
    start = end = 0.0

    def begin(_queue: str) -> None:
        nonlocal start
        start = time.perf_counter()

    def handle(_message: Message) -> Outcome:
        nonlocal end
        if next(numbers) == count:
            end = time.perf_counter()
            stop.set()
        return Outcome.ACK

    def declare(_channel: DeclaringChannel) -> str:
        return queue

    arguments = {"x-stream-offset": "first"} if stream else None
    consume(
        "benchmarks",
        settings,
        declare,
        handle,
        prefetch=prefetch,
        threads=threads,
        arguments=arguments,
        on_ready=begin,
        stop=stop,
    )
    return end - start


def pika_blocking(settings: Settings, queue: str, count: int, prefetch: int, ack_every: int = 1) -> float:
    """pika's BlockingConnection, with one acknowledgement for every ``ack_every`` messages."""
    done = 0

    def on_message(channel: BlockingChannel, method: Basic.Deliver, _properties: BasicProperties, _body: bytes) -> None:
        nonlocal done
        done += 1
        if done % ack_every == 0 or done == count:
            channel.basic_ack(method.delivery_tag, multiple=ack_every > 1)
        if done == count:
            channel.stop_consuming()

    with connect("benchmarks", settings) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=prefetch)
        channel.basic_consume(queue, on_message)
        start = time.perf_counter()
        channel.start_consuming()
        return time.perf_counter() - start


def aio_pika_consume(settings: Settings, queue: str, count: int, prefetch: int) -> float:
    """aio-pika with a callback that acknowledges each message."""
    import aio_pika  # noqa: PLC0415
    from aio_pika.abc import AbstractIncomingMessage  # noqa: PLC0415

    async def run() -> float:
        done = 0
        finished = asyncio.Event()

        async def on_message(message: AbstractIncomingMessage) -> None:
            nonlocal done
            await message.ack()
            done += 1
            if done == count:
                finished.set()

        connection = await aio_pika.connect(url(settings))
        async with connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=prefetch)
            source = await channel.get_queue(queue)
            start = time.perf_counter()
            await source.consume(on_message)
            await finished.wait()
            return time.perf_counter() - start

    return asyncio.run(run())


def kombu_consume(settings: Settings, queue: str, count: int, prefetch: int) -> float:
    """kombu with a callback that acknowledges each message."""
    import kombu  # noqa: PLC0415

    done = 0

    def on_message(message: kombu.Message) -> None:
        nonlocal done
        message.ack()
        done += 1

    with kombu.Connection(url(settings, "pyamqp")) as connection:
        source = kombu.Queue(queue, no_declare=True)
        consumer = kombu.Consumer(
            connection, [source], on_message=on_message, prefetch_count=prefetch, accept=["application/data"]
        )
        with consumer:
            start = time.perf_counter()
            while done < count:
                connection.drain_events(timeout=60)
            return time.perf_counter() - start


def rstream_consume(settings: Settings, queue: str, count: int) -> float:
    """rstream: the stream protocol, which has no acknowledgements; the reader keeps its place itself."""
    from rstream import Consumer, ConsumerOffsetSpecification, OffsetType  # noqa: PLC0415

    logging.getLogger("rstream").setLevel(logging.CRITICAL)

    async def run() -> float:
        done = 0
        finished = asyncio.Event()

        def on_message(_message: bytes, _context: object) -> None:
            nonlocal done
            done += 1
            if done == count:
                finished.set()

        consumer = Consumer(
            settings.addresses[0].host,
            stream_port(),
            vhost=settings.vhost,
            username=settings.user,
            password=settings.password,
        )
        await consumer.start()
        start = time.perf_counter()
        await consumer.subscribe(
            queue, on_message, offset_specification=ConsumerOffsetSpecification(OffsetType.FIRST, None)
        )
        await asyncio.wait_for(finished.wait(), 60)
        seconds = time.perf_counter() - start
        with suppress(Exception):  # the figure is there; an error while this library closes does not matter
            await consumer.close()
        return seconds

    return asyncio.run(run())
