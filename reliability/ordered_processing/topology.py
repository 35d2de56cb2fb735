"""Three ways to hand out the events of parcels: one queue for anybody, one for one at a time, and one per partition."""

from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ConnectionClosedByBroker

from common.errors import Unsupported

SEVERAL = "ordered_processing.several"
SINGLE = "ordered_processing.single"
PARCELS = "ordered_processing.parcels"
"""The exchange that chooses the partition of a parcel."""
PARTITION = "ordered_processing.partition-"
PARTITIONS = 3
DEAD_LETTERS = "ordered_processing.dead_letters"
UNKNOWN_TYPE = 503
"""What RabbitMQ closes the connection with when it has no such type of exchange (COMMAND_INVALID)."""


def declare_dead_letters(channel: BlockingChannel) -> str:
    """Declare the queue for what is no event of a parcel; return its name."""
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
    channel.queue_declare(DEAD_LETTERS, durable=True, arguments=arguments)
    return DEAD_LETTERS


def declare_several(channel: BlockingChannel) -> str:
    """Declare the queue that any number of consumers share; return its name."""
    return _declare_queue(channel, SEVERAL)


def declare_single(channel: BlockingChannel) -> str:
    """Declare the queue that only one of its consumers is served from, while the others stand by; return its name."""
    return _declare_queue(channel, SINGLE, {"x-single-active-consumer": True})


def declare_partition(channel: BlockingChannel, number: str) -> str:
    """Declare the partitions and, if it is not one of them yet, this one; return its name."""
    try:
        channel.exchange_declare(PARCELS, exchange_type="x-consistent-hash", durable=True)
    except ConnectionClosedByBroker as error:
        if error.reply_code != UNKNOWN_TYPE:
            raise
        raise Unsupported(
            "this broker has no exchange type x-consistent-hash; on its machine, run: "
            "rabbitmq-plugins enable rabbitmq_consistent_hash_exchange"
        ) from None
    for each in dict.fromkeys([*map(str, range(1, PARTITIONS + 1)), number]):
        queue = _declare_queue(channel, f"{PARTITION}{each}", {"x-single-active-consumer": True})
        # Here the binding key is a weight: how many shares of the parcels the queue gets.
        channel.queue_bind(queue, PARCELS, routing_key="1")
    return f"{PARTITION}{number}"


def _declare_queue(channel: BlockingChannel, name: str, more: dict[str, object] | None = None) -> str:
    declare_dead_letters(channel)
    arguments = {
        "x-queue-type": "quorum",
        # On RabbitMQ 3, a quorum queue puts what comes back at its end, unless it has a limit; then, at its old place.
        "x-delivery-limit": 20,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": DEAD_LETTERS,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        **(more or {}),
    }
    channel.queue_declare(name, durable=True, arguments=arguments)
    return name
