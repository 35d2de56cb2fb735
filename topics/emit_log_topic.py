"""Publish a log about several things at once. Its pair is receive_logs_topic.py; start at least one of those first.

python topics/emit_log_topic.py north.till.error out of paper
tail -1 /var/log/syslog | python topics/emit_log_topic.py north.server.info -
"""

import keys
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
    parser.add_argument("key", type=keys.key, nargs="?", default="north.till.info", help="words with dots between them")
    parser.add_argument("words", nargs="*", metavar="WORD", help="the log; - reads standard input")
    arguments = parser.parse_args()
    text = console.body_text(arguments.words, default="Hello World!")

    with connect("topics/emit_log_topic.py", Settings.load()) as connection:
        channel = connection.channel()
        exchange = topology.declare(channel)
        channel.confirm_delivery()
        try:
            channel.basic_publish(
                exchange=exchange,
                routing_key=arguments.key,
                body=messages.encode_text(text),
                properties=pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent),
                mandatory=True,
            )
        except UnroutableError:
            raise Unroutable(f"RabbitMQ returned the log: no pattern matches {arguments.key!r}") from None
    console.say(f" [x] Sent {arguments.key}: {text}")


if __name__ == "__main__":
    console.run(main)
