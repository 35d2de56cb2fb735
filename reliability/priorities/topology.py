"""The two queues of tickets, one of either kind, and the dead letters of both."""

from robust_pika import DeclaringChannel

CLASSIC = "priorities.tickets.classic"
QUORUM = "priorities.tickets.quorum"
QUEUES = {"classic": CLASSIC, "quorum": QUORUM}
DEAD = "priorities.dead"
DEAD_LETTERS = "priorities.tickets.dead_letters"

# Each level of a classic queue costs memory, and nobody can tell 255 of them apart.
CLASSIC_ARGUMENTS = {"x-queue-type": "classic", "x-max-priority": 9}
# No argument for it: RabbitMQ refuses x-max-priority for a quorum queue. What there is depends on the version alone.
QUORUM_ARGUMENTS = {"x-queue-type": "quorum", "x-delivery-limit": 3}


def declare(channel: DeclaringChannel) -> str:
    """Declare both queues and the dead letters; return the name of the classic queue."""
    channel.exchange_declare(DEAD, exchange_type="fanout", durable=True)
    # RabbitMQ 4 gives up on what has come back 20 times: here that would be lost, should somebody look that often.
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
    channel.queue_declare(DEAD_LETTERS, durable=True, arguments=arguments)
    channel.queue_bind(DEAD_LETTERS, DEAD)
    dead = {"x-dead-letter-exchange": DEAD}
    safely = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
    channel.queue_declare(CLASSIC, durable=True, arguments={**CLASSIC_ARGUMENTS, **dead})
    channel.queue_declare(QUORUM, durable=True, arguments={**QUORUM_ARGUMENTS, **dead, **safely})
    return CLASSIC
