"""Order a dish with AMQP: what is published here, cook.py receives with STOMP.

python protocols/stomp/order_amqp.py Pizza
python protocols/stomp/order_amqp.py --table 7 Pizza
"""

import topology

from common import console, messages
from common.config import Settings
from robust_pika import Publisher


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="the dish, Pizza by default; - reads standard input")
    parser.add_argument("--table", type=console.whole(1, 99), default=1, metavar="T", help="for whom, 1 by default")
    arguments = parser.parse_args()
    dish = console.body_text(arguments.words, default="Pizza")
    with Publisher("stomp/order_amqp.py", Settings.load(), declare=topology.declare) as publisher:
        # This header, and every other one, is a header of the STOMP message.
        properties = messages.properties("text/plain", headers={"table": str(arguments.table)})
        publisher.publish("", topology.QUEUE, messages.encode_text(dish), properties)
        publisher.flush()
    console.say(f" [x] Sent {dish!r}")


if __name__ == "__main__":
    console.run(main)
