"""Show what each customer owes, according to the database.

python reliability/idempotent_consumer/show_accounts.py
python reliability/idempotent_consumer/show_accounts.py --new    empties the accounts first
"""

import store

from common import console
from common.config import Settings
from extras import database


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--new", action="store_true", help="forget all accounts and processed messages first")
    arguments = parser.parse_args()

    engine = database.open_engine(Settings.load(), store.TABLES)
    with database.transaction(engine) as connection:
        if arguments.new:
            store.clear(connection)
        totals = store.totals(connection)
    for customer, total in totals.items():
        console.say(f" [x] {customer} owes {total} euros")
    if not totals:
        console.say(" [x] Nobody owes anything")


if __name__ == "__main__":
    console.run(main)
