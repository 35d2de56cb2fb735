"""Tell everybody who listens. Its pair is receive_logs.py; start at least one of those first.

python publish_subscribe/emit_log.py info: the shop is open
tail -1 /var/log/syslog | python publish_subscribe/emit_log.py -
"""

import topology
from pika.exceptions import UnroutableError

from common import console, messages
from common.config import Settings
from common.connection import connect
from common.errors import ExitCode, Failure


class NobodyListens(Failure):
    exit_code = ExitCode.UNROUTABLE


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="the message; - reads standard input")
    text = console.body_text(parser.parse_args().words, default="info: Hello World!")

    with connect("publish_subscribe/emit_log.py", Settings.load()) as connection:
        channel = connection.channel()
        exchange = topology.declare(channel)
        channel.confirm_delivery()
        try:
            channel.basic_publish(
                exchange,
                routing_key="",
                body=messages.encode_text(text),
                properties=messages.properties("text/plain"),
                # Without it, RabbitMQ would drop a message for nobody and confirm it all the same.
                mandatory=True,
            )
        except UnroutableError:
            raise NobodyListens(
                "nobody listens, so RabbitMQ dropped the message; start one with: "
                "python publish_subscribe/receive_logs.py"
            ) from None
    console.say(f" [x] Sent {text!r}")


if __name__ == "__main__":
    console.run(main)
