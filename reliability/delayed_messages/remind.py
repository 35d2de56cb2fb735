"""Send a reminder that comes later. Its pair is receive_reminders.py; either may start first.

python reliability/delayed_messages/remind.py tea is ready                      in five seconds
python reliability/delayed_messages/remind.py --in 90 tea is ready
python reliability/delayed_messages/remind.py --at 18:30 close the window       today, or else tomorrow
python reliability/delayed_messages/remind.py --at 2030-12-24T18:30 dinner
"""

from datetime import datetime

import delays
import topology

from common import console, messages
from common.config import Settings
from robust_pika import Publisher


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="the reminder; - reads standard input")
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--in", dest="delay", type=delays.seconds, default="5", metavar="S", help="seconds from now")
    when.add_argument("--at", dest="due", type=delays.moment, metavar="TIME", help="such as 18:30, 2030-12-24T18:30")
    arguments = parser.parse_args()
    body = messages.encode_text(text := console.body_text(arguments.words, default="tea is ready"))

    with Publisher("delayed_messages/remind.py", Settings.load(), declare=topology.declare_ladder) as publisher:
        # Only now: to connect may have taken a while.
        now = delays.now()
        due = arguments.due or now + arguments.delay
        route = delays.route(max(0, due - now), topology.REMINDERS)
        properties = messages.properties("text/plain", headers={delays.DUE: due})
        publisher.publish(route.exchange, route.key, body, properties)
        publisher.flush()
    waits = " + ".join(f"{delay / 1000:g}" for delay in route.delays) or "0"
    console.say(f" [x] {text!r} is due at {datetime.fromtimestamp(due / 1000):%H:%M:%S}, and waits for {waits} s")


if __name__ == "__main__":
    console.run(main)
