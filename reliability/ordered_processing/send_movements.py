"""Send movements of accounts, numbered for each account: 1, 2, 3, … Its pair is book.py; either may start first.

python reliability/ordered_processing/send_movements.py shared
python reliability/ordered_processing/send_movements.py single --count 10
python reliability/ordered_processing/send_movements.py partitions --accounts 100 --count 200
"""

import functools
from collections.abc import Callable

import topology

from common import console, messages
from common.config import Settings
from robust_pika import DeclaringChannel, Publisher

NAMES = ("ada", "bob", "zoe", "max")


def account(number: int) -> str:
    """The name of an account, counted from 0: ada, bob, zoe, max, account-5, …"""
    return NAMES[number] if number < len(NAMES) else f"account-{number + 1}"


def main() -> None:
    ways: dict[str, tuple[Callable[[DeclaringChannel], str], str, str | None]] = {
        "shared": (topology.declare_shared, "", topology.SHARED),
        "single": (topology.declare_single, "", topology.SINGLE),
        # The account is the routing key, so that all movements of an account take the same way.
        "partitions": (functools.partial(topology.declare_partition, number=1), topology.BY_ACCOUNT, None),
    }
    parser = console.parser(__doc__)
    parser.add_argument("way", choices=list(ways), help="a shared queue, a single active consumer, or partitions")
    parser.add_argument("--accounts", type=console.whole(1, 10_000), default=1, metavar="N", help="1 by default")
    parser.add_argument(
        "--count", type=console.whole(1, 100_000), default=6, metavar="N", help="for each: 6 by default"
    )
    arguments = parser.parse_args()
    declare, exchange, queue = ways[arguments.way]
    accounts = [account(number) for number in range(arguments.accounts)]

    # One producer, one connection, one channel: RabbitMQ keeps the order of what comes on a channel.
    with Publisher("ordered_processing/send_movements.py", Settings.load(), declare=declare) as publisher:
        for number in range(1, arguments.count + 1):
            for name in accounts:
                body = messages.encode_json({"account": name, "number": number})
                publisher.publish(exchange, queue or name, body, messages.properties("application/json"))
    console.say(
        f" [x] Sent {arguments.count} movements for each of {', '.join(accounts[:4])}{', …' * (len(accounts) > 4)}"
    )


if __name__ == "__main__":
    console.run(main)
