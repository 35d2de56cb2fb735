"""Receive everything that emit_log.py tells from now on, until Ctrl-C. Start as many as you like.

python publish_subscribe/receive_logs.py                          hears what is told while it runs
python publish_subscribe/receive_logs.py --durable-name archive   misses nothing while it is away
python publish_subscribe/receive_logs.py --durable-name archive --forget   will not come back
"""

import argparse
import re
import time

import topology
from common.consumer import Outcome, consume
from common.declaring import DeclaringChannel

from common import console
from common.config import Settings
from common.connection import connect
from common.messages import Message


def name(text: str) -> str:
    # No dots: they separate the parts of our queues' names. The length: RabbitMQ takes 255 bytes in all.
    if not re.fullmatch(r"[\w-]{1,100}", text, re.ASCII):
        raise argparse.ArgumentTypeError("use letters, digits, - and _, at most 100")
    return text


def forget(name: str, settings: Settings) -> None:
    # Otherwise the queue would collect messages for ever. Its dead letters stay: somebody may still want to see them.
    with connect("publish_subscribe/receive_logs.py", settings) as connection:
        deleted = connection.channel().queue_delete(topology.SUBSCRIBER + name).method
    console.say(f" [x] Forgot {name!r}; messages that it had not read: {deleted.message_count}")


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--durable-name", type=name, metavar="NAME", help="keep a queue of this name while away")
    parser.add_argument(
        "--slow", type=console.seconds, default=0.0, metavar="S", help="take S seconds for each message"
    )
    parser.add_argument("--forget", action="store_true", help="delete the queue of --durable-name instead")
    arguments = parser.parse_args()
    settings = Settings.load()
    if arguments.forget:
        if not arguments.durable_name:
            parser.error("--forget needs --durable-name")
        forget(arguments.durable_name, settings)
        return

    def declare(channel: DeclaringChannel) -> str:
        if arguments.durable_name:
            return topology.declare_durable(channel, arguments.durable_name)
        return topology.declare_temporary(channel)

    def receive(message: Message) -> Outcome:
        text = message.text()
        time.sleep(arguments.slow)
        console.say(f" [x] {text}")
        return Outcome.ACK

    def ready(_queue: str) -> None:
        console.say(" [*] Waiting for logs. To exit press CTRL+C")

    consume("publish_subscribe/receive_logs.py", settings, declare, receive, on_ready=ready)


if __name__ == "__main__":
    console.run(main)
