"""Do tasks with aio-pika, several at once on one thread, until Ctrl-C. Its pair is new_task.py, here or in work_queue/.

python protocols/asyncio_client/worker.py
python protocols/asyncio_client/worker.py --at-once 10             waits for up to ten tasks at once
python protocols/asyncio_client/worker.py --seconds-per-dot 0.1    works faster
"""

import asyncio
import os

import client
import topology

from common import console, messages
from common.config import Settings
from common.errors import BadMessage
from extras.optional import packages_for

with packages_for(__file__):
    from aio_pika.abc import AbstractIncomingMessage
    from aio_pika.exceptions import AMQPConnectionError, ChannelInvalidStateError

GRACE_SECONDS = 30.0


def ready() -> None:
    console.say(f" [*] Waiting for tasks (process {os.getpid()}). To exit press CTRL+C")


async def work(message: AbstractIncomingMessage, seconds_per_dot: float) -> None:
    """Do one task, and acknowledge it when it is done."""
    try:
        task = messages.decode_text(message.body)
    except BadMessage as failure:
        console.warn(f"Rejected a task: {failure}")
        # RabbitMQ deletes it. With requeue=True it would come back at once, and again, and again.
        await message.reject(requeue=False)
        return
    console.say(f" [x] Received {task!r}")
    # While this one waits, the loop does other tasks, and the heartbeats.
    await asyncio.sleep(task.count(".") * seconds_per_dot)
    console.say(f" [x] Done with {task!r}")
    await message.ack()


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--at-once", type=console.whole(1, 2000), default=1, metavar="N", help="tasks to do at once")
    parser.add_argument(
        "--seconds-per-dot", type=console.seconds, default=1.0, metavar="S", help="how long a dot takes, 1 by default"
    )
    arguments = parser.parse_args()
    settings = Settings.load()
    in_hand: set[asyncio.Task[None]] = set()

    async def handle(message: AbstractIncomingMessage) -> None:
        task = asyncio.current_task()
        assert task is not None
        in_hand.add(task)
        try:
            await work(message, arguments.seconds_per_dot)
        except (AMQPConnectionError, ChannelInvalidStateError):
            # An acknowledgement is only valid on the connection that the message came on. That broke: RabbitMQ delivers
            # the task again.
            pass
        finally:
            in_hand.discard(task)

    async def do_tasks(stop: asyncio.Event) -> None:
        async with client.connected("asyncio_client/worker.py", settings, stop, on_return=ready) as connection:
            channel = await connection.channel()
            # aio-pika starts every message that comes at once. The prefetch is what keeps them from being too many.
            await channel.set_qos(prefetch_count=arguments.at_once)
            queue = await topology.declare(channel)
            consumer = await queue.consume(handle)
            ready()
            await stop.wait()
            # No more tasks; those that were begun are finished before the connection is closed.
            if connection.connected.is_set():
                await queue.cancel(consumer)
            if in_hand:
                await asyncio.wait(in_hand, timeout=GRACE_SECONDS)

    client.run(do_tasks)


if __name__ == "__main__":
    console.run(main)
