"""The streams of this example. Every script declares what it uses, so that any of them may start first."""

import zlib

from robust_pika import DeclaringChannel

SALES = "streams.sales"
RECENT = "streams.recent"
BY_TILL = "streams.by_till"
PARTITIONS = 3
COMPARED_STREAM = "streams.compared.stream"
COMPARED_QUEUE = "streams.compared.queue"


def declare(channel: DeclaringChannel) -> str:
    """Declare the stream of all sales; return its name."""
    channel.queue_declare(
        SALES,
        durable=True,
        arguments={
            "x-queue-type": "stream",
            # Reading removes nothing: without a limit a stream grows until the disk is full.
            "x-max-length-bytes": 2_000_000_000,
            "x-max-age": "7D",
        },
    )
    return SALES


def declare_recent(channel: DeclaringChannel) -> str:
    """Declare a stream that keeps little, in small files, so that one can watch it forget; return its name."""
    channel.queue_declare(
        RECENT,
        durable=True,
        arguments={
            "x-queue-type": "stream",
            "x-max-length-bytes": 200_000,
            # What is too much or too old is deleted file by file, never in the middle of one (500 MB by default).
            "x-stream-max-segment-size-bytes": 50_000,
        },
    )
    return RECENT


def declare_partitions(channel: DeclaringChannel) -> str:
    """Declare a super stream, which is an exchange with a stream behind each routing key; return its name."""
    channel.exchange_declare(BY_TILL, exchange_type="direct", durable=True, arguments={"x-super-stream": True})
    for number in range(PARTITIONS):
        partition = f"{BY_TILL}-{number}"
        channel.queue_declare(
            partition, durable=True, arguments={"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}
        )
        order = {"x-stream-partition-order": number}
        channel.queue_bind(partition, BY_TILL, routing_key=str(number), arguments=order)
    return BY_TILL


def declare_compared(channel: DeclaringChannel) -> str:
    """Declare a stream and a quorum queue for compare.py; return the name of the queue."""
    channel.queue_declare(
        COMPARED_STREAM, durable=True, arguments={"x-queue-type": "stream", "x-max-length-bytes": 2_000_000_000}
    )
    channel.queue_declare(COMPARED_QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    return COMPARED_QUEUE


def partition_of(till: str) -> str:
    """The routing key of a till: always the same one, so that its sales stay in their order."""
    return str(zlib.crc32(till.encode()) % PARTITIONS)
