"""Send a reminder that waits in one queue together with all others. Its pair is receive_reminders.py.

python reliability/delayed_messages/remind_naive.py --in 5 tea is ready

It is how NOT to do it: RabbitMQ only looks at the head of a queue. See remind.py.
"""

import delays
import topology

from common import console, messages
from common.config import Settings
from robust_pika import Publisher


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="the reminder; - reads standard input")
    parser.add_argument(
        "--in", dest="delay", type=delays.seconds_of_one_queue, default="5", metavar="S", help="seconds"
    )
    arguments = parser.parse_args()
    body = messages.encode_text(text := console.body_text(arguments.words, default="tea is ready"))

    with Publisher("delayed_messages/remind_naive.py", Settings.load(), declare=topology.declare_naive) as publisher:
        headers = {delays.DUE: delays.now() + arguments.delay}
        # A time to live for this message alone, in milliseconds, as text.
        properties = messages.properties("text/plain", headers=headers, expiration=str(arguments.delay))
        publisher.publish("", topology.NAIVE, body, properties)
        publisher.flush()
    console.say(f" [x] {text!r} is due in {arguments.delay / 1000:g} s")


if __name__ == "__main__":
    console.run(main)
