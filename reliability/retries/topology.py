"""The queue of payments, the queues in which a payment waits for its next attempt, and the dead letters."""

from robust_pika import DeclaringChannel, declare_queue

PAYMENTS = "retries.payments"
DEAD_LETTERS = f"{PAYMENTS}.dead_letters"
MAX_ATTEMPTS = 4
FIRST_DELAY = 500
"""How long the first wait is about, in milliseconds. Each further one is twice as long as the one before."""
JITTER = (0.75, 1.0, 1.25)
"""Payments that failed together should not come back together: each wait is one of these times as long, at random."""


def delays(attempt: int) -> list[int]:
    """How long a payment may wait after this attempt has failed, in milliseconds; there is a queue for each."""
    return [round(FIRST_DELAY * 2 ** (attempt - 1) * factor) for factor in JITTER]


def waiting(delay: int) -> str:
    """The name of the queue in which a payment waits this long, in milliseconds."""
    return f"{PAYMENTS}.wait.{delay}"


def declare(channel: DeclaringChannel) -> str:
    """Declare the queue of payments and its dead letters; return the former's name."""
    return declare_queue(
        channel,
        PAYMENTS,
        # For payments whose worker dies again and again; pay.py itself gives up before that.
        delivery_limit=MAX_ATTEMPTS - 1,
        arguments={
            # RabbitMQ 4.3 and later hold a rejected payment back before they deliver it again: for min milliseconds,
            # then 2 × min, …, at most max. Older ones ignore this, so the declaration is the same on all of them.
            "x-delayed-retry-type": "failed",
            "x-delayed-retry-min": FIRST_DELAY,
            "x-delayed-retry-max": 60_000,
        },
    )


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
