"""Follow the parcels, until Ctrl-C: write each event into a book. Its pair is send_events.py; either may start first.

python reliability/ordered_processing/follow.py several my.book
python reliability/ordered_processing/follow.py single my.book
python reliability/ordered_processing/follow.py partition-2 my.book     a number that is new adds a partition
python reliability/ordered_processing/follow.py single my.book --stumble 3    step 3 does not work the first time

Start several of them with one book, and look at it with check_order.py.
"""

import argparse
import re
import time
from pathlib import Path

import logbook
import topology
from logbook import Event
from pika.adapters.blocking_connection import BlockingChannel

from common import console
from common.config import Settings
from common.consumer import Outcome, consume
from common.messages import Message


def source(text: str) -> str:
    """A ``type`` for the argument that says which queue."""
    if text in ("several", "single") or re.fullmatch(r"partition-[1-9]\d?", text):
        return text
    raise argparse.ArgumentTypeError(f"must be several, single or partition-1 to partition-99, not {text!r}")


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("source", type=source, help="several, single, or partition-N")
    parser.add_argument("book", type=Path, help="the file to write to")
    parser.add_argument("--seconds", type=console.seconds, default=0.0, metavar="S", help="how long an event takes")
    parser.add_argument("--stumble", type=console.whole(1, 100_000), metavar="STEP", help="give it back the first time")
    # With more, those behind it are here already when one is given back, and are done before it comes again.
    parser.add_argument("--prefetch", type=console.whole(1, 2000), default=1, metavar="N", help="1 by default")
    arguments = parser.parse_args()
    kind, _, number = arguments.source.partition("-")

    def declare(channel: BlockingChannel) -> str:
        match kind:
            case "several":
                return topology.declare_several(channel)
            case "single":
                return topology.declare_single(channel)
        return topology.declare_partition(channel, number)

    def follow(message: Message) -> Outcome:
        event = Event.read(message.json())
        if event.step == arguments.stumble and not message.redelivered:
            console.say(f" [ ] {event}: gave it back")
            return Outcome.REQUEUE  # basic.reject(requeue=True): to its old place in the queue
        time.sleep(arguments.seconds)
        # Killed between these two, we leave it to the next consumer, and then it is in the book twice.
        logbook.write(arguments.book, event, arguments.source)
        console.say(f" [x] {event}" + (", again" if message.redelivered else ""))
        return Outcome.ACK

    consume(
        "ordered_processing/follow.py",
        Settings.load(),
        declare,
        follow,
        prefetch=arguments.prefetch,
        # When we are stopped, the next consumer may begin only when we have nothing left.
        in_order=True,
        on_ready=lambda _queue: console.say(" [*] Waiting for events. To exit press CTRL+C"),
    )


if __name__ == "__main__":
    console.run(main)
