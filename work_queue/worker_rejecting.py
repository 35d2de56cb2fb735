"""A worker that rejects a task it cannot read, and goes on. Its pairs are new_task.py and send_rubbish.py.

It differs from worker.py in the call of basic_reject.

python work_queue/worker_rejecting.py
"""

import os
import time

import topology
from pika.spec import Basic, BasicProperties

from common import console, messages
from common.config import Settings
from common.connection import Channel, connect
from common.errors import BadMessage


def work(channel: Channel, method: Basic.Deliver, _properties: BasicProperties, body: bytes) -> None:
    try:
        task = messages.decode_text(body)
    except BadMessage as error:
        console.warn(f"Rejected a task: {error}")
        # requeue=False: RabbitMQ deletes it. With requeue=True it would come back at once, and again, and again.
        channel.basic_reject(method.delivery_tag, requeue=False)
        return
    console.say(f" [x] Received {task!r}")
    time.sleep(task.count("."))
    console.say(f" [x] Done with {task!r}")
    channel.basic_ack(method.delivery_tag)


def main() -> None:
    console.parser(__doc__).parse_args()
    with connect("work_queue/worker_rejecting.py", Settings.load()) as connection:
        channel = connection.channel()
        queue = topology.declare(channel)
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(queue, work)
        console.say(f" [*] Worker {os.getpid()} waits for tasks. To exit press CTRL+C")
        channel.start_consuming()


if __name__ == "__main__":
    console.run(main)
