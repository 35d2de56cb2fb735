"""The ways to publish that are compared. Each sends ``count`` messages to a queue and returns the seconds it took.

The clock runs from the first message, with the connection open, to the last confirm. All messages are persistent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from urllib.parse import quote

from pika import BasicProperties, DeliveryMode

from common.config import Settings
from common.connection import connect
from robust_pika import Publisher

GATHERED = 500
"""Messages that are awaited together with aio-pika."""


def persistent() -> BasicProperties:
    """The properties of a message that survives a restart of the broker."""
    return BasicProperties(delivery_mode=DeliveryMode.Persistent)


def url(settings: Settings, scheme: str = "amqp") -> str:
    """The broker's URL, for the libraries that want one. The password is in it: not to be shown."""
    user, password, vhost = (quote(text, safe="") for text in (settings.user, settings.password, settings.vhost))
    return f"{scheme}://{user}:{password}@{settings.addresses[0]}/{vhost}"


def ours(settings: Settings, queue: str, count: int, body: bytes, window: int = 1000) -> float:
    """robust_pika.Publisher as it is."""
    properties = persistent()
    with Publisher("benchmarks", settings, window=window) as publisher:
        start = time.perf_counter()
        for _ in range(count):
            publisher.publish("", queue, body, properties)
        publisher.flush()
        return time.perf_counter() - start


def pika_blocking(settings: Settings, queue: str, count: int, body: bytes, confirms: bool = True) -> float:
    """pika's BlockingConnection: with confirms, it waits for each; without, nobody knows what has arrived."""
    properties = persistent()
    with connect("benchmarks", settings) as connection:
        channel = connection.channel()
        if confirms:
            channel.confirm_delivery()
        start = time.perf_counter()
        for _ in range(count):
            channel.basic_publish("", queue, body, properties, mandatory=confirms)
        # The answer comes when the broker has read all that was sent before the question.
        channel.queue_declare(queue, passive=True)
        return time.perf_counter() - start


def aio_pika_gathered(settings: Settings, queue: str, count: int, body: bytes) -> float:
    """aio-pika with confirms, GATHERED at a time: the fastest that its interface offers."""
    import aio_pika  # noqa: PLC0415

    async def run() -> float:
        connection = await aio_pika.connect(url(settings))
        async with connection:
            channel = await connection.channel(publisher_confirms=True)
            exchange = channel.default_exchange
            start = time.perf_counter()
            for first in range(0, count, GATHERED):
                messages = (
                    aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                    for _ in range(min(GATHERED, count - first))
                )
                await asyncio.gather(*(exchange.publish(message, queue) for message in messages))
            return time.perf_counter() - start

    return asyncio.run(run())


def kombu_confirmed(settings: Settings, queue: str, count: int, body: bytes) -> float:
    """kombu with confirms, which waits for each."""
    import kombu  # noqa: PLC0415

    with kombu.Connection(url(settings, "pyamqp"), transport_options={"confirm_publish": True}) as connection:
        producer = connection.Producer()
        start = time.perf_counter()
        for _ in range(count):
            producer.publish(
                body,
                exchange="",
                routing_key=queue,
                delivery_mode=2,
                content_type="application/data",
                content_encoding="binary",
            )
        return time.perf_counter() - start


def celery_enqueue(settings: Settings, queue: str, count: int, body: bytes) -> float:
    """Celery: tasks with confirms, each of them a message of several hundred bytes around ours."""
    import celery  # noqa: PLC0415
    import kombu  # noqa: PLC0415

    with celery.Celery("benchmarks", broker=url(settings, "pyamqp"), set_as_current=False) as app:
        app.conf.update(
            broker_transport_options={"confirm_publish": True}, task_ignore_result=True, broker_connection_retry=False
        )
        target = kombu.Queue(
            queue, kombu.Exchange(""), routing_key=queue, queue_arguments={"x-queue-type": "quorum"}, durable=True
        )
        text = body.decode()
        with app.producer_pool.acquire(block=True) as producer:
            start = time.perf_counter()
            for _ in range(count):
                app.send_task("benchmarks.task", args=(text,), queue=target, producer=producer)
            return time.perf_counter() - start


def dramatiq_enqueue(settings: Settings, queue: str, count: int, body: bytes) -> float:
    """Dramatiq: messages with confirms to a classic queue of its own (it makes no other)."""
    from dramatiq import Message  # noqa: PLC0415
    from dramatiq.brokers.rabbitmq import RabbitmqBroker  # noqa: PLC0415

    broker = RabbitmqBroker(url=url(settings), confirm_delivery=True)
    try:
        own = f"{queue}.dramatiq"
        broker.declare_queue(own, ensure=True)
        text = body.decode()
        start = time.perf_counter()
        for _ in range(count):
            broker.enqueue(Message(queue_name=own, actor_name="task", args=(text,), kwargs={}, options={}))
        return time.perf_counter() - start
    finally:
        broker.close()


def stream_port() -> int:
    """Where the stream protocol is spoken."""
    return int(os.environ.get("RABBITMQ_STREAM_PORT") or 5552)


def rstream_confirmed(settings: Settings, queue: str, count: int, body: bytes) -> float:
    """rstream: RabbitMQ's stream protocol instead of AMQP, in batches, confirmed."""
    from rstream import Producer  # noqa: PLC0415

    logging.getLogger("rstream").setLevel(logging.CRITICAL)

    async def run() -> float:
        confirmed = 0
        done = asyncio.Event()

        def on_confirm(status: object) -> None:
            nonlocal confirmed
            assert getattr(status, "is_confirmed", False), "the broker did not take it"
            confirmed += 1
            if confirmed == count:
                done.set()

        async with Producer(
            settings.addresses[0].host,
            stream_port(),
            vhost=settings.vhost,
            username=settings.user,
            password=settings.password,
            load_balancer_mode=False,
        ) as producer:
            start = time.perf_counter()
            for first in range(0, count, 1000):
                while first - confirmed > 20_000:
                    await asyncio.sleep(0.0005)
                await producer.send_batch(queue, [body] * min(1000, count - first), on_publish_confirm=on_confirm)
            await asyncio.wait_for(done.wait(), 60)
            return time.perf_counter() - start

    return asyncio.run(run())


def message_count(settings: Settings, queue: str) -> int:
    """The messages in the queue."""
    with connect("benchmarks", settings) as connection:
        return int(connection.channel().queue_declare(queue, passive=True).method.message_count)


def purge(settings: Settings, queue: str) -> None:
    """Empty the queue."""
    with connect("benchmarks", settings) as connection:
        connection.channel().queue_purge(queue)
