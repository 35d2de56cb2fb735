"""What happens when there is more of it: workers, subscribers, queues, messages that wait."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from functools import partial

from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic

from benchmarks import publishers
from benchmarks.measure import Contender, Goal, Lab, figure
from benchmarks.publishing import BODY
from common import console
from common.connection import connect
from extras.management import Management
from robust_pika import ConnectionFailure, Message, Outcome, Publisher, consume

WAIT = 0.1
"""Seconds that a task waits: for a web service, say."""

LIMIT = 120.0


def run(lab: Lab) -> list[Goal]:
    """All of it."""
    waiting = workers_that_wait(lab)
    workers_that_compute(lab)
    subscribers(lab)
    queues(lab)
    return [*waiting, backlog(lab)]


def workers_that_wait(lab: Lab) -> list[Goal]:
    """Workers, each a consumer with a connection of its own, on tasks that wait for something else."""
    title = f"Workers on tasks that wait {WAIT * 1000:.0f} ms: efficiency"
    table = lab.table("waiting", title, "share of the ideal", axis="workers")
    numbers = [1, 4, 16] if lab.quick else [1, 2, 4, 8, 16, 32, 64]
    for number in range(1, lab.rounds + 1):
        for workers in numbers:
            table.row("robust_pika.consume", float(workers)).values.append(efficiency(lab, workers))
        lab.tell(table, number)
    medians = {row.x: row.median for row in table.rows}
    return [
        Goal("16 workers on tasks that wait: efficiency", 0.95, medians.get(16.0)),
        Goal("64 workers on tasks that wait: efficiency", 0.9, medians.get(64.0)),
    ]


def efficiency(lab: Lab, workers: int) -> float:
    """The time that the tasks wait, shared by the workers, to the time it all took."""
    share = max(3, round(lab.seconds * 3 / WAIT))
    tasks = share * workers
    stop, ready, done = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)

    def handle(_message: Message) -> Outcome:
        time.sleep(WAIT)
        done.release()
        return Outcome.ACK

    with lab.queue() as queue:

        def work() -> None:
            consume(
                "benchmarks", lab.settings, lambda _channel: queue, handle, prefetch=2,
                on_ready=lambda _: ready.release(), stop=stop,
            )  # fmt: skip

        threads = [threading.Thread(target=work) for _ in range(workers)]
        try:
            for thread in threads:
                thread.start()
            for _ in threads:
                if not ready.acquire(timeout=LIMIT):
                    raise ConnectionFailure("a worker did not start")
            with Publisher("benchmarks", lab.settings) as publisher:
                start = time.perf_counter()
                for _ in range(tasks):
                    publisher.publish("", queue, BODY)
            for _ in range(tasks):
                if not done.acquire(timeout=LIMIT):
                    raise ConnectionFailure("a task was not done")
            seconds = time.perf_counter() - start
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    return tasks * WAIT / workers / seconds


def workers_that_compute(lab: Lab) -> None:
    """One process and two, on tasks that keep a processor busy."""
    table = lab.table("computing", "Worker processes on tasks that compute", "tasks/s", axis="processes")
    lab.contest(
        table,
        [
            Contender("robust_pika.consume", partial(computing, lab, number), x=float(number), pace=60)
            for number in (1, 2)
        ],
    )


def computing(lab: Lab, workers: int, count: int) -> float:
    """The seconds that so many processes take for all the tasks."""
    with lab.queue() as queue, ExitStack() as stack:
        for child in [stack.enter_context(lab.child("compute", queue)) for _ in range(workers)]:
            child.line("ready")
        connection = connect("benchmarks", lab.settings)
        stack.callback(connection.close)
        channel = connection.channel()
        publishers.ours(lab.settings, queue, count, BODY)
        start = time.perf_counter()
        # A queue's length counts what no worker has yet; the last few are in their hands when it is 0.
        while channel.queue_declare(queue, passive=True).method.message_count:
            time.sleep(0.01)
        return time.perf_counter() - start or 1e-3


def subscribers(lab: Lab) -> None:
    """One message to all the queues of a fanout exchange."""
    table = lab.table("fanout", "Subscribers of one fanout exchange", "deliveries/s in all", axis="subscribers")
    numbers = [1, 8] if lab.quick else [1, 4, 16, 64]
    lab.contest(
        table,
        [Contender("pika, automatic acks", partial(fanout, lab, k), x=float(k), pace=5000) for k in numbers],
        part=0.5,
    )


def fanout(lab: Lab, queues_bound: int, deliveries: int) -> float:
    """The seconds until all subscribers, on one connection, have got all messages."""
    messages = -(-deliveries // queues_bound)
    exchange = lab.name()
    left = messages * queues_bound

    def on_message(
        channel: BlockingChannel, _method: Basic.Deliver, _properties: BasicProperties, _body: bytes
    ) -> None:
        nonlocal left
        left -= 1
        if not left:
            channel.stop_consuming()

    with connect("benchmarks", lab.settings) as connection:
        channel = connection.channel()
        channel.exchange_declare(exchange, "fanout")
        for _ in range(queues_bound):
            queue = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(queue, exchange)
            channel.basic_consume(queue, on_message, auto_ack=True)

        def produce() -> None:
            with Publisher("benchmarks", lab.settings) as publisher:
                for _ in range(messages):
                    publisher.publish(exchange, "", BODY)

        thread = threading.Thread(target=produce)
        start = time.perf_counter()
        thread.start()
        channel.start_consuming()
        seconds = time.perf_counter() - start
        thread.join()
        channel.exchange_delete(exchange)
    return seconds * deliveries / (messages * queues_bound)


def queues(lab: Lab) -> None:
    """Publishing to many queues in turn. (Classic ones: a thousand quorum queues want a larger machine.)"""
    numbers = [1, 50] if lab.quick else [1, 10, 100, 1000]
    table = lab.table("queues", "Publishing to many classic queues in turn", "messages/s", axis="queues")
    names = [lab.name() for _ in range(max(numbers))]
    with connect("benchmarks", lab.settings) as connection:
        channel = connection.channel()
        for name in names:
            channel.queue_declare(name, durable=True)
        lab.contest(
            table,
            [
                Contender("robust_pika.Publisher", partial(in_turn, lab, names[:k]), x=float(k), pace=10_000)
                for k in numbers
            ],
            part=0.5,
        )
        for name in names:
            channel.queue_delete(name)


def in_turn(lab: Lab, names: list[str], count: int) -> float:
    with Publisher("benchmarks", lab.settings) as publisher:
        start = time.perf_counter()
        for number in range(count):
            publisher.publish("", names[number % len(names)], BODY)
        publisher.flush()
        return time.perf_counter() - start


def backlog(lab: Lab) -> Goal:
    """Publishing to a quorum queue in which more and more messages wait, in turn with one in which 1,000 do."""
    sizes = [1000, 5000, 20_000] if lab.quick else [1000, 10_000, 100_000, 1_000_000]
    slice_ = max(500, round(lab.seconds * 10_000))
    table = lab.table("backlog", "Publishing while messages wait in the queue", "messages/s", axis="waiting")
    memory = lab.table("backlog-memory", "Memory of the queue in which they wait", "MiB", axis="waiting")
    long, short = "that queue", "a queue with 1,000, at the same time"
    waiting = 0
    last: float | None = None
    with lab.queue() as queue, Management(lab.settings, timeout=60) as api:
        for size in sizes:
            publishers.ours(lab.settings, queue, max(1, size - waiting), BODY)
            waiting = max(size, waiting + 1)
            for _ in range(lab.rounds):
                with lab.queue() as other:
                    publishers.ours(lab.settings, other, 1000, BODY)
                    rate = slice_ / publishers.ours(lab.settings, other, slice_, BODY)
                    table.row(short, float(size)).values.append(rate)
                rate = slice_ / publishers.ours(lab.settings, queue, slice_, BODY)
                table.row(long, float(size)).values.append(rate)
                waiting += slice_
            time.sleep(0 if lab.quick else 5)  # RabbitMQ counts the memory every five seconds
            found = float(api.queue(queue).details.get("memory", 0)) / 2**20
            memory.row("queue", float(size)).values.append(found)
            at = [figure(table.row(name, float(size)).median) for name in (long, short)]
            console.say(f"  {size:,} waiting: {at[0]}, {figure(found)} MiB; 1,000 waiting: {at[1]}")
    medians = {(row.name, row.x): row.median for row in table.rows}
    if not lab.quick:
        last = medians[long, float(sizes[-1])] / medians[short, float(sizes[-1])]
    return Goal("backlog: the rate with 1,000,000 waiting to that with 1,000", 0.5, last)
