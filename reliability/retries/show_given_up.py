"""List the payments that were given up, with their history. They stay where they are.

python reliability/retries/show_given_up.py
python reliability/retries/show_given_up.py --limit 1000
"""

import history
import topology
from pika import BasicProperties

from common import console
from common.config import Settings
from common.connection import connect


def story(properties: BasicProperties) -> str:
    headers = properties.headers or {}
    if history.GIVEN_UP_AFTER not in headers:
        # It has killed its worker too often, or was no text.
        return f"RabbitMQ put it aside: {headers.get('x-first-death-reason', 'for an unknown reason')}"
    errors = history.errors(properties)
    return f"given up after attempt {history.whole(properties, history.GIVEN_UP_AFTER, 0)}: {', '.join(errors[-1:])}"


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--limit", type=console.whole(1, 100_000), default=100, metavar="N", help="100 by default")
    limit = parser.parse_args().limit

    with connect("retries/show_given_up.py", Settings.load()) as connection:
        channel = connection.channel()
        topology.declare(channel)
        count = 0
        while count < limit:
            method, properties, body = channel.basic_get(topology.DEAD_LETTERS)
            if method is None or properties is None or body is None:
                break
            count += 1
            console.say(f" [x] {body.decode(errors='backslashreplace')!r:.80}: {story(properties)}")
        # None is acknowledged: all go back to their places.
        channel.basic_nack(0, multiple=True, requeue=True)
    console.say(f" [x] {count} dead letters")


if __name__ == "__main__":
    console.run(main)
