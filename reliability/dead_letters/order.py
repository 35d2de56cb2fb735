"""Order a dish. Its pair is cook.py; start either one first.

python reliability/dead_letters/order.py pizza
python reliability/dead_letters/order.py --plain pizza       to the queue without dead letters
python reliability/dead_letters/order.py --within 1 pizza    useless if no cook takes it within a second
"""

import topology

from common import console, messages
from common.config import Settings
from robust_pika import Publisher


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("dish", nargs="*", metavar="WORD", help="what to cook; - reads standard input")
    parser.add_argument("--plain", action="store_true", help="order from the queue without dead letters")
    parser.add_argument("--within", type=console.seconds, metavar="S", help="seconds that it may wait in the queue")
    arguments = parser.parse_args()
    dish = console.body_text(arguments.dish, default="pizza")
    declare, queue = (
        (topology.declare_plain, topology.PLAIN) if arguments.plain else (topology.declare, topology.ORDERS)
    )
    # The property is in milliseconds, and it is text. Without it, an order waits as long as it takes.
    expiration = None if arguments.within is None else str(round(arguments.within * 1000))
    properties = messages.properties("text/plain", expiration=expiration)

    with Publisher("dead_letters/order.py", Settings.load(), declare=declare) as publisher:
        publisher.publish("", queue, messages.encode_text(dish), properties)
        publisher.flush()
    console.say(f" [x] Ordered {dish!r}")


if __name__ == "__main__":
    console.run(main)
