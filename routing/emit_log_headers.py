"""Publish a log with labels in its headers. Its pair is receive_logs_headers.py; start one of those first.

python routing/emit_log_headers.py --label shop=north --label severity=error the till is stuck
"""

import labels
import pika
import topology

from common import console, messages
from common.config import Settings
from common.connection import connect


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument(
        "--label", type=labels.label, action="append", default=[], metavar="NAME=VALUE", help="as many as you like"
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="the log; - reads standard input")
    arguments = parser.parse_args()
    text = console.body_text(arguments.words, default="Hello World!")

    with connect("routing/emit_log_headers.py", Settings.load()) as connection:
        channel = connection.channel()
        exchange = topology.declare_labelled(channel)
        channel.confirm_delivery()
        headers = dict(arguments.label)
        channel.basic_publish(
            exchange=exchange,
            routing_key="",  # A headers exchange ignores it.
            body=messages.encode_text(text),
            properties=pika.BasicProperties(headers=headers, delivery_mode=pika.DeliveryMode.Persistent),
            # If it is returned, console.run() reports the UnroutableError: one line, exit code 67.
            mandatory=True,
        )
    console.say(f" [x] Sent {text!r}")


if __name__ == "__main__":
    console.run(main)
