"""Four queues for the readings of a sensor, which differ in what happens when there are too many."""

from robust_pika import DeclaringChannel, declare_queue

READINGS = "back_pressure.readings"
LIMIT = 100
"""How many readings the queues with a limit may hold."""
TIME_TO_LIVE = 1000
"""How long a reading is of use in the queue ``fresh``, in milliseconds."""

PUBLISHER = "back_pressure/publisher"
"""The name of the publishers' connections, by which watch.py finds them."""
DEAD_LETTERS = "back_pressure.dead_letters"

QUEUES: dict[str, dict[str, object]] = {
    # No limit: it grows, on disk, until the disk is full.
    "readings": {},
    # A full queue drops the oldest.
    "newest": {"x-max-length": LIMIT, "x-overflow": "drop-head"},
    # A full queue refuses new ones: the publisher gets a nack.
    "refusing": {"x-max-length": LIMIT, "x-overflow": "reject-publish"},
    # The queue drops what has waited for too long.
    "fresh": {"x-message-ttl": TIME_TO_LIVE},
}


def declare(channel: DeclaringChannel, name: str = "readings") -> str:
    """Declare one of the queues; return its full name."""
    queue, arguments = f"back_pressure.{name}", QUEUES[name]
    if name in ("newest", "fresh"):
        # No dead letters: these two drop readings on purpose, and would fill the dead letters with them.
        arguments = {"x-queue-type": "quorum", "x-delivery-limit": 20, **arguments}
        channel.queue_declare(queue, durable=True, arguments=arguments)
        return queue
    return declare_queue(channel, queue, dead_letters=DEAD_LETTERS, arguments=arguments)
