"""The queue of payments, the queues in which a payment waits for its next attempt, and the dead letters."""

from robust_pika import DeclaringChannel

PAYMENTS = "retries.payments"
DEAD_LETTERS = f"{PAYMENTS}.dead_letters"
MAX_ATTEMPTS = 4
FIRST_DELAY = 500
"""How long the first wait is about, in milliseconds. Each further one is twice as long as the one before."""
JITTER = (0.75, 1.0, 1.25)
"""Payments that failed together shall not come back together: each wait is one of these times as long, at random."""


def delays(attempt: int) -> list[int]:
    """How long a payment may wait after this attempt has failed, in milliseconds; there is a queue for each."""
    return [round(FIRST_DELAY * 2 ** (attempt - 1) * factor) for factor in JITTER]


def waiting(delay: int) -> str:
    """The name of the queue in which a payment waits this long, in milliseconds."""
    return f"{PAYMENTS}.wait.{delay}"


def declare(channel: DeclaringChannel) -> str:
    """Declare the queue of payments and its dead letters; return the former's name."""
    # RabbitMQ 4 gives up on what has come back 20 times: here that would be lost, should somebody look that often.
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
    channel.queue_declare(DEAD_LETTERS, durable=True, arguments=arguments)
    channel.queue_declare(
        PAYMENTS,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            # For payments that kill their worker again and again; we give up by ourselves before that.
            "x-delivery-limit": MAX_ATTEMPTS - 1,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": DEAD_LETTERS,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            # RabbitMQ 4.3 and later keep a rejected payment back by themselves: for min, then 2 × min, …, max at most.
            # Older ones ignore this, so the queue is declared in the same way on all of them.
            "x-delayed-retry-type": "failed",
            "x-delayed-retry-min": FIRST_DELAY,
            "x-delayed-retry-max": 60_000,
        },
    )
    return PAYMENTS


def declare_ladder(channel: DeclaringChannel) -> str:
    """Declare all that, and the queues to wait in; return the name of the queue of payments."""
    declare(channel)
    for attempt in range(1, MAX_ATTEMPTS):
        for delay in delays(attempt):
            channel.queue_declare(
                waiting(delay),
                durable=True,
                arguments={
                    "x-queue-type": "quorum",
                    # The same for all in this queue. With a TTL for each message, one that may go would wait behind
                    # one that may not yet: RabbitMQ only looks at the head of a queue.
                    "x-message-ttl": delay,
                    "x-dead-letter-exchange": "",
                    "x-dead-letter-routing-key": PAYMENTS,
                    "x-dead-letter-strategy": "at-least-once",
                    "x-overflow": "reject-publish",
                },
            )
    return PAYMENTS
