"""Read the same stream with AMQP 0-9-1, as if it were a queue. Its pairs: record_sales.py, record_sales_amqp.py.

python protocols/streams/read_sales_amqp.py                until Ctrl-C
python protocols/streams/read_sales_amqp.py --from next    first, last, next, an offset, or how long ago: 5m
"""

import place
import topology

from common import console
from common.config import Settings
from common.errors import BadMessage
from robust_pika import Message, Outcome, consume


def main() -> None:
    parser = console.parser(__doc__)
    where = "first, last, next, an offset, or how long ago (5m); first by default"
    parser.add_argument(
        "--from", dest="start", type=place.parse, default=place.Place("first"), metavar="PLACE", help=where
    )
    start = parser.parse_args().start
    arguments = {"x-stream-offset": start.text if start.offset is None else start.offset}

    def read(message: Message) -> Outcome:
        headers = message.properties.headers or {}
        offset = headers["x-stream-offset"]
        try:
            details = f"{message.properties.content_type}, number {headers.get('number')}"
            console.say(f" [x] {offset}: {message.text()} ({details})")
        except BadMessage as error:
            console.warn(f"{offset}: {error}")
        # If the connection breaks, consume() goes on after this one. With AMQP, RabbitMQ does not store our place.
        arguments["x-stream-offset"] = offset + 1
        # An acknowledgement deletes nothing here; it only lets RabbitMQ send more.
        return Outcome.ACK

    consume(
        "streams/read_sales_amqp.py",
        Settings.load(),
        topology.declare,
        read,
        prefetch=100,
        arguments=arguments,
        on_ready=lambda _queue: console.say(" [*] Reading. To exit press CTRL+C"),
    )


if __name__ == "__main__":
    console.run(main)
