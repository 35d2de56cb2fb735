"""Send numbered orders with robust_pika, many of them in flight. Its pair is count_orders.py.

python robust_clients/sender.py
python robust_clients/sender.py --seconds 3     for three seconds; else for eight
"""

import time

import topology

from common import console, messages
from common.config import Settings
from robust_pika import Publisher


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--seconds", type=console.seconds, default=8.0, metavar="S", help="how long to send")
    end = time.monotonic() + parser.parse_args().seconds
    order = 0
    with Publisher("robust_clients/sender.py", Settings.load(), declare=topology.declare_orders) as publisher:
        console.say(" [*] Sending orders from 1 on")
        while time.monotonic() < end:
            order += 1
            properties = messages.properties(message_id=f"order-{order}")
            # Does not wait for the confirm. The end of `with` does, and raises if one is missing.
            publisher.publish("", topology.ORDERS, messages.encode_text(str(order)), properties)
            if order % 20 == 0:
                time.sleep(0.01)  # Without pauses there would be too many orders to count.
    console.say(f" [x] {order} orders are confirmed")


if __name__ == "__main__":
    console.run(main)
