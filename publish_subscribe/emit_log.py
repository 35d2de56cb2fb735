"""Publish a log to all subscribers. Its pairs are receive_logs.py and receive_logs_durable.py; start one of them first.

python publish_subscribe/emit_log.py info: the shop is open
tail -1 /var/log/syslog | python publish_subscribe/emit_log.py -
"""

import pika
import topology

from common import console, messages
from common.config import Settings
from common.connection import connect


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="the log; - reads standard input")
    text = console.body_text(parser.parse_args().words, default="info: Hello World!")

    with connect("publish_subscribe/emit_log.py", Settings.load()) as connection:
        channel = connection.channel()
        exchange = topology.declare(channel)
        channel.confirm_delivery()
        channel.basic_publish(
            exchange=exchange,
            routing_key="",  # A fanout exchange ignores it.
            body=messages.encode_text(text),
            properties=pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent),
        )
    console.say(f" [x] Sent {text!r}")


if __name__ == "__main__":
    console.run(main)
