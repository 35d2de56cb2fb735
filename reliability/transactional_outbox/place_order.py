"""Place orders, each with its message in one transaction. RabbitMQ need not even run; relay.py sends the messages.

python reliability/transactional_outbox/place_order.py
python reliability/transactional_outbox/place_order.py --count 3 --customer bob
"""

import store

from common import console
from common.config import Settings
from extras import database


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--customer", default="ada", metavar="NAME", help="whose orders they are, ada by default")
    parser.add_argument("--count", type=console.whole(1, 1_000_000), default=1, metavar="N", help="how many orders")
    arguments = parser.parse_args()
    body = store.body(arguments.customer, 10)
    engine = database.open_engine(Settings.load(), store.TABLES)

    for _ in range(arguments.count):
        with database.transaction(engine) as connection:
            message_id = store.add_order(connection, arguments.customer, 10)
            # Not published, only written down: both writes are the database's, so it does both or neither.
            store.add_message(connection, message_id, body)
        console.say(f" [x] Placed {message_id}: 10 euros for {arguments.customer}")


if __name__ == "__main__":
    console.run(main)
