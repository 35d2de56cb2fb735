"""The queue of this example. Only the server declares it: that it is there tells a client that a server is."""

from common.declaring import DeclaringChannel

QUEUE = "rpc.requests"
DEAD_LETTERS = f"{QUEUE}.dead_letters"


def declare(channel: DeclaringChannel) -> str:
    """Declare the queue of requests and the one for those that nobody answered; return the former's name."""
    channel.queue_declare(
        DEAD_LETTERS,
        durable=True,
        # Requests that expired come here too, and might be many: the oldest are dropped.
        arguments={"x-queue-type": "quorum", "x-max-length": 10_000},
    )
    channel.queue_declare(
        QUEUE,
        durable=True,
        # It goes with its last server. So this is a classic queue; a quorum queue stays until somebody deletes it.
        auto_delete=True,
        arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DEAD_LETTERS},
    )
    return QUEUE
