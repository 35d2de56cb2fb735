"""Publish messages without a pause while their confirms come in, and say how fast that was. It needs no other program.

python publisher_confirms/pipelined.py
python publisher_confirms/pipelined.py --window 100     at most 100 messages unconfirmed at any time
"""

import time

import topology
from common.publisher import Publisher

from common import console, messages
from common.config import Settings


def publish(settings: Settings, count: int, window: int = 1000) -> float:
    """Publish ``count`` messages; the seconds until all are confirmed."""
    name = "publisher_confirms/pipelined.py"
    with Publisher(name, settings, declare=topology.declare, window=window) as publisher:
        began = time.perf_counter()
        for number in range(count):
            body = messages.encode_text(f"message {number}")
            # Returns at once, as long as the window has room. The Confirmation that it returns can be asked
            # later, by whoever wants to know about this one message.
            publisher.publish("", topology.MEASURED, body, messages.properties())
        publisher.flush()
        return time.perf_counter() - began


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument(
        "--count", type=console.whole(1, 100_000), default=20_000, metavar="N", help="how many messages"
    )
    parser.add_argument(
        "--window", type=console.whole(1, 10_000), default=1000, metavar="N", help="most messages in flight"
    )
    arguments = parser.parse_args()
    count, window = arguments.count, arguments.window
    seconds = publish(Settings.load(), count, window)
    console.say(f" [x] {count:,} messages confirmed, {window:,} in flight: {count / seconds:,.0f} per second")


if __name__ == "__main__":
    console.run(main)
