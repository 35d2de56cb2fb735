"""Do tasks, one at a time, until Ctrl-C; start as many workers as you like. Its pair is new_task.py.

python work_queue/worker.py
python work_queue/worker.py --prefetch 10    takes up to ten tasks in advance, still does one at a time
"""

import os
import time

import topology
from pika.spec import Basic, BasicProperties

from common import console, messages
from common.config import Settings
from common.connection import Channel, connect


def work(channel: Channel, method: Basic.Deliver, _properties: BasicProperties, body: bytes) -> None:
    task = messages.decode_text(body)
    console.say(f" [x] Received {task!r}")
    time.sleep(task.count("."))
    console.say(f" [x] Done with {task!r}")
    # Only now: a task whose worker dies before this line goes to another worker.
    channel.basic_ack(method.delivery_tag)


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--prefetch", type=console.whole(1, 2000), default=1, metavar="N", help="tasks to hold at once")
    arguments = parser.parse_args()
    with connect("work_queue/worker.py", Settings.load()) as connection:
        channel = connection.channel()
        queue = topology.declare(channel)
        channel.basic_qos(prefetch_count=arguments.prefetch)
        channel.basic_consume(queue, work)
        console.say(f" [*] Worker {os.getpid()} waits for tasks. To exit press CTRL+C")
        channel.start_consuming()


if __name__ == "__main__":
    console.run(main)
