"""Open a ticket for the help desk. Its pair is answer_tickets.py; either may start first.

python reliability/priorities/open_ticket.py the printer jams
python reliability/priorities/open_ticket.py --priority 9 the server room is on fire
python reliability/priorities/open_ticket.py --queue quorum --count 10 the printer jams
"""

import levels
import topology

from common import console, messages
from common.config import Settings
from robust_pika import Publisher


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="the ticket; - reads standard input")
    parser.add_argument(
        "--priority", type=console.whole(0, 31), default=levels.NORMAL, metavar="N", help="0 to 31, 4 by default"
    )
    parser.add_argument("--queue", choices=topology.QUEUES, default="classic", help="classic by default")
    parser.add_argument("--count", type=console.whole(1, 100_000), default=1, metavar="N", help="open N, numbered")
    arguments = parser.parse_args()
    text = console.body_text(arguments.words, default="the printer jams")
    total = arguments.count

    with Publisher("priorities/open_ticket.py", Settings.load(), declare=topology.declare) as publisher:
        for number in range(1, total + 1):
            body = messages.encode_text(text if total == 1 else f"{number}: {text}")
            # Written down even if it is the normal one: the kinds of queues differ in what they take for that.
            properties = messages.properties("text/plain", priority=arguments.priority)
            publisher.publish("", topology.QUEUES[arguments.queue], body, properties)
        publisher.flush()
    times = "" if total == 1 else f", {total} times"
    console.say(f" [x] Opened {text!r} with priority {arguments.priority}{times}")


if __name__ == "__main__":
    console.run(main)
