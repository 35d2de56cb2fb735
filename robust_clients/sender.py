"""Send numbered orders with robust_pika, many of them in flight. Its pair is count_orders.py.

python robust_clients/sender.py
python robust_clients/sender.py --count 100
"""

import time

import topology

from common import console, messages
from common.config import Settings
from robust_pika import Publisher


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--count", type=console.whole(1, 1_000_000), default=40_000, metavar="N", help="orders")
    total = parser.parse_args().count
    with Publisher("robust_clients/sender.py", Settings.load(), declare=topology.declare_orders) as publisher:
        console.say(f" [*] Orders to send: 1 to {total}")
        for order in range(1, total + 1):
            properties = messages.properties(message_id=f"order-{order}")
            # Does not wait for the confirm. The end of `with` does, and raises if one is missing.
            publisher.publish("", topology.ORDERS, messages.encode_text(str(order)), properties)
            if order % 50 == 0:
                time.sleep(0.01)  # Without pauses, all would be sent before you could cut the connection.
    console.say(f" [x] {total} orders are confirmed")


if __name__ == "__main__":
    console.run(main)
