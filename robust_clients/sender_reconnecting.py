"""Send numbered orders; those that a broken connection leaves unconfirmed are sent again. Its pair is count_orders.py.

python robust_clients/sender_reconnecting.py
python robust_clients/sender_reconnecting.py --count 100
"""

import random
import time
from collections import deque

import pika
import topology
from pika.exceptions import AMQPError

from common import console, messages
from common.config import Settings
from common.connection import Channel, connect
from robust_pika import ConnectionFailure, explaining

PAUSES: tuple[float, ...] = (0.5, 1, 2, 4, 4, 4, 4, 4, 4, 4)
"""Seconds, at most, before each further attempt."""


def send(channel: Channel, unconfirmed: deque[int]) -> None:
    while unconfirmed:
        order = unconfirmed[0]
        # The order has the same id each time it is sent, so that a consumer can tell that it comes again.
        properties = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent, message_id=f"order-{order}")
        channel.basic_publish("", topology.ORDERS, messages.encode_text(str(order)), properties, mandatory=True)
        # Only now: RabbitMQ has confirmed it.
        unconfirmed.popleft()
        if order % 10 == 0:
            time.sleep(0.01)  # Without pauses, all would be sent before you could cut the connection.


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--count", type=console.whole(1, 1_000_000), default=5000, metavar="N", help="orders")
    total = parser.parse_args().count
    settings = Settings.load()
    pauses = iter(PAUSES[:0])  # Until one order is confirmed, the first failure is the last.
    unconfirmed = deque(range(1, total + 1))
    while unconfirmed:
        before = len(unconfirmed)
        try:
            with connect("robust_clients/sender_reconnecting.py", settings) as connection:
                channel = connection.channel()
                topology.declare_orders(channel)
                channel.confirm_delivery()
                console.say(f" [*] Orders to send: {unconfirmed[0]} to {total}")
                send(channel, unconfirmed)
        except (AMQPError, ConnectionFailure) as error:
            if len(unconfirmed) < before:
                pauses = iter(PAUSES)
            if (pause := next(pauses, None)) is None:
                raise
            console.warn(f"{explaining.explain(error, settings)}; connecting again")
            time.sleep(random.uniform(0, pause))
    console.say(f" [x] {total} orders are confirmed")


if __name__ == "__main__":
    console.run(main)
