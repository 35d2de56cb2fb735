"""Hand out a task; each dot in it stands for a second of work. Its pair is worker.py; either may start first.

python work_queue/new_task.py Resize the picture...         three seconds of work
python work_queue/new_task.py --count 1000 Send a letter    a thousand tasks, numbered
cat task.txt | python work_queue/new_task.py -              what comes from standard input
"""

import topology
from common.publisher import Publisher

from common import console, messages
from common.config import Settings


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="the task; - reads standard input")
    parser.add_argument(
        "--count", type=console.whole(1, 1_000_000), default=1, metavar="N", help="hand it out N times, numbered"
    )
    arguments = parser.parse_args()
    text = console.body_text(arguments.words, default="Hello World!")
    total = arguments.count
    tasks = [text] if total == 1 else [f"{number}: {text}" for number in range(1, total + 1)]

    with Publisher("work_queue/new_task.py", Settings.load(), declare=topology.declare) as publisher:
        for task in tasks:
            # Many tasks are on their way at once; waiting for each confirmation in turn would be slow.
            publisher.publish("", topology.QUEUE, messages.encode_text(task), messages.properties("text/plain"))
        # Returns when RabbitMQ has all of them on disk, and raises if it refused one.
        publisher.flush()
    console.say(f" [x] Sent {text!r}" if total == 1 else f" [x] Sent {text!r}, {total} times")


if __name__ == "__main__":
    console.run(main)
