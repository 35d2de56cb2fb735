"""Take the orders off their queue, and compare them with the journal of their producer, send_orders.py.

python robust_clients/check_orders.py shop.journal
"""

import re
from pathlib import Path

import topology
from journal import Journal, open_journal, ranges

from common import console
from common.config import Settings
from common.connection import Channel, connect
from common.errors import ExitCode, Failure

ORDER = re.compile(rb"[1-9][0-9]{0,6}")

LIMIT = 10.0
"""Seconds to wait for the next message, when RabbitMQ says that there is one."""


class OrdersMissing(Failure):
    exit_code = ExitCode.NOT_CONFIRMED


def receive(channel: Channel, journal: Journal) -> None:
    queue = topology.declare_orders(channel)
    waiting = channel.queue_declare(queue, passive=True).method.message_count
    channel.basic_qos(prefetch_count=500)
    while waiting:
        method, _properties, body = next(channel.consume(queue, inactivity_timeout=LIMIT))
        if method is None or body is None:
            raise OrdersMissing(f"{waiting:,} orders do not come; does another program hold {queue!r}?")
        if ORDER.fullmatch(body):
            journal.note("received", int(body))
            # Only now: an order that is in no journal must stay in the queue.
            channel.basic_ack(method.delivery_tag)
        else:
            console.warn(f"no order: {body[:40]!r}; rejected")
            channel.basic_reject(method.delivery_tag, requeue=False)
        waiting -= 1


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("journal", type=Path, metavar="JOURNAL", help="the file that send_orders.py has kept")
    path = parser.parse_args().journal
    with open_journal(path) as journal, connect("robust_clients/check_orders.py", Settings.load()) as connection:
        receive(connection.channel(), journal)

    received, confirmed = journal.orders("received"), journal.orders("confirmed")
    in_doubt = journal.orders("sent") - confirmed
    console.say(f" [x] confirmed, arrived: {ranges(confirmed & received)}")
    console.say(f" [x] confirmed, missing: {ranges(confirmed - received)}")
    console.say(f" [x] in doubt, arrived: {ranges(in_doubt & received)}")
    console.say(f" [x] in doubt, missing: {ranges(in_doubt - received)}")
    twice = [order for order, times in journal.events["received"].items() if times > 1]
    console.say(f" [x] arrived more than once: {ranges(twice)}")
    if lost := confirmed - received:
        raise OrdersMissing(f"{len(lost):,} confirmed orders are missing: {ranges(lost)}")


if __name__ == "__main__":
    console.run(main)
