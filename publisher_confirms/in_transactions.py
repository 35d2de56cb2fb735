"""Publish messages in AMQP transactions, and say how fast that was. Not recommended; it is here to be measured.

python publisher_confirms/in_transactions.py                 a transaction for each message
python publisher_confirms/in_transactions.py --batch 100     one for each hundred
"""

import time

import pika
import topology

from common import console, messages
from common.config import Settings
from common.connection import connect


def publish(settings: Settings, count: int, batch: int = 1) -> float:
    """Publish ``count`` messages; the seconds until all are committed."""
    with connect("publisher_confirms/in_transactions.py", settings) as connection:
        channel = connection.channel()
        queue = topology.declare(channel)
        # A channel has either transactions or confirms, never both.
        channel.tx_select()
        began = time.perf_counter()
        for number in range(1, count + 1):
            body = messages.encode_text(f"message {number}")
            properties = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
            channel.basic_publish("", queue, body, properties)
            if number % batch == 0:
                # Until this returns, no queue has any of them. If it raises, some queues may have them.
                channel.tx_commit()
        channel.tx_commit()
        return time.perf_counter() - began


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--count", type=console.whole(1, 1_000_000), default=2000, metavar="N", help="messages")
    parser.add_argument("--batch", type=console.whole(1, 1000), default=1, metavar="N", help="in one transaction")
    arguments = parser.parse_args()
    count, batch = arguments.count, arguments.batch
    seconds = publish(Settings.load(), count, batch)
    console.say(f" [x] {count:,} messages committed, in transactions of {batch}: {count / seconds:,.0f} per second")


if __name__ == "__main__":
    console.run(main)
