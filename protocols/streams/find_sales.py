"""Find the sales of one till without reading all of them: RabbitMQ skips the chunks that have none. Needs 3.13.

python protocols/streams/find_sales.py north

Its pair is record_sales.py, which gives RabbitMQ the till's name with each sale. Of each chunk, RabbitMQ keeps a Bloom
filter of these names. Such a filter never overlooks a name, but a chunk comes whole: the reader has to look again.
"""

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

with packages_for(__file__):
    from rstream import Consumer, FilterConfiguration, MessageContext


async def find(settings: Settings, till: str) -> None:
    """Read up to the last sale that RabbitMQ has of this till, and tell how much had to be read for it."""
    found = came = 0

    async with client.connected(Consumer, "streams/find_sales.py", settings) as (consumer, link):
        last = await (await consumer.default_client).query_publisher_sequence(topology.SALES, till)
        seen = set()

        async def on_message(body: bytes, _context: MessageContext) -> None:
            nonlocal came, found
            came += 1
            try:
                sold = encoding.decode(body)
            except BadMessage:
                return
            if sold.till == till:
                found += 1
                seen.add(sold.number)
            link.changed()

        await consumer.subscribe(
            topology.SALES,
            link.careful(on_message),
            offset_specification=client.specification(place.Place("first")),
            filter_input=FilterConfiguration(values_to_filter=[till]),
        )
        await link.until(lambda: last == 0 or last in seen, settings.blocked_timeout)
    console.say(f" [x] {found} sales of till {till!r}; RabbitMQ sent {came} messages for that")


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("till", type=sale.till_name, metavar="TILL", help="its name")
    till = parser.parse_args().till
    settings = Settings.load()
    with connect("streams/find_sales.py", settings) as connection:
        require(connection, (3, 13), "filtering a stream")
        topology.declare(connection.channel())
    client.run(lambda: find(settings, till))


if __name__ == "__main__":
    console.run(main)
