"""Say whether the movements of a journal were booked in order, account by account. The journal is book.py's.

python reliability/ordered_processing/check_order.py bank.journal
"""

from pathlib import Path

import journal

from common import console
from common.errors import ExitCode, Failure

SHOWN = 3


class OutOfOrder(Failure):
    exit_code = ExitCode.DATA


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("journal", type=Path, metavar="JOURNAL", help="the file that book.py wrote")
    path = parser.parse_args().journal
    accounts = journal.read(path)
    early = [(name, *pair) for name, account in accounts.items() for pair in account.early]
    missing = sum(len(account.missing) for account in accounts.values())
    for name, number, due in early[:SHOWN]:
        console.say(f" [ ] {name}: {number} was booked before {due}")
    booked = sum(len(account.booked) for account in accounts.values())
    again = sum(account.again for account in accounts.values())
    console.say(
        f" [x] {booked} movements, accounts: {len(accounts)}; {missing} missing, {again} booked again, "
        f"{len(early)} out of order"
    )
    if early or missing:
        raise OutOfOrder(f"{path} is not in order")


if __name__ == "__main__":
    console.run(main)
