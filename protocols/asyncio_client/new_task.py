"""Hand out tasks with aio-pika, many at once. Its pair is worker.py, here or in work_queue/.

python protocols/asyncio_client/new_task.py Resize the picture...         three seconds of work
python protocols/asyncio_client/new_task.py --count 1000 Send a letter    a thousand tasks, numbered
python protocols/asyncio_client/new_task.py --in-flight 1 --count 1000 Send a letter    … one after the other
"""

import asyncio
import time
import uuid
from collections.abc import Iterator

import client
import topology

from common import console, messages
from common.config import Settings
from extras.optional import packages_for

with packages_for(__file__):
    from aio_pika import DeliveryMode, Message
    from aio_pika.abc import AbstractChannel
    from aio_pika.exceptions import AMQPConnectionError, ChannelInvalidStateError


async def publish(channel: AbstractChannel, task: str, settings: Settings) -> None:
    """Publish one task, and return when RabbitMQ has it on disk."""
    message = Message(
        messages.encode_text(task),
        content_type="text/plain",
        delivery_mode=DeliveryMode.PERSISTENT,
        message_id=str(uuid.uuid4()),
    )
    while True:
        try:
            await channel.default_exchange.publish(
                message, topology.QUEUE, mandatory=True, timeout=settings.blocked_timeout
            )
            return
        except (AMQPConnectionError, ChannelInvalidStateError):
            # The connection broke before the confirm came. RabbitMQ has the task or not, so it is sent again, with
            # the same id, when the robust connection is back.
            await asyncio.sleep(0.1)


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="the task; - reads standard input")
    parser.add_argument(
        "--count", type=console.whole(1, 1_000_000), default=1, metavar="N", help="hand it out N times, numbered"
    )
    parser.add_argument(
        "--in-flight", type=console.whole(1, 10_000), default=200, metavar="N", help="confirms to wait for at once"
    )
    arguments = parser.parse_args()
    text = console.body_text(arguments.words, default="Hello World!")
    total: int = arguments.count
    settings = Settings.load()

    async def hand_out(stop: asyncio.Event) -> None:
        tasks = iter([text] if total == 1 else (f"{number}: {text}" for number in range(1, total + 1)))
        done = 0

        async def publish_some(channel: AbstractChannel, tasks: Iterator[str]) -> None:
            nonlocal done
            # All of them share one iterator: each takes the next task when it has its confirm. That is the back
            # pressure: there are never more unconfirmed tasks, or tasks in memory, than there are publishers.
            for task in tasks:
                await publish(channel, task, settings)
                done += 1
                if stop.is_set():
                    return

        async with client.connected("asyncio_client/new_task.py", settings, stop) as connection:
            channel = await connection.channel(on_return_raises=True)
            await topology.declare(channel)
            started = time.perf_counter()
            await asyncio.gather(*(publish_some(channel, tasks) for _ in range(min(total, arguments.in_flight))))
            seconds = time.perf_counter() - started
        if done < total:
            console.say(f" [x] Stopped; the first {done} of {total} are with RabbitMQ")
        elif total == 1:
            console.say(f" [x] Sent {text!r}")
        else:
            console.say(f" [x] Sent {text!r}, {total} times ({total / seconds:,.0f} a second)")

    client.run(hand_out)


if __name__ == "__main__":
    console.run(main)
