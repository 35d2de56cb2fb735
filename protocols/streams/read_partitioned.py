"""Read a super stream together with others of the same name: each partition has one reader at a time.

python protocols/streams/read_partitioned.py --name accounts

Start it twice: the partitions are shared out. Kill one: the other takes over, from where the first one was. Its pair is
record_partitioned.py.
"""

import os

import client
import encoding
import place
import sale
import topology

from common import console
from common.config import Settings
from common.connection import connect, require
from common.errors import BadMessage
from extras.optional import packages_for
from robust_pika import keep_connected_async

with packages_for(__file__):
    from rstream import (
        EventContext,
        MessageContext,
        OffsetNotFound,
        OffsetSpecification,
        OffsetType,
        SuperStreamConsumer,
    )


async def read(settings: Settings, name: str) -> None:
    """Read until cancelled."""
    ours: set[str] = set()

    async def on_message(body: bytes, context: MessageContext) -> None:
        partition = context.stream.rpartition("-")[2]
        try:
            console.say(f" [x] Partition {partition}: {encoding.decode(body).text}")
        except BadMessage as error:
            console.warn(f"{context.stream}, {context.offset}: {error}")
        # After each one, because another reader may get this partition at any moment. Not if there are thousands.
        await context.consumer.store_offset(context.stream, name, context.offset)

    async def on_update(active: bool, context: EventContext) -> OffsetSpecification:
        """RabbitMQ has made us the reader of a partition, or no longer: from where should it send?"""
        partition = context.stream.rpartition("-")[2]
        if not active:
            if partition in ours:
                ours.remove(partition)
                console.say(f" [*] Another one reads partition {partition} now")
            return OffsetSpecification(OffsetType.NEXT, 0)
        try:
            begin = await context.consumer.query_offset(context.stream, name) + 1
        except OffsetNotFound:
            begin = 0
        ours.add(partition)
        console.say(f" [*] Now reading partition {partition}")
        return OffsetSpecification(OffsetType.OFFSET, begin)

    async def session(settings: Settings) -> None:
        more = {"super_stream": topology.BY_TILL}
        async with client.connected(SuperStreamConsumer, "streams/read_partitioned.py", settings, **more) as (
            consumer,
            link,
        ):
            console.say(f" [*] Reading (process {os.getpid()}). To exit press CTRL+C")
            await consumer.subscribe(
                link.careful(on_message),
                offset_specification=client.specification(place.Place("first")),
                properties={"single-active-consumer": "true", "name": name, "super-stream": topology.BY_TILL},
                consumer_update_listener=on_update,
            )
            await link.lost()

    await keep_connected_async(settings, session)


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--name", type=sale.till_name, default="accounts", metavar="NAME", help="who reads together")
    name = parser.parse_args().name
    settings = Settings.load()
    with connect("streams/read_partitioned.py", settings) as connection:
        require(connection, (3, 11), "a single active consumer of a stream")
        topology.declare_partitions(connection.channel())
    client.run(lambda: read(settings, name))


if __name__ == "__main__":
    console.run(main)
