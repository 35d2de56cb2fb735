"""Workers die in the middle of their tasks, plain ones and robust ones: every task is done at least once."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Mapping

import pytest

from common import messages
from common.config import Settings
from common.connection import connect
from robust_pika import DeclaringChannel, Publisher
from tests.drills.tally import SECTION, Tally
from tests.support.process import Script
from tests.support.report import Report

KILLS = 50
TASKS = 2_000
WORKERS = 4
LINE = re.compile(r" \[x\] (Received|Done with) '(\d+): Sweep(\.?)'")


class Worker:
    """One running worker; ``heard`` is called with each line that it prints, on another thread."""

    def __init__(self, path: str, environ: Mapping[str, str], heard: Callable[[Worker, str], None]) -> None:
        self.task: int | None = None
        """The task it is at."""
        self._heard = heard
        self._script = Script(path, environ=environ)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self._script.follow():
            self._heard(self, line)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._script.code is None

    def kill(self) -> None:
        """End it with SIGKILL, and hear the last that it printed."""
        self._script.kill()
        self.wait()

    def stop(self) -> int:
        """End it with SIGTERM; its exit code."""
        self._script.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; its exit code."""
        code = self._script.wait()
        self._reader.join(10)
        return code


@pytest.mark.parametrize(
    "path", ["work_queue/worker.py", pytest.param("robust_clients/worker.py", marks=pytest.mark.long)]
)
def test_50_worker_kills(path: str, environ: dict[str, str], settings: Settings, report: Report) -> None:
    tally = Tally()
    begun: list[Worker] = []
    in_mid_task = 0

    def heard(worker: Worker, line: str) -> None:
        if match := LINE.match(line):
            if match[1] == "Done with":
                worker.task = None
                tally.see(int(match[2]))
                return
            worker.task = int(match[2])
            if match[3]:
                begun.append(worker)

    with Publisher("drill", settings, declare=declare) as publisher:
        workers = [Worker(path, environ, heard) for _ in range(WORKERS)]
        try:
            while tally.kills < KILLS:
                begun.clear()
                send(publisher, tally, TASKS // KILLS)
                tally.wait(lambda: any(worker.alive for worker in begun), 60, "a worker to begin a slow task")
                # In the task, between its last line and the acknowledgement, or in one of those after it.
                time.sleep(random.uniform(0, 1.1))
                unlucky = next(worker for worker in begun if worker.alive)
                unlucky.kill()
                tally.kills += 1
                in_mid_task += unlucky.task is not None
                workers.remove(unlucky)
                workers.append(Worker(path, environ, heard))
            tally.wait(lambda: not tally.missing, 60, "every task done")
            codes = [worker.stop() for worker in workers]
        finally:
            report.add(SECTION, f"{path}, killed, {in_mid_task} times in mid-task: {tally}")
            for worker in workers:
                worker.kill()
    assert codes == [0] * WORKERS
    assert tally.missing == []
    assert tally.kills == KILLS
    assert in_mid_task > 0
    with connect("drill", settings) as connection:
        left = connection.channel().queue_declare("work_queue.tasks", passive=True).method.message_count
        assert left == 0, f"{left} tasks are left"


def declare(channel: DeclaringChannel) -> None:
    channel.queue_declare("work_queue.tasks", durable=True)


def send(publisher: Publisher, tally: Tally, count: int) -> None:
    """Send tasks, the first of which is slow; each of them is confirmed when this returns."""
    numbers = range(tally.sent, tally.sent + count)
    for number in numbers:
        task = f"{number}: Sweep{'.' if number == numbers[0] else ''}"
        publisher.publish("", "work_queue.tasks", task.encode(), messages.properties())
    publisher.flush()
    tally.sent += count
    for number in numbers:
        tally.confirm(number)
