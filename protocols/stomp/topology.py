"""The queue of this example. STOMP could declare one by itself (/queue/NAME), but not a quorum queue with dead letters.

So every script declares it with AMQP, and STOMP uses it by /amq/queue/NAME, which takes a queue as it is.
"""

from robust_pika import DeclaringChannel, declare_queue

QUEUE = "stomp.orders"
ORDERS = f"/amq/queue/{QUEUE}"
"""STOMP's name of the queue."""
READY = "/topic/stomp.ready"
"""STOMP's name of what is published to the exchange amq.topic with the routing key stomp.ready."""


def declare(channel: DeclaringChannel) -> str:
    """Declare the queue of orders, and its dead letters: orders that cannot be cooked; return the queue's name."""
    return declare_queue(channel, QUEUE)
