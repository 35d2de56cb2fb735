"""A worker that LOSES tasks when it is killed: RabbitMQ takes each one for done as soon as it has sent it.

It differs from worker.py in auto_ack=True. Its pair is new_task.py.

python work_queue/worker_auto_ack.py
"""

import os
import time

import topology
from pika.spec import Basic, BasicProperties

from common import console, messages
from common.config import Settings
from common.connection import Channel, connect


def work(_channel: Channel, _method: Basic.Deliver, _properties: BasicProperties, body: bytes) -> None:
    task = messages.decode_text(body)
    console.say(f" [x] Received {task!r}")
    time.sleep(task.count("."))
    console.say(f" [x] Done with {task!r}")


def main() -> None:
    console.parser(__doc__).parse_args()
    with connect("work_queue/worker_auto_ack.py", Settings.load()) as connection:
        channel = connection.channel()
        queue = topology.declare(channel)
        # No acknowledgement will come, so a prefetch count would limit nothing: RabbitMQ sends all that is there.
        channel.basic_consume(queue, work, auto_ack=True)
        console.say(f" [*] Worker {os.getpid()} waits for tasks. To exit press CTRL+C")
        channel.start_consuming()


if __name__ == "__main__":
    console.run(main)
