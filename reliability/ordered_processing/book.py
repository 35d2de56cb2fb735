"""Book movements until Ctrl-C, and note them in a journal that several of these share. Its pair is send_movements.py.

python reliability/ordered_processing/book.py shared bank.journal        one of several that work at the same time
python reliability/ordered_processing/book.py single bank.journal        works, or stands by
python reliability/ordered_processing/book.py partition-2 bank.journal   works at one of four partitions, or stands by
"""

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path

import topology
from journal import Journal

from common import console
from common.config import Settings
from common.errors import BadMessage
from robust_pika import DeclaringChannel, Message, Outcome, consume


def main() -> None:
    ways: dict[str, Callable[[DeclaringChannel], str]] = {
        "shared": topology.declare_shared,
        "single": topology.declare_single,
        **{
            f"partition-{number}": functools.partial(topology.declare_partition, number=number)
            for number in range(1, topology.PARTITIONS + 1)
        },
    }
    parser = console.parser(__doc__)
    parser.add_argument("way", choices=list(ways), metavar="WAY", help=", ".join(ways))
    parser.add_argument("journal", type=Path, metavar="JOURNAL", help="the file to write in; made if it is not there")
    parser.add_argument("--slow", type=console.seconds, default=0.0, metavar="S", help="seconds for an odd movement")
    parser.add_argument("--fail", type=console.whole(1, 100_000), metavar="N", help="number N fails, the first time")
    parser.add_argument("--prefetch", type=console.whole(1, 2000), default=1, metavar="N", help="1 by default")
    arguments = parser.parse_args()

    def book(message: Message) -> Outcome:
        match message.json():
            # (True is an int, to Python.)
            case {"account": str(account), "number": int(number)} if (
                account and account.isprintable() and number is not True
            ):
                pass
            case _:
                raise BadMessage('the body is no movement, such as {"account": "ada", "number": 1}')
        if number == arguments.fail and not message.redelivered:
            console.say(f" [ ] {account} {number} failed: back to its place")
            return Outcome.REQUEUE
        time.sleep(arguments.slow * (number % 2))
        journal.note(account, number)
        console.say(f" [x] Booked {account} {number}")
        return Outcome.ACK

    with Journal(arguments.journal) as journal:
        consume(
            "ordered_processing/book.py",
            Settings.load(),
            ways[arguments.way],
            book,
            # A worker that holds several already has the next ones when one fails and goes back.
            prefetch=arguments.prefetch,
            # At a stop, it releases the queue between two movements, and the worker that stands by goes on from there.
            in_order=True,
            on_ready=lambda queue: console.say(
                f" [*] Waiting for movements in {queue} (process {os.getpid()}). To exit press CTRL+C"
            ),
        )


if __name__ == "__main__":
    console.run(main)
