"""Publish messages, each confirmed before the next is sent, and say how fast that was. It needs no other program.

python publisher_confirms/one_at_a_time.py
python publisher_confirms/one_at_a_time.py --count 10000
"""

import time

import pika
import topology

from common import console, messages
from common.config import Settings
from common.connection import connect


def publish(settings: Settings, count: int) -> float:
    """Publish ``count`` messages; the seconds until all are confirmed."""
    with connect("publisher_confirms/one_at_a_time.py", settings) as connection:
        channel = connection.channel()
        queue = topology.declare(channel)
        # From here on, basic_publish returns when RabbitMQ has confirmed the message. It raises NackError or
        # UnroutableError if RabbitMQ has refused it.
        channel.confirm_delivery()
        began = time.perf_counter()
        for number in range(1, count + 1):
            body = messages.encode_text(f"message {number}")
            properties = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
            channel.basic_publish("", queue, body, properties, mandatory=True)
        return time.perf_counter() - began


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--count", type=console.whole(1, 1_000_000), default=2000, metavar="N", help="messages")
    count = parser.parse_args().count
    seconds = publish(Settings.load(), count)
    console.say(f" [x] {count:,} messages confirmed, one at a time: {count / seconds:,.0f} per second")


if __name__ == "__main__":
    console.run(main)
