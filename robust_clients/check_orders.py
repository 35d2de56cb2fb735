"""Take the orders off their queue, and compare them with the journal of their producer, send_orders.py.

python robust_clients/check_orders.py shop.journal
"""

import re
import time
from pathlib import Path

import topology
from journal import Journal, ranges
from pika.adapters.blocking_connection import BlockingChannel

from common import console
from common.config import Settings
from common.connection import Connection, connect
from common.errors import ExitCode, Failure

ORDER = re.compile(rb"[1-9][0-9]{0,6}")

LIMIT = 10.0
"""Seconds to wait for orders that are expected, and do not come."""


class OrdersMissing(Failure):
    exit_code = ExitCode.NOT_CONFIRMED


def receive(channel: BlockingChannel, journal: Journal, waiting: int) -> None:
    for method, _properties, body in channel.consume(topology.ORDERS, inactivity_timeout=LIMIT):
        if method is None:
            raise OrdersMissing(f"{waiting:,} orders do not come; does another program hold {topology.ORDERS!r}?")
        if ORDER.fullmatch(body):
            journal.note("received", int(body))
            # Only now: an order that is in no journal must stay in the queue.
            channel.basic_ack(method.delivery_tag)
        else:
            console.warn(f"no order: {body[:40]!r}; rejected")
            channel.basic_reject(method.delivery_tag, requeue=False)
        waiting -= 1
        if not waiting:
            channel.cancel()
            return


def receive_all(connection: Connection, journal: Journal) -> None:
    channel = connection.channel()
    queue = topology.declare_orders(channel)
    channel.basic_qos(prefetch_count=500)
    deadline = time.monotonic() + LIMIT
    while True:
        if waiting := channel.queue_declare(queue, passive=True).method.message_count:
            receive(channel, journal, waiting)
        elif not journal.confirmed - journal.received.keys() or time.monotonic() > deadline:
            return
        else:
            # A quorum queue calls itself empty for a moment after RabbitMQ has started: believe it later.
            connection.sleep(0.2)


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("journal", type=Path, metavar="JOURNAL", help="the file that send_orders.py has kept")
    path = parser.parse_args().journal
    with Journal(path) as journal, connect("robust_clients/check_orders.py", Settings.load()) as connection:
        receive_all(connection, journal)

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
