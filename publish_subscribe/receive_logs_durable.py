"""Show every log since the subscription began, also those that were published while this was away. Until Ctrl-C.

python publish_subscribe/receive_logs_durable.py archive                  subscribes, or goes on where it stopped
python publish_subscribe/receive_logs_durable.py archive --unsubscribe    ends the subscription
Its pair is emit_log.py.
"""

import argparse
import re

import topology
from pika.spec import Basic, BasicProperties

from common import console
from common.config import Settings
from common.connection import Channel, connect


def subscription(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9_-]{1,50}", text):
        raise argparse.ArgumentTypeError(f"use 1 to 50 of the characters a-z, 0-9, _ and -, not {text!r}")
    return text


def show(channel: Channel, method: Basic.Deliver, _properties: BasicProperties, body: bytes) -> None:
    # errors="replace": otherwise a body that is no text would end this script, come back, and end it again.
    console.say(f" [x] {body.decode(errors='replace')}")
    channel.basic_ack(method.delivery_tag)


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("name", type=subscription, metavar="NAME", help="the name of the subscription")
    parser.add_argument("--unsubscribe", action="store_true", help="delete its queue, with the logs that are in it")
    arguments = parser.parse_args()
    queue = topology.SUBSCRIBER + arguments.name

    with connect("publish_subscribe/receive_logs_durable.py", Settings.load()) as connection:
        channel = connection.channel()
        if arguments.unsubscribe:
            unread = channel.queue_delete(queue).method.message_count
            console.say(f" [x] Unsubscribed {arguments.name!r}. Unread logs that were deleted: {unread}")
            return
        exchange = topology.declare(channel)
        channel.queue_declare(queue, durable=True)
        channel.queue_bind(queue, exchange)
        channel.basic_qos(prefetch_count=100)
        channel.basic_consume(queue, show)
        console.say(f" [*] Waiting for logs as {arguments.name!r}. To exit press CTRL+C")
        channel.start_consuming()


if __name__ == "__main__":
    console.run(main)
