"""As worker_threaded.py, and it connects again when the connection breaks. Its pair is work_queue/new_task.py.

python robust_clients/worker_reconnecting.py
"""

import os
import random
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial

import topology
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

from common import console, messages
from common.config import Settings
from common.connection import Channel, connect
from robust_pika import ConnectionFailure, explaining

PAUSES: tuple[float, ...] = (0.5, 1, 2, 4, 4, 4, 4, 4, 4, 4)
"""Seconds, at most, before each further attempt."""


def work(body: bytes) -> None:
    task = messages.decode_text(body)
    console.say(f" [x] Received {task!r}")
    time.sleep(task.count("."))
    console.say(f" [x] Done with {task!r}")


def begin(worker: Executor, channel: Channel, method: Basic.Deliver, _properties: BasicProperties, body: bytes) -> None:
    def settle() -> None:
        task.result()
        channel.basic_ack(method.delivery_tag)

    task = worker.submit(work, body)
    # If the connection is gone by then, this call fails on the thread, without effect. The task comes again.
    worker.submit(channel.connection.add_callback_threadsafe, settle)


def main() -> None:
    console.parser(__doc__).parse_args()
    settings = Settings.load()
    pauses = iter(PAUSES[:0])  # Until it has worked once, the first failure is the last.
    with ThreadPoolExecutor(max_workers=1) as worker:
        while True:
            try:
                with connect("robust_clients/worker_reconnecting.py", settings) as connection:
                    channel = connection.channel()
                    channel.basic_qos(prefetch_count=1)
                    channel.basic_consume(topology.declare(channel), partial(begin, worker))
                    console.say(f" [*] Worker {os.getpid()} waits for tasks. To exit press CTRL+C")
                    pauses = iter(PAUSES)
                    channel.start_consuming()
            except (AMQPError, ConnectionFailure) as error:
                if (pause := next(pauses, None)) is None:
                    raise
                console.warn(f"{explaining.explain(error, settings)}; connecting again")
                # At random, so that a thousand workers do not come back at the same moment.
                time.sleep(random.uniform(0, pause))


if __name__ == "__main__":
    console.run(main)
