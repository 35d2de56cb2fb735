"""What robust_pika and the scripts cost: the start of a process, the memory of a window, and whether anything grows."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from benchmarks.measure import ROOT, Goal, Lab, figure
from common import console
from common.connection import connect
from robust_pika import ConnectionFailure

HELLO = "send_and_receive.hello"
"""The queue of send.py."""
LIMIT = 30.0


def run(lab: Lab) -> list[Goal]:
    """All of it."""
    starting(lab)
    first = first_message(lab)
    memory(lab)
    return [first, *steady(lab)]


def starting(lab: Lab) -> None:
    """From the start of the process to its end, with one confirmed message in between."""
    table = lab.table("start", "A process that publishes one message with a confirm", "s", "robust_pika.Publisher")
    ways = {"robust_pika.Publisher": "ours", "pika": "pika"}
    for module, name in (("aio_pika", "aio-pika"), ("kombu", "kombu")):
        if lab.has(module):
            ways[name] = name
    with lab.queue() as queue:
        for number in range(1, lab.rounds + 1):
            for name, way in ways.items():
                start = time.perf_counter()
                said(lab, "first", queue, way)
                table.row(name).values.append(time.perf_counter() - start)
            lab.tell(table, number)


def first_message(lab: Lab) -> Goal:
    """From the start of send_and_receive/send.py until a consumer has its message."""
    script = "send_and_receive/send.py"
    table = lab.table("first-message", "The first message: from the start of the script until it is delivered", "s")
    with connect("benchmarks", lab.settings) as connection:
        channel = connection.channel()
        channel.queue_declare(HELLO, durable=True)
        arrived: list[float] = []
        channel.basic_consume(HELLO, lambda *_delivery: arrived.append(time.perf_counter()), auto_ack=True)
        for number in range(1, 5 * lab.rounds + 1):
            arrived.clear()
            start = time.perf_counter()
            with subprocess.Popen(
                [sys.executable, script], cwd=ROOT, env=lab.environ, stdout=subprocess.DEVNULL
            ) as process:
                while not arrived and time.perf_counter() < start + LIMIT:
                    connection.process_data_events(time_limit=1)
            if not arrived or process.returncode:
                raise ConnectionFailure(f"{script} failed")
            table.row(script).values.append(arrived[0] - start)
            if number % 5 == 0:
                lab.tell(table, number // 5)
        channel.queue_delete(HELLO)
    return Goal(
        f"{script}: seconds from its start to its first message, at most", 0.35, table.rows[0].median, below=True
    )


def memory(lab: Lab) -> None:
    """What the process grows by while a Publisher's window is full."""
    table = lab.table("memory", "Memory of a Publisher with a full window, 100 bytes each", "KiB", axis="window")
    windows = [100, 1000] if lab.quick else [100, 1000, 10_000, 100_000]
    for number in range(1, lab.rounds + 1):
        for window in windows:
            with lab.queue() as queue:
                table.row("robust_pika.Publisher", float(window)).values.append(
                    float(said(lab, "memory", queue, str(window)))
                )
        lab.tell(table, number)


def steady(lab: Lab) -> list[Goal]:
    """Memory, threads and file descriptors of a process that publishes and consumes 1,000 messages a second."""
    table = lab.table(
        "steady", f"Memory of a process with 1,000 messages/s in and out, for {lab.steady:g} s", "MiB", axis="seconds"
    )
    with lab.queue() as queue:
        samples = json.loads(said(lab, "steady", queue, "1000", f"{lab.steady:g}"))
    for seconds, mebibytes, _, _ in samples:
        table.row("memory", round(seconds, 1)).values.append(mebibytes)
    # What is there when it has warmed up, and at the end.
    warm, last = samples[len(samples) // 4], samples[-1]
    console.say(f"  {figure(samples[0][1])} MiB at first, {figure(last[1])} at the end")
    return [
        Goal(f"steady load, {lab.steady:g} s: growth of the memory, MiB, at most", 5, last[1] - warm[1], below=True),
        Goal(f"steady load, {lab.steady:g} s: further threads, at most", 0, last[2] - warm[2], below=True),
        Goal(f"steady load, {lab.steady:g} s: further file descriptors, at most", 0, last[3] - warm[3], below=True),
    ]


def said(lab: Lab, *arguments: str) -> str:
    """What that process says until it ends."""
    with lab.child(*arguments) as child:
        return child.end()
