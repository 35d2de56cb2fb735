"""Show every answer that RabbitMQ has for a message. It needs no other program, and leaves nothing behind.

python publisher_confirms/answers.py
"""

import pika
import topology
from pika.exceptions import ChannelClosedByBroker, NackError, UnroutableError

from common import console, messages
from common.config import Settings
from common.connection import Channel, connect


def answer(channel: Channel, exchange: str, key: str, *, mandatory: bool = True) -> str:
    """Publish a message; how RabbitMQ answers it."""
    properties = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
    try:
        channel.basic_publish(exchange, key, messages.encode_text("Hello World!"), properties, mandatory=mandatory)
    except NackError:
        return "nacked"
    except UnroutableError as error:
        returned = error.messages[0].method
        return f"returned, {returned.reply_code} {returned.reply_text}"
    except ChannelClosedByBroker as error:
        # The channel cannot be used any more, and all other messages in flight on it are in doubt.
        return f"refused, {error.reply_code} {error.reply_text}"
    return "confirmed"


def main() -> None:
    console.parser(__doc__).parse_args()
    with connect("publisher_confirms/answers.py", Settings.load()) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        small, nowhere = topology.small_queue(channel, 1, "reject-publish"), "publisher_confirms.nowhere"
        console.say(f" [x] to a queue with room: {answer(channel, '', small)}")
        console.say(f" [x] to the same queue, which is full now: {answer(channel, '', small)}")
        console.say(f" [x] to no queue, mandatory: {answer(channel, '', nowhere)}")
        console.say(f" [x] to no queue, not mandatory: {answer(channel, '', nowhere, mandatory=False)}")
        console.say(f" [x] to an exchange that does not exist: {answer(channel, nowhere, '')}")


if __name__ == "__main__":
    console.run(main)
