"""Cook what is ordered, with STOMP, until Ctrl-C, and announce what is ready. Its pairs are order.py and the screen.

python protocols/stomp/cook.py
python protocols/stomp/cook.py --seconds 0     a very fast cook

What cannot be cooked goes to the dead letters.
"""

import os
import time

import client
import topology
from pika import BasicProperties

from common import console
from common.config import Settings
from common.connection import connect
from common.errors import BadMessage
from extras.optional import packages_for
from robust_pika import Message, keep_connected

with packages_for(__file__):
    from stomp.utils import Frame


def cook(link: client.Link, order: Frame, seconds: float) -> None:
    """Do one order, then tell that it is ready and acknowledge it, both or neither."""
    headers = order.headers
    table = headers.get("table", "unknown")
    properties = BasicProperties(content_type=headers.get("content-type"))
    try:
        dish = Message(client.body_of(order), properties, "", "").text()
    except BadMessage as failure:
        console.warn(f"rejected: {failure}")
        # requeue is RabbitMQ's own: without it the order would come back at once.
        link.stomp.nack(headers["ack"], requeue="false")
        return
    console.say(f" [x] Cooking {dish!r} for table {table}")
    time.sleep(seconds)
    transaction = link.stomp.begin()
    ready = f"{dish} for table {table} is ready"
    link.stomp.send(topology.READY, ready.encode(), "text/plain", transaction=transaction)
    link.stomp.ack(headers["ack"], transaction=transaction)
    link.stomp.commit(transaction)


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument(
        "--seconds", type=console.seconds, default=0.5, metavar="S", help="for each dish, 0.5 by default"
    )
    parser.add_argument("--destination", default=topology.ORDERS, metavar="WHERE", help="where the orders are")
    arguments = parser.parse_args()

    def session(settings: Settings) -> None:
        with connect("stomp/cook.py", settings) as connection:
            topology.declare(connection.channel())
        with client.connected(settings) as link:
            link.stomp.subscribe(
                arguments.destination,
                id="orders",
                # Each order is acknowledged when it is done. By default RabbitMQ deletes it when it is sent.
                ack="client-individual",
                headers={"prefetch-count": "10", "receipt": link.receipt()},
            )
            link.wait_for_receipts()
            console.say(f" [*] Waiting for orders (process {os.getpid()}). To exit press CTRL+C")
            # The dish in hand is finished before the program ends.
            with client.until_stopped() as stop:
                for order in link.messages(stop):
                    cook(link, order, arguments.seconds)

    keep_connected(Settings.load(), session)


if __name__ == "__main__":
    console.run(main)
