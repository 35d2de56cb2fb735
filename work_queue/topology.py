"""The queue of this lesson. Producer and workers all declare it, so you can start them in any order."""

from common.connection import Channel

QUEUE = "work_queue.tasks"


def declare(channel: Channel) -> str:
    """Declare the queue of tasks and return its name. It does no harm if the queue is there already."""
    channel.queue_declare(QUEUE, durable=True)
    return QUEUE
