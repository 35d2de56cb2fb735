"""Publish in all ways in turn, and print how fast each was. It empties its queue before each turn.

python publisher_confirms/publisher_confirms.py
python publisher_confirms/publisher_confirms.py --count 20000     takes longer, varies less
"""

import statistics
from collections.abc import Callable
from functools import partial

import asynchronous
import in_batches
import in_transactions
import one_at_a_time
import topology

from common import console
from common.config import Settings
from common.connection import connect
from common.errors import ExitCode, Failure

WAYS: dict[str, Callable[[Settings, int], float]] = {
    "one at a time": one_at_a_time.publish,
    "in batches of 100": in_batches.publish,
    "asynchronously": asynchronous.publish,
    "in transactions of 1": in_transactions.publish,
    "in transactions of 100": partial(in_transactions.publish, batch=100),
}
SLOW = ("one at a time", "in transactions of 1")
"""They have a tenth of the messages; they would take too long otherwise."""


class WrongCount(Failure):
    exit_code = ExitCode.NOT_CONFIRMED


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument(
        "--count", type=console.whole(1, topology.ROOM), default=5000, metavar="N", help="how many messages"
    )
    parser.add_argument("--rounds", type=console.whole(1, 100), default=3, metavar="N", help="turns of each way")
    arguments = parser.parse_args()
    settings = Settings.load()
    counts = {way: max(1, arguments.count // 10) if way in SLOW else arguments.count for way in WAYS}
    rates: dict[str, list[float]] = {way: [] for way in WAYS}

    with connect("publisher_confirms/publisher_confirms.py", settings) as connection:
        channel = connection.channel()
        queue = topology.declare(channel)
        # In turns: what else this machine does meanwhile slows down all of them alike.
        for _ in range(arguments.rounds):
            for way, publish in WAYS.items():
                channel.queue_purge(queue)
                rates[way].append(counts[way] / publish(settings, counts[way]))
                found = channel.queue_declare(queue, passive=True).method.message_count
                if found != counts[way]:
                    raise WrongCount(f"{way}: {counts[way]:,} messages were published, and {found:,} are in {queue!r}")

    medians = {way: statistics.median(each) for way, each in rates.items()}
    console.say(f"{'WAY':<24}{'MESSAGES':>10}{'PER SECOND':>12}{'RATIO':>8}")
    for way, rate in medians.items():
        console.say(f"{way:<24}{counts[way]:>10,}{rate:>12,.0f}{rate / medians['one at a time']:>8.1f}")


if __name__ == "__main__":
    console.run(main)
