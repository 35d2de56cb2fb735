"""Record the sales of one till in the stream, each once, however often this is called. Its pair is read_sales.py.

python protocols/streams/record_sales.py north 3              sales 1 to 3 of till north
python protocols/streams/record_sales.py north 3 --first 4    sales 4 to 6
"""

import os

import client
import encoding
import sale
import topology

from common import console
from common.config import Settings
from common.connection import connect, server_version
from extras.optional import packages_for
from robust_pika import keep_connected_async
from robust_pika.errors import NotTaken

with packages_for(__file__):
    from rstream import ConfirmationStatus, Producer, RawMessage

BATCH = 100
WINDOW = 10_000
REPORT = 10_000
"""Tell after as many confirms that we are still at work."""
FILTER_VALUES = (3, 13)
"""The first RabbitMQ that takes a value to filter by with each message; see find_sales.py."""


class Labelled(RawMessage):
    """A message of the till that filters go by."""

    till = ""


async def till_of(message: Labelled) -> str:
    return message.till


async def record(settings: Settings, till: str, first: int, last: int, label: bool) -> None:
    """Send the sales first … last until RabbitMQ has confirmed each, and say how many are new."""
    waiting = set(range(first, last + 1))
    had: list[int] = []
    options = {"filter_value_extractor": till_of} if label else {}

    def message(number: int) -> Labelled:
        # Of a named publisher RabbitMQ keeps the highest id, and drops what comes with a lower one, or the same.
        numbered = Labelled(encoding.encode(till, number), publishing_id=number)
        numbered.till = till
        return numbered

    async def session(settings: Settings) -> None:
        async with client.connected(Producer, "streams/record_sales.py", settings, **options) as (producer, link):
            had.append(await (await producer.default_client).query_publisher_sequence(topology.SALES, till))
            in_flight = 0

            def on_confirm(status: ConfirmationStatus) -> None:
                nonlocal in_flight
                in_flight -= 1
                if status.is_confirmed:
                    waiting.discard(status.message_id)
                    if len(waiting) % REPORT == 0 and waiting:
                        console.say(f" [ ] {len(waiting)} more to confirm (process {os.getpid()})")
                elif status.response_code > 0:
                    link.fail(NotTaken(f"RabbitMQ refused sale {status.message_id}"))
                link.changed()

            def room() -> bool:
                return in_flight < WINDOW

            # After a lost connection from the first that is not confirmed: in their order, and some once more.
            for begin in range(min(waiting), last + 1, BATCH):
                await link.until(room, settings.blocked_timeout)
                batch = [message(number) for number in range(begin, min(begin + BATCH, last + 1))]
                in_flight += len(batch)
                await producer.send_batch(topology.SALES, batch, publisher_name=till, on_publish_confirm=on_confirm)
            await link.until(lambda: not waiting, settings.blocked_timeout)

    await keep_connected_async(settings, session)
    new = max(0, last - max(had[0], first - 1))
    console.say(f" [x] Sales {first} to {last} of till {till!r} are confirmed; {new} of them are new")


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("till", type=sale.till_name, metavar="TILL", help="its name")
    parser.add_argument("count", type=console.whole(1, 1_000_000), nargs="?", default=1, metavar="COUNT")
    parser.add_argument("--first", type=console.whole(1, 1_000_000_000), default=1, metavar="N", help="1 by default")
    arguments = parser.parse_args()
    settings = Settings.load()
    with connect("streams/record_sales.py", settings) as connection:
        topology.declare(connection.channel())
        label = server_version(connection) >= FILTER_VALUES
    last = arguments.first + arguments.count - 1
    client.run(lambda: record(settings, arguments.till, arguments.first, last, label))


if __name__ == "__main__":
    console.run(main)
