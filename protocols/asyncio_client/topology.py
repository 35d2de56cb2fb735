"""The queue of work_queue/, declared with aio-pika: in the same words, or RabbitMQ would refuse one of the two."""

from extras.optional import packages_for

with packages_for(__file__):
    from aio_pika.abc import AbstractChannel, AbstractQueue

QUEUE = "work_queue.tasks"
DEAD_LETTERS = f"{QUEUE}.dead_letters"


async def declare(channel: AbstractChannel) -> AbstractQueue:
    """Declare the queue of tasks and the one for those that cannot be done; return the former."""
    await channel.declare_queue(DEAD_LETTERS, durable=True, arguments={"x-queue-type": "quorum"})
    return await channel.declare_queue(
        QUEUE,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": 20,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": DEAD_LETTERS,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )
