"""Send 500 readings to each of the four queues while no program takes any, and compare what becomes of them.

python reliability/back_pressure/compare_limits.py

What is in the queues before goes.
"""

import time

import topology
from pika.adapters.blocking_connection import BlockingChannel

from common import console, messages
from common.config import Settings
from common.connection import connect
from robust_pika import Nacked, Publisher

READINGS = 500
LIMIT = 30.0
"""Seconds to wait for a queue to have done what it has to do."""


def send(settings: Settings, queue: str, in_flight: int) -> int:
    """How many readings are confirmed, with this many unconfirmed ones at once."""
    confirmed = 0
    with Publisher("back_pressure/compare_limits.py", settings, window=in_flight) as publisher:
        for first in range(0, READINGS, in_flight):
            group = [
                publisher.publish("", queue, messages.encode_text(str(number)), messages.properties())
                for number in range(first, min(first + in_flight, READINGS))
            ]
            for confirmation in group:
                try:
                    confirmation.wait()
                    confirmed += 1
                except Nacked:
                    pass  # the queue is full, which is what we count
    return confirmed


def kept(channel: BlockingChannel, queue: str, expected: int) -> int:
    """How many the queue has, when it has settled on that."""
    deadline = time.monotonic() + LIMIT
    while True:
        count = int(channel.queue_declare(queue, passive=True).method.message_count)
        if count == expected or time.monotonic() > deadline:
            return count
        channel.connection.sleep(0.1)


def main() -> None:
    console.parser(__doc__).parse_args()
    settings = Settings.load()
    with connect("back_pressure/compare_limits.py", settings) as connection:
        channel = connection.channel()
        for name, in_flight in (("readings", 1), ("newest", 1), ("refusing", 1), ("refusing", 100), ("fresh", 1)):
            queue = topology.declare(channel, name)
            # Deleted and not only purged: a queue that refuses goes on for a moment.
            channel.queue_delete(queue)
            topology.declare(channel, name)
            confirmed = send(settings, queue, in_flight)
            expected = {"newest": topology.LIMIT, "fresh": 0}.get(name, confirmed)
            left = kept(channel, queue, expected)
            answers = f"{confirmed} times yes, {READINGS - confirmed} times no"
            console.say(f" [x] {name}, {in_flight} at a time: {answers}, {left} kept")
            channel.queue_delete(queue)
            topology.declare(channel, name)


if __name__ == "__main__":
    console.run(main)
