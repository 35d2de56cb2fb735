"""Tell those who want logs with such labels. Its pair is receive_logs_headers.py; start at least one of those first.

python routing/emit_log_headers.py --label shop=north --label severity=error the till is stuck
"""

import labels
import topology
from pika.exceptions import UnroutableError

from common import console, messages
from common.config import Settings
from common.connection import connect
from common.errors import ExitCode, Failure


class NobodyWantsIt(Failure):
    exit_code = ExitCode.UNROUTABLE


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument(
        "--label", type=labels.label, action="append", default=[], metavar="NAME=VALUE", help="as many as you like"
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="the message; - reads standard input")
    arguments = parser.parse_args()
    text = console.body_text(arguments.words, default="Hello World!")

    with connect("routing/emit_log_headers.py", Settings.load()) as connection:
        channel = connection.channel()
        exchange = topology.declare_labelled(channel)
        channel.confirm_delivery()
        try:
            channel.basic_publish(
                exchange,
                # A headers exchange does not look at it.
                routing_key="",
                body=messages.encode_text(text),
                properties=messages.properties("text/plain", headers=dict(arguments.label)),
                mandatory=True,
            )
        except UnroutableError:
            raise NobodyWantsIt("RabbitMQ returned the message: nobody wants one with these labels") from None
    console.say(f" [x] Sent {text!r}")


if __name__ == "__main__":
    console.run(main)
