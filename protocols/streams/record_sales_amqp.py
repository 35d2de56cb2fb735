"""Record sales in the same stream with AMQP 0-9-1, as into any queue: no publishing ids, so each call adds them again.

python protocols/streams/record_sales_amqp.py west 2

Its pair is read_sales_amqp.py, or read_sales.py: how a message got into a stream makes no difference to its readers.
"""

import sale
import topology

from common import console, messages
from common.config import Settings
from robust_pika import Publisher


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("till", type=sale.till_name, metavar="TILL", help="its name")
    parser.add_argument("count", type=console.whole(1, 1_000_000), nargs="?", default=1, metavar="COUNT")
    arguments = parser.parse_args()
    till = arguments.till
    with Publisher("streams/record_sales_amqp.py", Settings.load(), declare=topology.declare) as publisher:
        for number in range(1, arguments.count + 1):
            properties = messages.properties(message_id=f"{till}-{number}", headers={"till": till, "number": number})
            publisher.publish("", topology.SALES, messages.encode_text(sale.text_of(till, number)), properties)
        publisher.flush()
    console.say(f" [x] Sent sales 1 to {arguments.count} of till {till!r}")


if __name__ == "__main__":
    console.run(main)
