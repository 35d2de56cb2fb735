"""Send orders to be booked. Its pair is book_orders.py (or book_orders_naive.py); either may start first.

python reliability/idempotent_consumer/send_orders.py                     order-1, of 10 euros
python reliability/idempotent_consumer/send_orders.py --count 3           order-1 to order-3; again: the same three
python reliability/idempotent_consumer/send_orders.py --customer bob --first 4
python reliability/idempotent_consumer/send_orders.py --no-id             as a program would that knows no better
"""

import topology

from common import console, messages
from common.config import Settings
from robust_pika import Publisher


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--count", type=console.whole(1, 100_000), default=1, metavar="N", help="how many orders")
    parser.add_argument("--first", type=console.whole(1, 1_000_000_000), default=1, metavar="N", help="its number")
    parser.add_argument("--customer", default="ada", metavar="NAME", help="whose orders they are, ada by default")
    parser.add_argument("--no-id", action="store_true", help="leave out the message's id")
    arguments = parser.parse_args()
    numbers = range(arguments.first, arguments.first + arguments.count)
    body = messages.encode_json({"customer": arguments.customer, "amount": 10})

    settings = Settings.load()
    with Publisher("idempotent_consumer/send_orders.py", settings, declare=topology.declare) as publisher:
        for number in numbers:
            # The id comes from the order, so it is the same however often the order is sent.
            name = None if arguments.no_id else f"order-{number}"
            properties = messages.properties("application/json", message_id=name)
            publisher.publish("", topology.QUEUE, body, properties)
        publisher.flush()
    last = f" to order-{numbers[-1]}" if len(numbers) > 1 else ""
    what = "an order" if arguments.no_id else f"order-{numbers[0]}{last}"
    console.say(f" [x] Sent {what} of {arguments.customer}{' without an id' if arguments.no_id else ''}")


if __name__ == "__main__":
    console.run(main)
