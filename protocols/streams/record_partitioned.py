"""Record sales in a super stream: one log in several streams, the sales of one till always in the same one.

python protocols/streams/record_partitioned.py north 3

Its pair is read_partitioned.py. A super stream is an exchange with a stream behind each routing key, so that AMQP 0-9-1
is enough to write into one.
"""

import sale
import topology

from common import console, messages
from common.config import Settings
from common.connection import connect, require
from robust_pika import Publisher


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("till", type=sale.till_name, metavar="TILL", help="its name")
    parser.add_argument("count", type=console.whole(1, 1_000_000), nargs="?", default=1, metavar="COUNT")
    arguments = parser.parse_args()
    settings, till = Settings.load(), arguments.till
    with connect("streams/record_partitioned.py", settings) as connection:
        require(connection, (3, 11), "a super stream")
    key = topology.partition_of(till)
    with Publisher("streams/record_partitioned.py", settings, declare=topology.declare_partitions) as publisher:
        for number in range(1, arguments.count + 1):
            properties = messages.properties(message_id=f"{till}-{number}", headers={"till": till, "number": number})
            publisher.publish(topology.BY_TILL, key, messages.encode_text(sale.text_of(till, number)), properties)
        publisher.flush()
    console.say(f" [x] Sent sales 1 to {arguments.count} of till {till!r}, all to partition {key}")


if __name__ == "__main__":
    console.run(main)
