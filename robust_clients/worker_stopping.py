"""As worker_reconnecting.py, and a stop lets it finish the task in hand. Its pair is work_queue/new_task.py.

python robust_clients/worker_stopping.py
"""

import os
import random
import signal
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
    worker.submit(channel.connection.add_callback_threadsafe, settle)


def main() -> None:
    console.parser(__doc__).parse_args()
    settings, stops, pauses = Settings.load(), list[int](), iter(PAUSES[:0])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda signum, _frame: stops.append(signum))  # An exception could interrupt pika.
    with ThreadPoolExecutor(max_workers=1) as worker:
        while not stops:
            try:
                with connect("robust_clients/worker_stopping.py", settings) as connection:
                    channel = connection.channel()
                    channel.basic_qos(prefetch_count=1)
                    channel.basic_consume(topology.declare(channel), partial(begin, worker))
                    console.say(f" [*] Worker {os.getpid()} waits for tasks. To exit press CTRL+C")
                    pauses = iter(PAUSES)
                    while channel.is_open and not stops:
                        connection.process_data_events(time_limit=1)
                    channel.stop_consuming()  # no further task
                    # The thread's next job, after the task in hand: it has the channel closed, after settle().
                    worker.submit(connection.add_callback_threadsafe, channel.close)
                    while channel.is_open:
                        connection.process_data_events(time_limit=1)
            except (AMQPError, ConnectionFailure) as error:
                if (pause := next(pauses, None)) is None:
                    raise
                console.warn(f"{explaining.explain(error, settings)}; connecting again")
                time.sleep(random.uniform(0, pause))


if __name__ == "__main__":
    console.run(main)
