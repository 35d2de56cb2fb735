"""Consuming with acknowledgements: the ladder, the queue types, and what prefetch, threads and acknowledging change."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import consumers, publishers
from benchmarks.measure import Contender, Goal, Lab, Table
from benchmarks.publishing import BODY, complete, streams
from benchmarks.yardstick import Yardstick, compiled

PREFETCH = 200
OURS = "robust_pika.consume, prefetch 200"
ONE = "pika, prefetch 1"
AIO_PIKA = "aio-pika, prefetch 200"
C = "C (librabbitmq), one ack for 50"


def run(lab: Lab) -> list[Goal]:
    """All of it; the goals are those of the quorum queue."""
    with compiled(lab) as yardstick:
        quorum = by_type(lab, "quorum", yardstick)
        if not lab.quick:
            by_type(lab, "classic", yardstick)
    by_stream(lab)
    sweeps(lab)
    return [
        Goal("consuming with acks: robust_pika.consume to pika with prefetch 1", 15, quorum.ratio(ONE)),
        Goal("consuming with acks: robust_pika.consume to aio-pika", 2, quorum.ratio(AIO_PIKA)),
        Goal("consuming with acks: robust_pika.consume to the C client", 0.6, quorum.ratio(C)),
    ]


def by_type(lab: Lab, kind: str, yardstick: Yardstick | None) -> Table:
    """The contenders on one type of queue."""
    title = f"Consuming with acknowledgements, 100 bytes, {kind} queue"
    table = lab.table(f"consuming-{kind}", title, "messages/s", OURS)
    settings = lab.settings
    contenders = [
        Contender(
            OURS, out_of(lab, kind, lambda q, n: consumers.ours(settings, q, n, PREFETCH), emptied=True), pace=8000
        ),
        Contender(ONE, out_of(lab, kind, lambda q, n: consumers.pika_blocking(settings, q, n, 1))),
        Contender(
            "pika, prefetch 200, an ack for each",
            out_of(lab, kind, lambda q, n: consumers.pika_blocking(settings, q, n, PREFETCH)),
            pace=4000,
        ),
        Contender(
            AIO_PIKA,
            out_of(lab, kind, lambda q, n: consumers.aio_pika_consume(settings, q, n, 200)),
            "aio_pika",
            pace=2000,
        ),
    ]
    if kind == "quorum":
        contenders += [
            Contender(
                "pika, prefetch 200, one ack for 50",
                out_of(lab, kind, lambda q, n: consumers.pika_blocking(settings, q, n, PREFETCH, 50)),
                pace=8000,
            ),
            Contender(
                "kombu, prefetch 200",
                out_of(lab, kind, lambda q, n: consumers.kombu_consume(settings, q, n, 200)),
                "kombu",
                pace=4000,
            ),
        ]
    if yardstick is not None:
        contenders.append(
            Contender(C, out_of(lab, kind, lambda q, n: yardstick.consume(q, n, PREFETCH, 50)), pace=15_000)
        )
    lab.contest(table, contenders)
    return table


def out_of(lab: Lab, kind: str, way: Callable[[str, int], float], *, emptied: bool = False) -> Callable[[int], float]:
    """This way out of a new queue that was filled.

    All of them count what they get. Only for ours is it checked that the queue is empty afterwards: the others close at
    once, and then RabbitMQ drops acknowledgements that it has not yet passed on to a quorum queue.
    """

    def turn(count: int) -> float:
        with lab.queue(kind) as queue:
            publishers.ours(lab.settings, queue, count, BODY)
            seconds = way(queue, count)
            if emptied:
                complete(lab, queue, 0)
            return seconds

    return turn


def by_stream(lab: Lab) -> None:
    """A stream is read, not emptied."""
    ours = "robust_pika.consume (AMQP), prefetch 1,000"
    table = lab.table("consuming-stream", "Reading a stream, 100 bytes", "messages/s", ours)
    settings = lab.settings
    contenders = [
        Contender(
            ours, out_of(lab, "stream", lambda q, n: consumers.ours(settings, q, n, 1000, stream=True)), pace=10_000
        )
    ]
    if streams(lab):
        contenders.append(
            Contender(
                "rstream (stream protocol)",
                out_of(lab, "stream", lambda q, n: consumers.rstream_consume(settings, q, n)),
                pace=50_000,
            )
        )
    lab.contest(table, contenders, part=0.5)


def sweeps(lab: Lab) -> None:
    """What one setting changes, all else as it was."""
    settings = lab.settings

    def ours(prefetch: int, threads: int) -> Callable[[int], float]:
        return out_of(lab, "quorum", lambda q, n: consumers.ours(settings, q, n, prefetch, threads), emptied=True)

    prefetches = [1, 100, 1000] if lab.quick else [1, 10, 50, 100, 200, 500, 1000, 2000]
    table = lab.table("prefetch", "Consuming: the prefetch", "messages/s", axis="prefetch")
    lab.contest(
        table,
        [
            Contender("robust_pika.consume", ours(number, 1), x=number, pace=80 * min(number, 100))
            for number in prefetches
        ],
        part=0.5,
    )
    if lab.quick:
        return
    threads = [1, 2, 4, 8]
    table = lab.table("threads", "Consuming: handler threads (the handler does nothing)", "messages/s", axis="threads")
    lab.contest(
        table,
        [Contender("robust_pika.consume", ours(PREFETCH, number), x=number, pace=8000) for number in threads],
        part=0.5,
    )
    table = lab.table(
        "acks", "Consuming: messages for each acknowledgement (pika, prefetch 200)", "messages/s", axis="each"
    )

    def in_pika(every: int) -> Callable[[int], float]:
        return out_of(lab, "quorum", lambda q, n: consumers.pika_blocking(settings, q, n, PREFETCH, every))

    every = [1, 5, 20, 50, 100]
    lab.contest(table, [Contender("pika", in_pika(number), x=number, pace=4000) for number in every], part=0.5)
