"""Show how many orders were placed, how many messages wait in the outbox, and for how long: the relay's lag.

python reliability/transactional_outbox/show_orders.py
python reliability/transactional_outbox/show_orders.py --new    forgets all orders first
"""

import store

from common import console
from common.config import Settings
from extras import database


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--new", action="store_true", help="forget all orders and messages first")
    arguments = parser.parse_args()

    engine = database.open_engine(Settings.load(), store.TABLES)
    with database.transaction(engine) as connection:
        if arguments.new:
            store.clear(connection)
        orders, waiting, lag = store.counts(connection)
    console.say(f" [x] Orders placed: {orders}")
    console.say(f" [x] Messages in the outbox: {waiting}" + (f", the oldest for {lag:.1f} s" if waiting else ""))


if __name__ == "__main__":
    console.run(main)
