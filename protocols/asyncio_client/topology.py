"""The queue of work_queue/, declared with aio-pika. Both must declare it in the same way, or RabbitMQ refuses one."""

from extras.optional import packages_for

with packages_for(__file__):
    from aio_pika.abc import AbstractChannel, AbstractQueue

QUEUE = "work_queue.tasks"


async def declare(channel: AbstractChannel) -> AbstractQueue:
    """Declare the queue of tasks and return it."""
    return await channel.declare_queue(QUEUE, durable=True)
