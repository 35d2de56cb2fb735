"""Take the orders off their queue, and compare them with the journal of their producer, send_orders.py.

python publisher_confirms/check_orders.py shop.journal
"""

import re
from pathlib import Path

import topology
from journal import Journal, ranges
from pika.adapters.blocking_connection import BlockingChannel

from common import console
from common.config import Settings
from common.connection import connect
from common.errors import ExitCode, Failure

ORDER = re.compile(rb"[1-9][0-9]{0,6}")

LIMIT = 10.0
"""Seconds to wait for the next order; they are all there already."""


class OrdersMissing(Failure):
    exit_code = ExitCode.NOT_CONFIRMED


def receive(channel: BlockingChannel, journal: Journal) -> None:
    queue = topology.declare_orders(channel)
    waiting = channel.queue_declare(queue, passive=True).method.message_count
    if not waiting:
        return
    channel.basic_qos(prefetch_count=500)
    for method, _properties, body in channel.consume(queue, inactivity_timeout=LIMIT):
        if method is None:
            raise OrdersMissing(f"{waiting:,} orders are in {queue!r} and do not come; does another program hold them?")
        if ORDER.fullmatch(body):
            journal.note("received", int(body))
            # Only now: an order that is in no journal must stay in the queue.
            channel.basic_ack(method.delivery_tag)
        else:
            console.warn(f"no order: {body[:40]!r}; to the dead letters")
            channel.basic_reject(method.delivery_tag, requeue=False)
        waiting -= 1
        if not waiting:
            return


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("journal", type=Path, metavar="JOURNAL", help="the file that send_orders.py has kept")
    path = parser.parse_args().journal
    with Journal(path) as journal, connect("publisher_confirms/check_orders.py", Settings.load()) as connection:
        receive(connection.channel(), journal)

    received, twice = set(journal.received), [number for number, times in journal.received.items() if times > 1]
    in_doubt = journal.sent - journal.confirmed
    console.say(f" [x] confirmed, arrived: {ranges(journal.confirmed & received)}")
    console.say(f" [x] confirmed, missing: {ranges(journal.confirmed - received)}")
    console.say(f" [x] in doubt, arrived: {ranges(in_doubt & received)}")
    console.say(f" [x] in doubt, missing: {ranges(in_doubt - received)}")
    console.say(f" [x] arrived more than once: {ranges(twice)}")
    if lost := journal.confirmed - received:
        raise OrdersMissing(f"{len(lost):,} confirmed orders are missing: {ranges(lost)}")


if __name__ == "__main__":
    console.run(main)
