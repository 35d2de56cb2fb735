"""Do tasks, one at a time, until Ctrl-C; start as many workers as you like. Its pair is new_task.py.

python work_queue/worker.py
python work_queue/worker.py --prefetch 10            takes up to ten tasks at once, still does one at a time
python work_queue/worker.py --seconds-per-dot 0.1    works faster
"""

import time

import topology
from common.consumer import Outcome, consume

from common import console
from common.config import Settings
from common.messages import Message


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--prefetch", type=console.whole(1, 2000), default=1, metavar="N", help="tasks to hold at once")
    parser.add_argument(
        "--seconds-per-dot", type=console.seconds, default=1.0, metavar="S", help="how long a dot takes, 1 by default"
    )
    arguments = parser.parse_args()

    def work(message: Message) -> Outcome:
        task = message.text()
        console.say(f" [x] Received {task!r}")
        time.sleep(task.count(".") * arguments.seconds_per_dot)
        console.say(f" [x] Done with {task!r}")
        # Only now: a task whose worker dies before this line goes to another worker.
        return Outcome.ACK

    consume(
        "work_queue/worker.py",
        Settings.load(),
        topology.declare,
        work,
        # RabbitMQ gives this worker no further task before it has acknowledged the one it has.
        prefetch=arguments.prefetch,
        on_ready=lambda _queue: console.say(" [*] Waiting for tasks. To exit press CTRL+C"),
    )


if __name__ == "__main__":
    console.run(main)
