"""The queue of this example. Both ends declare it, so that either may start first; a second time does no harm."""

from common.declaring import DeclaringChannel

QUEUE = "work_queue.tasks"
DEAD_LETTERS = f"{QUEUE}.dead_letters"


def declare(channel: DeclaringChannel) -> str:
    """Declare the queue of tasks and the one for those that cannot be done; return the former's name."""
    channel.queue_declare(DEAD_LETTERS, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_declare(
        QUEUE,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            # A task that has come back 20 times is set aside: it might be what kills its workers.
            "x-delivery-limit": 20,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": DEAD_LETTERS,
            # A task leaves this queue only when it has arrived among the dead letters; that needs the overflow mode.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )
    return QUEUE
