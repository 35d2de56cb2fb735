"""As work_queue/worker.py, with the work on a second thread: heartbeats go on. Its pair is work_queue/new_task.py.

python robust_clients/worker_threaded.py
"""

import os
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial

import topology
from pika.spec import Basic, BasicProperties

from common import console, messages
from common.config import Settings
from common.connection import Channel, connect


def work(body: bytes) -> None:
    """On the worker's thread: this may take as long as it likes, and must not touch the channel."""
    task = messages.decode_text(body)
    console.say(f" [x] Received {task!r}")
    time.sleep(task.count("."))
    console.say(f" [x] Done with {task!r}")


def begin(worker: Executor, channel: Channel, method: Basic.Deliver, _properties: BasicProperties, body: bytes) -> None:
    def settle() -> None:
        """On the main thread again, when the work has ended."""
        task.result()  # raises what work() has raised
        channel.basic_ack(method.delivery_tag)

    task = worker.submit(work, body)
    # The thread's next job, even if work() fails. Of pika, other threads may call this one method and no other.
    worker.submit(channel.connection.add_callback_threadsafe, settle)


def main() -> None:
    console.parser(__doc__).parse_args()
    with (
        ThreadPoolExecutor(max_workers=1) as worker,
        connect("robust_clients/worker_threaded.py", Settings.load()) as connection,
    ):
        channel = connection.channel()
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(topology.declare(channel), partial(begin, worker))
        console.say(f" [*] Worker {os.getpid()} waits for tasks. To exit press CTRL+C")
        channel.start_consuming()


if __name__ == "__main__":
    console.run(main)
