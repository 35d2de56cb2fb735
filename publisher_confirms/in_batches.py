"""Publish messages in batches, wait for each batch's confirms, and say how fast that was. It needs no other program.

python publisher_confirms/in_batches.py
python publisher_confirms/in_batches.py --batch 10
"""

import time

import topology
from common.publisher import Publisher

from common import console, messages
from common.config import Settings


def publish(settings: Settings, count: int, batch: int = 100) -> float:
    """Publish ``count`` messages; the seconds until all are confirmed."""
    # pika's BlockingChannel cannot do this: with confirms on, its basic_publish waits, for each message by itself.
    with Publisher("publisher_confirms/in_batches.py", settings, declare=topology.declare) as publisher:
        began = time.perf_counter()
        for number in range(1, count + 1):
            body = messages.encode_text(f"message {number}")
            publisher.publish("", topology.MEASURED, body, messages.properties())
            if number % batch == 0:
                # Returns when RabbitMQ has confirmed the batch. If it refused a part of it, this raises
                # DeliveryError, which has an entry for each of those messages.
                publisher.flush()
        publisher.flush()
        return time.perf_counter() - began


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--count", type=console.whole(1, 100_000), default=2000, metavar="N", help="how many messages")
    parser.add_argument("--batch", type=console.whole(1, 1000), default=100, metavar="N", help="messages in a batch")
    arguments = parser.parse_args()
    count, batch = arguments.count, arguments.batch
    seconds = publish(Settings.load(), count, batch)
    console.say(f" [x] {count:,} messages confirmed, in batches of {batch}: {count / seconds:,.0f} per second")


if __name__ == "__main__":
    console.run(main)
