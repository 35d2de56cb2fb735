"""The two queues of tickets, one of either kind, and the dead letters of both."""

from robust_pika import DeclaringChannel, declare_queue

CLASSIC = "priorities.tickets.classic"
QUORUM = "priorities.tickets.quorum"
QUEUES = {"classic": CLASSIC, "quorum": QUORUM}
DEAD_LETTERS = "priorities.tickets.dead_letters"

# Each level of a classic queue costs memory, and more than a few are not useful.
CLASSIC_ARGUMENTS = {"x-queue-type": "classic", "x-max-priority": 9}
# No such argument: RabbitMQ refuses x-max-priority for a quorum queue, whose priorities depend on the version alone.
QUORUM_ARGUMENTS = {"x-queue-type": "quorum", "x-delivery-limit": 3}


def declare(channel: DeclaringChannel) -> str:
    """Declare both queues and the dead letters; return the name of the classic queue."""
    declare_queue(channel, QUORUM, delivery_limit=3, dead_letters=DEAD_LETTERS)
    # A classic queue has no delivery limit, and no strategy for its dead letters: it sends them at most once.
    dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DEAD_LETTERS}
    channel.queue_declare(CLASSIC, durable=True, arguments={**CLASSIC_ARGUMENTS, **dead})
    return CLASSIC
