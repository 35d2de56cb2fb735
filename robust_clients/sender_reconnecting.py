"""Send numbered orders; one that a broken connection leaves unconfirmed is sent again. Its pair is count_orders.py.

python robust_clients/sender_reconnecting.py
python robust_clients/sender_reconnecting.py --seconds 3     for three seconds; else for eight
"""

import random
import time

import pika
import topology
from pika.exceptions import AMQPError

from common import console, messages
from common.config import Settings
from common.connection import Channel, connect
from robust_pika import ConnectionFailure, explaining

PAUSES: tuple[float, ...] = (0.5, 1, 2, 4, 4, 4, 4, 4, 4, 4)
"""Seconds, at most, before each further attempt."""


def publish(channel: Channel, order: int) -> None:
    # The order has the same id each time it is sent, so that a consumer can tell that it comes again.
    properties = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent, message_id=f"order-{order}")
    channel.basic_publish("", topology.ORDERS, messages.encode_text(str(order)), properties, mandatory=True)


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--seconds", type=console.seconds, default=8.0, metavar="S", help="how long to send")
    end = time.monotonic() + parser.parse_args().seconds
    settings = Settings.load()
    pauses = iter(PAUSES[:0])  # Until one order is confirmed, the first failure is the last.
    confirmed, in_doubt = 0, False
    while in_doubt or time.monotonic() < end:
        before = confirmed
        try:
            with connect("robust_clients/sender_reconnecting.py", settings) as connection:
                channel = connection.channel()
                topology.declare_orders(channel)
                channel.confirm_delivery()
                console.say(f" [*] Sending orders from {confirmed + 1} on")
                while in_doubt or time.monotonic() < end:
                    in_doubt = True
                    publish(channel, confirmed + 1)
                    # Only now: RabbitMQ has confirmed it.
                    confirmed, in_doubt = confirmed + 1, False
        except (AMQPError, ConnectionFailure) as error:
            if confirmed > before:
                pauses = iter(PAUSES)
            if (pause := next(pauses, None)) is None:
                raise
            console.warn(f"{explaining.explain(error, settings)}; connecting again")
            time.sleep(random.uniform(0, pause))
    console.say(f" [x] {confirmed} orders are confirmed")


if __name__ == "__main__":
    console.run(main)
