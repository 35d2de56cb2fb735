"""Send a task; each dot in it stands for a second of work. Its pair is worker.py; start either one first.

python work_queue/new_task.py Resize the picture...         three seconds of work
python work_queue/new_task.py --count 1000 Send a letter    a thousand tasks, numbered
cat task.txt | python work_queue/new_task.py -              what it reads from standard input
"""

import pika
import topology

from common import console, messages
from common.config import Settings
from common.connection import connect


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="the task; - reads standard input")
    parser.add_argument(
        "--count", type=console.whole(1, 1_000_000), default=1, metavar="N", help="send it N times, numbered"
    )
    arguments = parser.parse_args()
    text = console.body_text(arguments.words, default="Hello World!")
    total = arguments.count
    tasks = [text] if total == 1 else [f"{number}: {text}" for number in range(1, total + 1)]

    with connect("work_queue/new_task.py", Settings.load()) as connection:
        channel = connection.channel()
        queue = topology.declare(channel)
        channel.confirm_delivery()
        properties = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
        for task in tasks:
            channel.basic_publish(
                exchange="", routing_key=queue, body=messages.encode_text(task), properties=properties
            )
    console.say(f" [x] Sent {text!r}" if total == 1 else f" [x] Sent {text!r}, {total} times")


if __name__ == "__main__":
    console.run(main)
