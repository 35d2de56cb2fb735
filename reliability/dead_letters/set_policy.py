"""Say how many temperatures are kept, and where the others go: by a policy, while the queue is in use.

python reliability/dead_letters/set_policy.py 3         only the three newest
python reliability/dead_letters/set_policy.py 100
"""

import re

import topology

from common import console
from common.config import Settings
from common.connection import connect
from extras.management import Management

POLICY = topology.TEMPERATURES


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("keep", type=console.whole(1, 1_000_000), help="how many temperatures the queue may hold")
    keep = parser.parse_args().keep
    settings = Settings.load()

    with connect("dead_letters/set_policy.py", settings) as connection:
        queue = topology.declare_temperatures(connection.channel())
    with Management(settings) as management:
        # A policy is for every queue whose name fits the pattern, those included that do not exist yet.
        management.set_policy(
            POLICY,
            f"^{re.escape(queue)}$",
            # The oldest go first: that is the overflow mode drop-head, the default.
            {"max-length": keep, "dead-letter-exchange": topology.EXCHANGE},
            apply_to="queues",
        )
    console.say(f" [x] {queue} keeps the newest {keep}; the others go to {topology.EXCHANGE}")


if __name__ == "__main__":
    console.run(main)
