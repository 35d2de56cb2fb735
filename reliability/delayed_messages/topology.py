"""The queue of reminders, and the ladder of queues in which a reminder waits until it is due."""

from robust_pika import DeclaringChannel, declare_queue

REMINDERS = "delayed_messages.reminders"
DEAD_LETTERS = f"{REMINDERS}.dead_letters"
DEAD = "delayed_messages.dead"
DUE = "delayed_messages.due"
"""The exchange that a reminder comes to when it has waited."""
NAIVE = "delayed_messages.naive"

STEP = 100
"""How long the lowest level of the ladder waits, in milliseconds. Each further one waits twice as long."""
LEVELS = 24


def level_name(level: int) -> str:
    """The name of the exchange of a level, 0 being the lowest, and of the queue behind it."""
    return f"delayed_messages.level.{level}"


def declare(channel: DeclaringChannel) -> str:
    """Declare what a reminder comes to when it is due, and the dead letters; return the name of the former queue."""
    declare_queue(channel, REMINDERS, delivery_limit=3)
    # A reminder for which no queue is bound when it is due: without this exchange it would stay in the ladder, in the
    # way of the others.
    channel.exchange_declare(DEAD, exchange_type="fanout", durable=True)
    channel.queue_bind(DEAD_LETTERS, DEAD)
    channel.exchange_declare(DUE, exchange_type="topic", durable=True, arguments={"alternate-exchange": DEAD})
    channel.queue_bind(REMINDERS, DUE, routing_key=f"#.{REMINDERS}")
    return REMINDERS


def declare_ladder(channel: DeclaringChannel) -> str:
    """Declare all that, and the ladder; return the name of the queue of reminders."""
    declare(channel)
    below = DUE
    for level in range(LEVELS):
        name = level_name(level)
        channel.exchange_declare(name, exchange_type="topic", durable=True)
        channel.queue_declare(
            name,
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                # RabbitMQ cuts off the fraction of a millisecond: one more, and nothing leaves too early.
                "x-message-ttl": STEP * 2**level + 1,
                # A message keeps its routing key on its way down.
                "x-dead-letter-exchange": below,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        )
        # The routing key is a binary number, its highest digit first: 1 waits on this level, 0 passes it by.
        higher = "*." * (LEVELS - 1 - level)
        channel.queue_bind(name, name, routing_key=f"{higher}1.#")
        channel.exchange_bind(below, name, routing_key=f"{higher}0.#")
        below = name
    return REMINDERS


def declare_naive(channel: DeclaringChannel) -> str:
    """Declare one queue for all delays, to see what is wrong with it; return its name."""
    channel.queue_declare(
        NAIVE,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": declare(channel),
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )
    return NAIVE
