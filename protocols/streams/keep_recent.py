"""Write more into a stream than it may keep, and see where it begins then.

python protocols/streams/keep_recent.py
python protocols/streams/keep_recent.py --count 100000
"""

import client
import encoding
import place
import topology

from common import console
from common.config import Settings
from common.connection import connect
from extras.optional import packages_for

with packages_for(__file__):
    from rstream import ConfirmationStatus, Consumer, MessageContext, Producer

BATCH = 100


async def write(settings: Settings, count: int) -> None:
    """Write ``count`` sales, and return when RabbitMQ has them."""
    confirmed = sent = 0
    async with client.connected(Producer, "streams/keep_recent.py", settings) as (producer, link):

        def on_confirm(status: ConfirmationStatus) -> None:
            nonlocal confirmed
            confirmed += status.is_confirmed
            link.changed()

        def all_confirmed() -> bool:
            return confirmed >= sent

        for begin in range(0, count, BATCH):
            numbers = range(begin + 1, min(begin + BATCH, count) + 1)
            batch = [encoding.encode("north", number) for number in numbers]
            await producer.send_batch(topology.RECENT, batch, on_publish_confirm=on_confirm)
            # One batch after the other: what arrives together is stored together, and forgotten together.
            sent = numbers.stop - 1
            await link.until(all_confirmed, settings.blocked_timeout)
    console.say(f" [x] {count} sales written")


async def oldest(settings: Settings) -> None:
    """Ask for the very first message, and see which one comes."""
    offsets: list[int] = []
    async with client.connected(Consumer, "streams/keep_recent.py", settings) as (consumer, link):

        async def on_message(_body: bytes, context: MessageContext) -> None:
            offsets.append(context.offset)
            link.changed()

        begin = client.specification(place.Place("0"))
        await consumer.subscribe(topology.RECENT, link.careful(on_message), offset_specification=begin)
        await link.until(lambda: bool(offsets), settings.blocked_timeout)
    console.say(f" [x] Asked for offset 0; the oldest message there is has offset {offsets[0]}")


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--count", type=console.whole(1, 1_000_000), default=4000, metavar="N", help="4000 by default")
    count = parser.parse_args().count
    settings = Settings.load()
    with connect("streams/keep_recent.py", settings) as connection:
        topology.declare_recent(connection.channel())

    async def both() -> None:
        await write(settings, count)
        await oldest(settings)

    client.run(both)


if __name__ == "__main__":
    console.run(main)
