"""Do tasks, one at a time, until Ctrl-C, whatever happens to the connection. Its pair is work_queue/new_task.py.

python robust_clients/worker.py
"""

import os
import time

import topology

from common import console
from common.config import Settings
from robust_pika import Message, Outcome, consume


def work(message: Message) -> Outcome:
    task = message.text()
    console.say(f" [x] Received {task!r}")
    time.sleep(task.count("."))
    console.say(f" [x] Done with {task!r}")
    return Outcome.ACK


def main() -> None:
    console.parser(__doc__).parse_args()
    consume(
        "robust_clients/worker.py",
        Settings.load(),
        topology.declare,
        work,
        prefetch=1,
        on_ready=lambda _queue: console.say(f" [*] Worker {os.getpid()} waits for tasks. To exit press CTRL+C"),
    )


if __name__ == "__main__":
    console.run(main)
