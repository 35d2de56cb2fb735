"""Read the whole stream and count one till's sales: is one missing, or there twice? Its pair is record_sales.py.

python protocols/streams/check_sales.py north
"""

from collections import Counter

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

with packages_for(__file__):
    from rstream import Consumer, MessageContext


async def check(settings: Settings, till: str) -> None:
    """Read up to the last sale that RabbitMQ has of this till, and tell."""
    seen: Counter[int] = Counter()
    in_order, highest = True, 0

    async with client.connected(Consumer, "streams/check_sales.py", settings) as (consumer, link):
        # The publisher's sequence, as record_sales.py asks for it: no need to guess where the end is.
        last = await (await consumer.default_client).query_publisher_sequence(topology.SALES, till)

        async def on_message(body: bytes, _context: MessageContext) -> None:
            nonlocal in_order, highest
            try:
                found = encoding.decode(body)
            except BadMessage:
                return
            if found.till == till:
                in_order = in_order and found.number > highest
                highest = found.number
                seen[found.number] += 1
                link.changed()

        begin = client.specification(place.Place("first"))
        await consumer.subscribe(topology.SALES, link.careful(on_message), offset_specification=begin)
        await link.until(lambda: last == 0 or last in seen, settings.blocked_timeout)
    missing = last - len(seen)
    twice = sum(count > 1 for count in seen.values())
    order = "in order" if in_order else "NOT in order"
    console.say(f" [x] Till {till!r}: {last} sales, {missing} missing, {twice} more than once, {order}")


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("till", type=sale.till_name, metavar="TILL", help="its name")
    till = parser.parse_args().till
    settings = Settings.load()
    with connect("streams/check_sales.py", settings) as connection:
        topology.declare(connection.channel())
    client.run(lambda: check(settings, till))


if __name__ == "__main__":
    console.run(main)
