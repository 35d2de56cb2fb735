"""Tell those who want logs of this severity. Its pair is receive_logs_direct.py; start at least one of those first.

python routing/emit_log_direct.py error the till is stuck
tail -1 /var/log/syslog | python routing/emit_log_direct.py info -
"""

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
    parser.add_argument("severity", choices=topology.SEVERITIES, nargs="?", default="info")
    parser.add_argument("words", nargs="*", metavar="WORD", help="the message; - reads standard input")
    arguments = parser.parse_args()
    text = console.body_text(arguments.words, default="Hello World!")

    with connect("routing/emit_log_direct.py", Settings.load()) as connection:
        channel = connection.channel()
        exchange = topology.declare(channel)
        channel.confirm_delivery()
        try:
            channel.basic_publish(
                exchange,
                routing_key=arguments.severity,
                body=messages.encode_text(text),
                properties=messages.properties("text/plain"),
                # Confirms and this together make RabbitMQ give back what it has no queue for.
                mandatory=True,
            )
        except UnroutableError:
            raise NobodyWantsIt(
                f"RabbitMQ returned the message: nobody wants {arguments.severity!r}; start one with: "
                f"python routing/receive_logs_direct.py {arguments.severity}"
            ) from None
    console.say(f" [x] Sent {arguments.severity}: {text}")


if __name__ == "__main__":
    console.run(main)
