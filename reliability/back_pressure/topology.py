"""Four queues for the readings of a sensor, and four answers to the question what to do when there are too many."""

from robust_pika import DeclaringChannel

READINGS = "back_pressure.readings"
LIMIT = 100
"""How many readings the queues with a limit may hold."""
TIME_TO_LIVE = 1000
"""How long a reading is of use in the queue ``fresh``, in milliseconds."""

PUBLISHER = "back_pressure/publisher"
"""The name of the publishers' connections, by which watch.py finds them."""
DEAD_LETTERS = "back_pressure.dead_letters"

QUEUES: dict[str, dict[str, object]] = {
    # Nothing: it grows, on disk, until that is full.
    "readings": {},
    # The oldest make room.
    "newest": {"x-max-length": LIMIT, "x-overflow": "drop-head"},
    # The publisher is told no.
    "refusing": {"x-max-length": LIMIT, "x-overflow": "reject-publish"},
    # What has waited too long goes.
    "fresh": {"x-message-ttl": TIME_TO_LIVE},
}


def declare_dead_letters(channel: DeclaringChannel) -> str:
    """Declare the queue for what is no reading; return its name."""
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
    channel.queue_declare(DEAD_LETTERS, durable=True, arguments=arguments)
    return DEAD_LETTERS


def declare(channel: DeclaringChannel, name: str = "readings") -> str:
    """Declare one of the queues; return its full name."""
    declare_dead_letters(channel)
    more = QUEUES.get(name, {})
    if name not in ("newest", "fresh"):
        # These two let go of readings on purpose, and would fill the dead letters with them.
        more = {
            **more,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": DEAD_LETTERS,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
    queue = f"back_pressure.{name}"
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 20, **more})
    return queue
