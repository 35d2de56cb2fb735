"""Send numbered orders, and keep a journal of them; killed and started again, it goes on. Its pair is check_orders.py.

python robust_clients/send_orders.py shop.journal
python robust_clients/send_orders.py shop.journal --count 50000
"""

import os
from collections import deque
from pathlib import Path

import topology
from journal import Journal, open_journal, ranges

from common import console, messages
from common.config import Settings
from common.errors import ExitCode, Failure
from robust_pika import Confirmation, DeliveryError, NotConfirmed, Publisher


class OrdersLeft(Failure):
    exit_code = ExitCode.NOT_CONFIRMED


def note_confirmed(in_flight: deque[tuple[int, Confirmation]], journal: Journal) -> None:
    while in_flight and in_flight[0][1].done:
        number, confirmation = in_flight.popleft()
        if confirmation.error is None:
            journal.note("confirmed", number)
            if number % 1000 == 0:
                console.say(f" [x] Order {number} is confirmed")


def send(numbers: list[int], journal: Journal) -> None:
    in_flight: deque[tuple[int, Confirmation]] = deque()
    try:
        with Publisher("robust_clients/send_orders.py", Settings.load(), declare=topology.declare_orders) as publisher:
            console.say(f" [*] Sender {os.getpid()} sends orders {ranges(numbers)}. To exit press CTRL+C")
            for number in numbers:
                # Before it is sent: if this program is killed now, the journal says that RabbitMQ may have the order.
                journal.note("sent", number)
                # Its id is always the same, so that a consumer can tell when it comes twice.
                properties = messages.properties(message_id=f"order-{number}")
                try:
                    confirmation = publisher.publish("", topology.ORDERS, messages.encode_text(str(number)), properties)
                except NotConfirmed:
                    break  # It could not connect again; the end of `with` says why.
                in_flight.append((number, confirmation))
                note_confirmed(in_flight, journal)
    finally:
        note_confirmed(in_flight, journal)


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("journal", type=Path, metavar="JOURNAL", help="the file to keep; made if it is not there")
    parser.add_argument("--count", type=console.whole(1, 1_000_000), default=10_000, metavar="N", help="orders in all")
    arguments = parser.parse_args()
    with open_journal(arguments.journal) as journal:
        confirmed = journal.orders("confirmed")
        numbers = [number for number in range(1, arguments.count + 1) if number not in confirmed]
        try:
            send(numbers, journal)
        except DeliveryError as failure:
            doubt = ranges(journal.orders("sent") - journal.orders("confirmed"))
            raise OrdersLeft(f"sent and not confirmed: {doubt} ({failure.failures[0]}); start this again") from None
    console.say(f" [x] All {arguments.count:,} orders are confirmed")


if __name__ == "__main__":
    console.run(main)
