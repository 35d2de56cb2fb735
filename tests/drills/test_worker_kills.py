"""Workers die in the middle of their tasks: every task is done at least once."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Mapping

from common.config import Settings
from common.connection import connect
from tests.drills.tally import SECTION, Tally
from tests.support.process import Script, run_script
from tests.support.report import Report

KILLS = 50
TASKS = 2_000
WORKERS = 4
TASK_SECONDS = 0.02
LINE = re.compile(r" \[x\] (Received|Done with) '(\d+): ")


class Worker:
    """One running ``work_queue/worker.py``; what it prints is told to ``heard`` on a thread of its own."""

    def __init__(self, environ: Mapping[str, str], heard: Callable[[Worker, str], None]) -> None:
        self.task: int | None = None
        """The task it is at."""
        self._heard = heard
        self._script = Script("work_queue/worker.py", f"--seconds-per-dot={TASK_SECONDS}", environ=environ)
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


def test_50_worker_kills(environ: dict[str, str], settings: Settings, report: Report) -> None:
    tally = Tally()
    received: list[Worker] = []
    in_mid_task = 0

    def heard(worker: Worker, line: str) -> None:
        if match := LINE.match(line):
            if match[1] == "Received":
                worker.task = int(match[2])
                received.append(worker)
            else:
                worker.task = None
                tally.see(int(match[2]))

    handed_out = run_script("work_queue/new_task.py", f"--count={TASKS}", "Sweep.", environ=environ)
    assert handed_out.code == 0, handed_out.err
    tally.sent = TASKS
    # It exits with 0 when, and only when, each of them is confirmed.
    for number in range(1, TASKS + 1):
        tally.confirm(number)

    workers = [Worker(environ, heard) for _ in range(WORKERS)]
    try:
        while tally.kills < KILLS:
            due = tally.kills * TASKS // KILLS
            tally.wait(lambda: tally.seen >= due, 60, f"{due} tasks done")  # noqa: B023  called here only
            received.clear()
            tally.wait(lambda: any(worker.alive for worker in received), 60, "a worker to begin a task")
            # At any moment: in the task, between its last line and the acknowledgement, just after that.
            time.sleep(random.uniform(0, 1.2 * TASK_SECONDS))
            unlucky = received[0]
            unlucky.kill()
            tally.kills += 1
            in_mid_task += unlucky.task is not None
            workers.remove(unlucky)
            workers.append(Worker(environ, heard))
        tally.wait(lambda: not tally.missing, 60, "every task done")
        codes = [worker.stop() for worker in workers]
    finally:
        report.add(SECTION, f"workers killed, {in_mid_task} of them in mid-task: {tally}")
        for worker in workers:
            worker.kill()
    assert codes == [0] * WORKERS
    assert tally.missing == []
    assert tally.kills == KILLS
    assert in_mid_task > 0
    with connect("drill", settings) as connection:
        for queue in ("work_queue.tasks", "work_queue.tasks.dead_letters"):
            left = connection.channel().queue_declare(queue, passive=True).method.message_count
            assert left == 0, f"{left} messages in {queue}"
