"""Store the readings, slowly, until Ctrl-C. Its pair is measure.py; either may start first.

python reliability/back_pressure/store.py readings
python reliability/back_pressure/store.py readings --per-second 50
"""

import time
from typing import Any

import topology

from common import console
from common.config import Settings
from common.errors import BadMessage
from robust_pika import Message, Outcome, consume

EVERY = 100
MOST = 10**15
"""The largest number in a reading."""


def number_in(reading: Any, name: str) -> float:
    """A number of a reading. Raises BadMessage if there is none."""
    value = reading.get(name) if isinstance(reading, dict) else None
    # (True is an int, to Python. A whole number in JSON may be too large for a float.)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > MOST:
        raise BadMessage(f"this is no reading: it needs a number {name!r}")
    return value


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("queue", choices=topology.QUEUES)
    parser.add_argument("--per-second", type=console.whole(1, 100_000), default=100, metavar="N", help="100 by default")
    # What it holds is in its memory, and no other consumer can have it.
    parser.add_argument("--prefetch", type=console.whole(1, 2000), default=10, metavar="N", help="10 by default")
    arguments = parser.parse_args()
    stored = 0

    def store(message: Message) -> Outcome:
        nonlocal stored
        reading = message.json()
        number, waited = number_in(reading, "number"), time.time() - number_in(reading, "at")
        time.sleep(1 / arguments.per_second)
        stored += 1
        if stored % EVERY == 0:
            console.say(f" [x] Stored {stored}; number {number:g} waited {waited:.1f} s")
        return Outcome.ACK

    consume(
        "back_pressure/store.py",
        Settings.load(),
        lambda channel: topology.declare(channel, arguments.queue),
        store,
        prefetch=arguments.prefetch,
        on_ready=lambda _queue: console.say(" [*] Waiting for readings. To exit press CTRL+C"),
    )
    console.say(f" [x] Stored {stored} in all")


if __name__ == "__main__":
    console.run(main)
