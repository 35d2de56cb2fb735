"""Read the stream of sales, from where you like, until Ctrl-C. Reading takes nothing away. Pair: record_sales.py.

python protocols/streams/read_sales.py                       from the first one that is still there
python protocols/streams/read_sales.py --from next           what is recorded from now on
python protocols/streams/read_sales.py --from 17             from this offset on
python protocols/streams/read_sales.py --from 5m             what was recorded in the last 5 minutes
python protocols/streams/read_sales.py --from last           from the last chunk on, which was stored in one go
python protocols/streams/read_sales.py --name accounts       from where the reader of this name was
"""

import asyncio
import math
import os
import time
from contextlib import suppress

import client
import encoding
import place
import sale
import topology

from common import console
from common.config import Settings
from common.connection import connect
from common.errors import BadMessage
from extras.optional import packages_for
from robust_pika import keep_connected_async

with packages_for(__file__):
    from rstream import Consumer, MessageContext, OffsetNotFound


async def read(settings: Settings, start: place.Place, name: str | None, store_every: int, pace: float) -> None:
    """Read until cancelled. ``pace`` is in seconds for a sale."""
    done: int | None = None
    began: float | None = None

    async def session(settings: Settings) -> None:
        nonlocal began, done
        async with client.connected(Consumer, "streams/read_sales.py", settings) as (consumer, link):
            stored = -1
            stopping = False
            if name and done is None:
                # There is none if no reader of this name has stored a place yet.
                with suppress(OffsetNotFound):
                    stored = done = await consumer.query_offset(topology.SALES, name)
            begin = start
            if done is not None:
                begin = place.Place(str(done + 1))
            elif began is not None and start.text == "next":
                # Cut off before anything has come: `next` would now leave out what came meanwhile.
                begin = place.Place(f"{math.ceil(time.monotonic() - began)}s")
            began = began or time.monotonic()

            async def on_message(body: bytes, context: MessageContext) -> None:
                nonlocal done, stored
                # rstream leaves out what is before our place in the first chunk that comes; it may be in the next, too.
                if stopping or (begin.offset is not None and context.offset < begin.offset):
                    return
                try:
                    console.say(f" [x] {context.offset}: {encoding.decode(body).text}")
                except BadMessage as error:
                    # A stream has no dead letters: leave it there and go on.
                    console.warn(f"{context.offset}: {error}")
                await asyncio.sleep(pace)
                done = context.offset
                if name and done - stored >= store_every:
                    await consumer.store_offset(topology.SALES, name, done)
                    stored = done

            await consumer.subscribe(
                topology.SALES,
                link.careful(on_message),
                offset_specification=client.specification(begin),
                # How many chunks RabbitMQ may send ahead: that is the prefetch here.
                initial_credit=2,
            )
            console.say(f" [*] Reading (process {os.getpid()}). To exit press CTRL+C")
            try:
                await link.lost()
            except asyncio.CancelledError:
                # The one in hand is the last, or what comes while the place is stored would be read again.
                stopping = True
                if name and done is not None and done > stored:
                    await consumer.store_offset(topology.SALES, name, done)
                raise

    await keep_connected_async(settings, session)


def main() -> None:
    parser = console.parser(__doc__)
    where = "first, last, next, an offset, or how long ago (5m); first by default"
    parser.add_argument(
        "--from", dest="start", type=place.parse, default=place.Place("first"), metavar="PLACE", help=where
    )
    parser.add_argument("--name", type=sale.till_name, metavar="NAME", help="RabbitMQ keeps your place")
    parser.add_argument(
        "--store-every", type=console.whole(1, 1_000_000), default=10, metavar="N", help="10 by default"
    )
    parser.add_argument("--seconds-per-sale", type=console.seconds, default=0.0, metavar="S", help="read slowly")
    arguments = parser.parse_args()
    settings = Settings.load()
    with connect("streams/read_sales.py", settings) as connection:
        topology.declare(connection.channel())
    client.run(
        lambda: read(settings, arguments.start, arguments.name, arguments.store_every, arguments.seconds_per_sale)
    )


if __name__ == "__main__":
    console.run(main)
