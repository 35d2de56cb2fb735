"""The queue of this example. Only the servers declare it: as long as it exists, there is a server."""

from common.connection import Channel

QUEUE = "rpc.requests"


def declare(channel: Channel) -> str:
    """Declare the queue of requests; return its name."""
    # auto_delete: RabbitMQ deletes the queue when its last consumer has gone, and the requests in it.
    channel.queue_declare(QUEUE, durable=True, auto_delete=True)
    return QUEUE
