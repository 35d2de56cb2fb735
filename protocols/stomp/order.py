"""Order dishes, with STOMP; returns when RabbitMQ has sent a receipt for each. Its pair is cook.py or cook_amqp.py.

python protocols/stomp/order.py Pizza
python protocols/stomp/order.py --table 7 --together Soup Pizza Cake    three orders, all of them or none
python protocols/stomp/order.py --count 1000 Pizza                      a thousand orders, numbered
"""

import uuid

import client
import topology

from common import console, messages
from common.config import Settings
from common.connection import connect


def send(link: client.Link, destination: str, dish: str, table: int, transaction: str | None = None) -> None:
    """Send one order and ask for a receipt; within a transaction, too, it comes when the message is safe."""
    headers = {
        # Without it, the message would be transient.
        "persistent": "true",
        # STOMP keeps message-id for itself.
        "amqp-message-id": str(uuid.uuid4()),
        "table": str(table),
        "receipt": link.receipt(),
    }
    link.stomp.send(destination, messages.encode_text(dish), "text/plain", transaction=transaction, headers=headers)


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("dishes", nargs="+", metavar="DISH", help="what to order")
    parser.add_argument("--table", type=console.whole(1, 99), default=1, metavar="T", help="for whom, 1 by default")
    parser.add_argument("--together", action="store_true", help="all of them or none, in a transaction")
    parser.add_argument("--count", type=console.whole(1, 1_000_000), metavar="N", help="order it N times, numbered")
    parser.add_argument("--destination", default=topology.ORDERS, metavar="WHERE", help="where to send it")
    arguments = parser.parse_args()
    dishes: list[str] = arguments.dishes
    if arguments.count is not None:
        dishes = [f"{number}: {' '.join(dishes)}" for number in range(1, arguments.count + 1)]
    settings, where, table = Settings.load(), arguments.destination, arguments.table
    with connect("stomp/order.py", settings) as connection:
        topology.declare(connection.channel())

    with client.connected(settings) as link:
        if arguments.together:
            transaction = link.stomp.begin()
            for dish in dishes:
                # If this one raises, the connection ends without a COMMIT, and nothing of it has happened.
                send(link, where, dish, table, transaction)
            # A receipt for the COMMIT would come before the messages are safe; each of them has one.
            link.stomp.commit(transaction)
        else:
            for dish in dishes:
                send(link, where, dish, table)
                link.wait_for_receipts(left=client.IN_FLIGHT)
        link.wait_for_receipts()
    what = repr(dishes[0]) if len(dishes) == 1 else f"{len(dishes)} orders"
    console.say(f" [x] Sent {what}{' together' if arguments.together else ''}")


if __name__ == "__main__":
    console.run(main)
