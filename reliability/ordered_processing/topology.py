"""Three ways from a producer to several consumers; declaring what is there already is harmless."""

from robust_pika import DeclaringChannel, declare_queue

SHARED = "ordered_processing.shared"
SINGLE = "ordered_processing.single"
BY_ACCOUNT = "ordered_processing.by_account"
DEAD_LETTERS = "ordered_processing.dead_letters"
PARTITIONS = 4


def partition(number: int) -> str:
    """The name of the queue of this partition, from 1 to PARTITIONS."""
    return f"ordered_processing.partition_{number}"


def declare_shared(channel: DeclaringChannel) -> str:
    """Declare a queue whose consumers all get messages at the same time; return its name."""
    return _declare(channel, SHARED, single_active_consumer=False)


def declare_single(channel: DeclaringChannel) -> str:
    """Declare a queue of whose consumers one is active and the others stand by; return its name."""
    return _declare(channel, SINGLE, single_active_consumer=True)


def declare_partition(channel: DeclaringChannel, number: int) -> str:
    """Declare the exchange that deals out the accounts, and all partitions; return the name of this one's queue."""
    channel.exchange_declare(BY_ACCOUNT, exchange_type="x-consistent-hash", durable=True)
    for each in range(1, PARTITIONS + 1):
        _declare(channel, partition(each), single_active_consumer=True)
        # The exchange hashes the routing key of a message. That of a binding is a weight: here, all have the same.
        channel.queue_bind(partition(each), BY_ACCOUNT, routing_key="1")
    return partition(number)


def _declare(channel: DeclaringChannel, queue: str, *, single_active_consumer: bool) -> str:
    # With a delivery limit, RabbitMQ 3 too puts a requeued message back into its old place, and not at the end.
    arguments = {"x-single-active-consumer": single_active_consumer}
    return declare_queue(channel, queue, dead_letters=DEAD_LETTERS, arguments=arguments)
