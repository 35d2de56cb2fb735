"""Book each order once, however often it comes. Its pair is send_orders.py; start as many as you like.

python reliability/idempotent_consumer/book_orders.py
python reliability/idempotent_consumer/book_orders.py --pause 60    time to kill it before it acknowledges
python reliability/idempotent_consumer/book_orders.py --exchange transactional_outbox.orders    what goes there as well
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
from robust_pika import DeclaringChannel, Message, Outcome, consume


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--pause", type=console.seconds, default=0.0, metavar="S", help="wait before acknowledging")
    parser.add_argument(
        "--patience", type=console.seconds, default=30.0, metavar="S", help="wait for a database that is gone"
    )
    parser.add_argument("--exchange", metavar="NAME", help="book the orders that this exchange, which exists, gets too")
    arguments = parser.parse_args()
    settings = Settings.load()
    engine = database.open_engine(settings, store.TABLES)
    stop = threading.Event()

    def declare(channel: DeclaringChannel) -> str:
        queue = topology.declare(channel)
        if arguments.exchange:
            channel.queue_bind(queue, arguments.exchange, routing_key="#")
        return queue

    def book(message: Message) -> Outcome:
        order = orders.read(message)

        def once() -> bool:
            with database.transaction(engine) as connection:
                new = store.is_new(connection, order.id)
                if new:
                    store.book(connection, order.customer, order.amount)
            # Both are committed together, or neither is: that is the whole trick.
            return new

        if database.patiently(once, patience=arguments.patience, stop=stop):
            console.say(f" [x] Booked {order.id}: {order.amount} euros for {order.customer}")
        else:
            console.say(f" [ ] {order.id} is booked already")
        time.sleep(arguments.pause)
        return Outcome.ACK

    consume(
        "idempotent_consumer/book_orders.py",
        settings,
        declare,
        book,
        on_ready=lambda _queue: console.say(f" [*] Waiting for orders (process {os.getpid()}). To exit press CTRL+C"),
        stop=stop,
    )


if __name__ == "__main__":
    console.run(main)
