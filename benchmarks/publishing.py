"""Publishing with confirms: the ladder, the queue types, and what the window and the size of a message change."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from benchmarks import publishers
from benchmarks.measure import Contender, Goal, Lab, Table
from benchmarks.yardstick import Yardstick, compiled
from robust_pika import ConnectionFailure

BODY = b"x" * 100
WINDOW = 1000
OURS = "robust_pika.Publisher"
BLOCKING = "pika, one confirm at a time"
GATHERED = "aio-pika, 500 gathered"
KOMBU = "kombu, with confirms"
C = "C (librabbitmq), window 1,000"
LIMIT = 60.0
"""Seconds that the broker may take to show what it has confirmed."""

Way = Callable[..., float]


def run(lab: Lab) -> list[Goal]:
    """All of it; the goals are those of the quorum queue."""
    with compiled(lab) as yardstick:
        quorum = by_type(lab, "quorum", yardstick)
        if not lab.quick:
            by_type(lab, "classic", yardstick)
        by_type(lab, "stream", yardstick)
    sweeps(lab)
    return [
        Goal(
            "publishing with confirms: robust_pika.Publisher to pika, one confirm at a time", 25, quorum.ratio(BLOCKING)
        ),
        Goal("publishing with confirms: robust_pika.Publisher to aio-pika", 3, quorum.ratio(GATHERED)),
        Goal("publishing with confirms: robust_pika.Publisher to kombu", 3, quorum.ratio(KOMBU)),
        Goal("publishing with confirms: robust_pika.Publisher to the C client", 0.9, quorum.ratio(C)),
    ]


def by_type(lab: Lab, kind: str, yardstick: Yardstick | None) -> Table:
    """The contenders on one type of queue."""
    table = lab.table(f"publishing-{kind}", f"Publishing with confirms, 100 bytes, {kind} queue", "messages/s", OURS)
    contenders = [
        Contender(OURS, into(lab, kind, publishers.ours), pace=10_000),
        Contender(BLOCKING, into(lab, kind, publishers.pika_blocking)),
        Contender(GATHERED, into(lab, kind, publishers.aio_pika_gathered), "aio_pika", pace=1500),
    ]
    if kind == "quorum":
        contenders += [
            Contender(
                "pika, no confirms (may lose messages)",
                into(lab, kind, publishers.pika_blocking, confirms=False),
                pace=5000,
            ),
            Contender(KOMBU, into(lab, kind, publishers.kombu_confirmed), "kombu"),
            Contender("celery, send_task", into(lab, kind, publishers.celery_enqueue), "celery"),
            Contender("dramatiq, enqueue (classic queue)", into(lab, "", publishers.dramatiq_enqueue), "dramatiq"),
        ]
    if kind == "stream" and streams(lab):
        contenders.append(
            Contender("rstream (stream protocol)", into(lab, kind, publishers.rstream_confirmed), pace=100_000)
        )
    if yardstick is not None:
        contenders.append(Contender(C, lambda count: in_c(lab, kind, yardstick, count), pace=10_000))
    lab.contest(table, contenders)
    return table


def into(lab: Lab, kind: str, way: Way, body: bytes = BODY, **options: object) -> Callable[[int], float]:
    """This way into a new queue, and a look whether all of the messages are in it (where the broker can tell)."""

    def turn(count: int) -> float:
        with lab.queue(kind or "classic") as queue:
            seconds = way(lab.settings, queue, count, body, **options)
            if kind in ("quorum", "classic"):
                complete(lab, queue, count)
            return seconds

    return turn


def in_c(lab: Lab, kind: str, yardstick: Yardstick, count: int) -> float:
    with lab.queue(kind) as queue:
        seconds = yardstick.publish(queue, count, len(BODY), WINDOW)
        if kind != "stream":
            complete(lab, queue, count)
        return seconds


def complete(lab: Lab, queue: str, count: int) -> None:
    """Wait until all messages are in the queue; a benchmark that loses some measures nothing."""
    end = time.monotonic() + LIMIT
    while (found := publishers.message_count(lab.settings, queue)) != count and time.monotonic() < end:
        time.sleep(0.05)
    if found != count:
        raise ConnectionFailure(f"{found:,} of {count:,} messages are in queue {queue!r}")


def streams(lab: Lab) -> bool:
    """Whether the stream protocol can be measured."""
    if not lab.has("rstream"):
        return False
    try:
        with lab.queue("stream") as queue:
            publishers.rstream_confirmed(lab.settings, queue, 1, BODY)
    except Exception as error:  # whatever this library raises when nothing speaks streams there
        lab.skip(f"the stream protocol does not answer at port {publishers.stream_port()} ({type(error).__name__})")
        return False
    return True


def sweeps(lab: Lab) -> None:
    """What one setting changes, all else as it was."""
    windows = [1, 100, 1000] if lab.quick else [1, 10, 100, 1000, 10_000]
    table = lab.table("window", "Publishing: messages in flight", "messages/s", axis="window")
    lab.contest(
        table,
        [
            Contender(OURS, into(lab, "quorum", publishers.ours, window=window), x=window, pace=100 * min(window, 100))
            for window in windows
        ],
        part=0.5,
    )
    if lab.quick:
        return
    sizes = [10, 100, 1000, 10_000, 100_000, 1_048_576]
    table = lab.table("size", "Publishing: the size of a message", "messages/s", axis="bytes")
    lab.contest(
        table,
        [
            Contender(OURS, into(lab, "quorum", publishers.ours, body=b"x" * size), x=size, pace=1e7 / (size + 1000))
            for size in sizes
        ],
        part=0.5,
    )
    counts = [1, 2, 4]
    table = lab.table("producers", "Publishing: processes that publish at once", "messages/s in all", axis="processes")
    lab.contest(table, [Contender(OURS, partial(together, lab, number), x=number, pace=10_000) for number in counts])


def together(lab: Lab, processes: int, count: int) -> float:
    """So many processes, each with its Publisher, publish ``count`` messages in all to one queue."""
    share = -(-count // processes)
    with lab.queue() as queue, ExitStack() as stack:
        children = [stack.enter_context(lab.child("publish", queue, str(share))) for _ in range(processes)]
        for child in children:
            child.line("ready")
        start = time.perf_counter()
        for child in children:
            child.tell("go")
        for child in children:
            child.line("done")
        return (time.perf_counter() - start) * count / (share * processes)
