"""The queue of this example. Both ends declare it, so that either may start first; a second time does no harm."""

from common.declaring import DeclaringChannel

QUEUE = "send_and_receive.hello"
DEAD_LETTERS = f"{QUEUE}.dead_letters"


def declare(channel: DeclaringChannel) -> str:
    """Declare the queue and the one for what its receiver cannot use; return the queue's name."""
    channel.queue_declare(DEAD_LETTERS, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_declare(
        QUEUE,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": 20,
            # The default exchange, "", takes a rejected message straight to the queue that the key names …
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": DEAD_LETTERS,
            # … and our queue forgets it only when it has arrived there; RabbitMQ asks for the overflow mode with it.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )
    return QUEUE
