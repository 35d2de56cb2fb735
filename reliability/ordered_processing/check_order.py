"""Say whether the events of each parcel are in the book in their order, all of them. It needs no RabbitMQ.

python reliability/ordered_processing/check_order.py my.book
"""

from collections import defaultdict
from pathlib import Path

import logbook
from logbook import Event

from common import console
from common.errors import ExitCode, Failure


class NotInOrder(Failure):
    """Events are missing, or came behind a later one of their parcel."""

    exit_code = ExitCode.DATA


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("book", type=Path, help="the file that follow.py has written")
    book = parser.parse_args().book

    seen: defaultdict[str, set[int]] = defaultdict(set)
    length: defaultdict[str, int] = defaultdict(int)
    overtaken: list[Event] = []
    parcels_of: defaultdict[str, set[str]] = defaultdict(set)
    again = 0
    for event, source in logbook.read(book):
        steps = seen[event.parcel]
        if event.step in steps:
            again += 1
        elif steps and event.step < max(steps):
            overtaken.append(event)
        steps.add(event.step)
        length[event.parcel] = max(length[event.parcel], event.of)
        parcels_of[source].add(event.parcel)
    missing = [
        Event(parcel, step, length[parcel])
        for parcel in seen
        for step in sorted(set(range(1, length[parcel] + 1)) - seen[parcel])
    ]

    for source in sorted(parcels_of):
        console.say(f" [x] {source}: {len(parcels_of[source])} parcels")
    total = sum(map(len, seen.values()))
    console.say(
        f" [x] {len(seen)} parcels, {total} events: "
        f"{len(overtaken)} overtaken, {len(missing)} missing, {again} done again"
    )
    if overtaken or missing:
        first, what = (overtaken[0], "behind a later one") if overtaken else (missing[0], "missing")
        raise NotInOrder(f"not in order: {first} is {what}")


if __name__ == "__main__":
    console.run(main)
