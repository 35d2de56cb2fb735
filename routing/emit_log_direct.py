"""Publish a log with its severity as the routing key. Its pair is receive_logs_direct.py; start one of those first.

python routing/emit_log_direct.py error the till is stuck
python routing/emit_log_direct.py --mandatory error the till is stuck    fails if no queue gets the log
tail -1 /var/log/syslog | python routing/emit_log_direct.py info -
"""

import pika
import topology
from pika.exceptions import UnroutableError

from common import console, messages
from common.config import Settings
from common.connection import connect
from common.errors import ExitCode, Failure


class Unroutable(Failure):
    exit_code = ExitCode.UNROUTABLE


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--mandatory", action="store_true", help="let RabbitMQ return a log that no queue gets")
    parser.add_argument("severity", choices=topology.SEVERITIES, nargs="?", default="info")
    parser.add_argument("words", nargs="*", metavar="WORD", help="the log; - reads standard input")
    arguments = parser.parse_args()
    text = console.body_text(arguments.words, default="Hello World!")

    with connect("routing/emit_log_direct.py", Settings.load()) as connection:
        channel = connection.channel()
        exchange = topology.declare(channel)
        channel.confirm_delivery()
        try:
            channel.basic_publish(
                exchange=exchange,
                routing_key=arguments.severity,
                body=messages.encode_text(text),
                properties=pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent),
                mandatory=arguments.mandatory,
            )
        except UnroutableError:
            raise Unroutable(f"RabbitMQ returned the log: no queue is bound for {arguments.severity!r}") from None
    console.say(f" [x] Sent {arguments.severity}: {text}")


if __name__ == "__main__":
    console.run(main)
