"""Book orders, and book those twice that come twice: what book_orders.py is there to avoid.

python reliability/idempotent_consumer/book_orders_naive.py
python reliability/idempotent_consumer/book_orders_naive.py --pause 60    time to kill it before it acknowledges
"""

import os
import threading
import time

import orders
import store
import topology

from common import console
from common.config import Settings
from extras import database
from robust_pika import Message, Outcome, consume


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--pause", type=console.seconds, default=0.0, metavar="S", help="wait before acknowledging")
    parser.add_argument(
        "--patience", type=console.seconds, default=30.0, metavar="S", help="wait for a database that is gone"
    )
    arguments = parser.parse_args()
    settings = Settings.load()
    engine = database.open_engine(settings, store.TABLES)
    stop = threading.Event()

    def book(message: Message) -> Outcome:
        order = orders.read(message)

        def add() -> None:
            with database.transaction(engine) as connection:
                store.book(connection, order.customer, order.amount)

        database.patiently(add, patience=arguments.patience, stop=stop)
        console.say(f" [x] Booked {order.id}: {order.amount} euros for {order.customer}")
        # From here until RabbitMQ has the acknowledgement, a death means that the order comes again.
        time.sleep(arguments.pause)
        return Outcome.ACK

    consume(
        "idempotent_consumer/book_orders_naive.py",
        settings,
        topology.declare,
        book,
        on_ready=lambda _queue: console.say(f" [*] Waiting for orders (process {os.getpid()}). To exit press CTRL+C"),
        stop=stop,
    )


if __name__ == "__main__":
    console.run(main)
