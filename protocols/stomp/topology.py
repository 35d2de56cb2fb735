"""The queue of this example. STOMP could declare one by itself (/queue/NAME), but not a quorum queue with dead letters.

So every script declares it with AMQP, and STOMP uses it by /amq/queue/NAME, which takes a queue as it is.
"""

from robust_pika.declaring import DeclaringChannel

QUEUE = "stomp.orders"
DEAD_LETTERS = f"{QUEUE}.dead_letters"
ORDERS = f"/amq/queue/{QUEUE}"
"""STOMP's name of the queue."""
READY = "/topic/stomp.ready"
"""STOMP's name of what is published to the exchange amq.topic with the routing key stomp.ready."""


def declare(channel: DeclaringChannel) -> str:
    """Declare the queue of orders and that of those which cannot be cooked; return the former's name."""
    channel.queue_declare(DEAD_LETTERS, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_declare(
        QUEUE,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": 20,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": DEAD_LETTERS,
        },
    )
    return QUEUE
