"""From end to end: how long a message is under way, at rates that the clients can keep up with.

Each message carries the moment at which it was due, not that at which it was sent: a publisher that falls behind does
not hide it. Publisher and consumer are two processes; the clock is the machine's.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator

from benchmarks.measure import Goal, Lab
from benchmarks.publishers import persistent, url
from common.config import Settings
from common.connection import connect
from robust_pika import Publisher

OURS = "robust_pika"
AIO_PIKA = "aio-pika"
PIKA = "pika, one confirm at a time"
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
UNLIMITED = 1e9


def run(lab: Lab) -> list[Goal]:
    """Percentiles at fixed rates, and at half of what aio-pika can do."""
    ways: dict[str, tuple[str, Callable[[Settings, str, float, int], None]]] = {
        OURS: ("ours", publish_ours),
        PIKA: ("pika", publish_pika),
    }
    if lab.has("aio_pika"):
        ways[AIO_PIKA] = ("aio-pika", publish_aio_pika)
    half = 0.0
    if AIO_PIKA in ways:
        saturation = lab.table("saturation", "End to end: as fast as it goes", "messages/s", OURS)
        for number in range(1, lab.rounds + 1):
            for name in (OURS, AIO_PIKA):
                count = max(20, round(lab.seconds * (12_000 if name == OURS else 3000)))
                late = measure(lab, *ways[name], UNLIMITED, count)
                saturation.row(name).values.append(count / max(late))
            lab.tell(saturation, number)
        half = max(50, round(saturation.row(AIO_PIKA).median / 2, -1))
    rates = sorted({200.0, *([] if lab.quick else [500.0, 1000.0, 2000.0]), *([half] if half else [])})
    tables = {
        key: lab.table(f"latency-{key}", f"End to end: {key} of the delay", "ms", OURS, "messages/s")
        for key in PERCENTILES
    }
    for number in range(1, lab.rounds + 1):
        for rate in rates:
            for name, way in ways.items():
                if name == PIKA and rate > 500:
                    continue  # it cannot
                count = max(20, round(rate * lab.seconds * 1.5))
                ordered = sorted(measure(lab, *way, rate, count))
                for key, share in PERCENTILES.items():
                    value = ordered[min(len(ordered) - 1, int(share * len(ordered)))]
                    tables[key].row(name, rate).values.append(value * 1000)
        lab.tell(tables["p99"], number)
    return [
        Goal(
            f"p99 of the delay at half of what aio-pika can do ({half:,.0f}/s): robust_pika to aio-pika, at most",
            1,
            tables["p99"].ratio(AIO_PIKA, half) if half else None,
            below=True,
        )
    ]


def measure(
    lab: Lab, kind: str, publish: Callable[[Settings, str, float, int], None], rate: float, count: int
) -> list[float]:
    """How late each message came, in seconds."""
    with lab.queue() as queue, lab.child("receive", queue, kind, str(count)) as child:
        child.line("ready")
        publish(lab.settings, queue, rate, count)
        late: list[float] = json.loads(child.end())
        return late


def due(rate: float, count: int) -> Iterator[float]:
    """The moments at which messages are due; without a limit of the rate, all of them at once."""
    start = time.monotonic()
    return (start + number / rate for number in range(count))


def stamp(moment: float) -> bytes:
    """100 bytes that begin with the moment."""
    return f"{moment:<32.9f}".encode().ljust(100, b"x")


def publish_ours(settings: Settings, queue: str, rate: float, count: int) -> None:
    """robust_pika.Publisher."""
    properties = persistent()
    with Publisher("benchmarks", settings) as publisher:
        for moment in due(rate, count):
            if (wait := moment - time.monotonic()) > 0:
                time.sleep(wait)
            publisher.publish("", queue, stamp(moment), properties)


def publish_pika(settings: Settings, queue: str, rate: float, count: int) -> None:
    """pika's BlockingConnection."""
    properties = persistent()
    with connect("benchmarks", settings) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for moment in due(rate, count):
            if (wait := moment - time.monotonic()) > 0:
                time.sleep(wait)
            channel.basic_publish("", queue, stamp(moment), properties, mandatory=True)


def publish_aio_pika(settings: Settings, queue: str, rate: float, count: int) -> None:
    """aio-pika, each message in a task of its own, at most 500 at once."""
    import aio_pika  # noqa: PLC0415

    async def run() -> None:
        async with await aio_pika.connect(url(settings)) as connection:
            channel = await connection.channel(publisher_confirms=True)
            room = asyncio.Semaphore(500)

            async def send(moment: float) -> None:
                message = aio_pika.Message(stamp(moment), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                await channel.default_exchange.publish(message, queue)
                room.release()

            tasks = []
            for moment in due(rate, count):
                if (wait := moment - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                await room.acquire()
                tasks.append(asyncio.create_task(send(moment)))
            await asyncio.gather(*tasks)

    asyncio.run(run())
