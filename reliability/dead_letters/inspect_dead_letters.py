"""List what is among the dead letters: why, how often, since when, and what it is. They stay where they are.

python reliability/dead_letters/inspect_dead_letters.py
python reliability/dead_letters/inspect_dead_letters.py --limit 1000
python reliability/dead_letters/inspect_dead_letters.py --queue retries.payments.dead_letters

On RabbitMQ 3, those that are shown go to the end of the queue, if it has more than the limit.
"""

import deaths
import topology
from pika import BasicProperties

from common import console
from common.config import Settings
from common.connection import connect

HEAD = ("reason", "count", "first death (UTC)", "in", "id", "body")
BODY_LENGTH = 60


def row(properties: BasicProperties, body: bytes) -> tuple[str, ...]:
    history = deaths.deaths(properties)
    reason, queue = (history[0].reason, history[0].queue) if history else ("unknown", "unknown")
    count = sum(death.count for death in history)
    first = min((death.time for death in history if death.time), default=None)
    when = f"{first:%Y-%m-%d %H:%M:%S}" if first else "unknown"
    try:
        text = repr(body.decode("utf-8"))
    except UnicodeDecodeError:
        text = repr(body)
    return reason, str(count), when, queue, (properties.message_id or "(no id)")[:8], f"{text:.{BODY_LENGTH}}"


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--queue", help="another queue of dead letters than this example's")
    parser.add_argument("--limit", type=console.whole(1, 100_000), default=100, metavar="N", help="100 by default")
    arguments = parser.parse_args()

    with connect("dead_letters/inspect_dead_letters.py", Settings.load()) as connection:
        channel = connection.channel()
        queue = arguments.queue or topology.declare_dead_letters(channel)
        total = channel.queue_declare(queue, passive=True).method.message_count
        rows: list[tuple[str, ...]] = []
        while len(rows) < arguments.limit:
            method, properties, body = channel.basic_get(queue)
            if method is None or properties is None or body is None:
                break
            rows.append(row(properties, body))
        # Back to their places, all at once. Until here RabbitMQ keeps them for us, and if we die they go back too.
        channel.basic_nack(0, multiple=True, requeue=True)

    rows.sort(key=lambda row: row[HEAD.index("in")])  # and in the order of the queue where they died in the same one
    widths = [max(map(len, column)) for column in zip(HEAD, *rows, strict=True)]
    for line in [HEAD, *rows] if rows else []:
        console.say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    more = f", the first {len(rows)} are shown" if total > len(rows) else ""
    console.say(f" [x] {max(total, len(rows))} dead letters in {queue}{more}")


if __name__ == "__main__":
    console.run(main)
