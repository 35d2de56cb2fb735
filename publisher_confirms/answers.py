"""Show every answer that RabbitMQ has for a message. It needs no other program, and leaves nothing behind.

python publisher_confirms/answers.py
"""

import topology
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker, NackError, UnroutableError

from common import console, messages
from common.config import Settings
from common.connection import connect


def answer(channel: BlockingChannel, exchange: str, key: str, *, mandatory: bool = True) -> str:
    """Publish a message; what RabbitMQ says to it."""
    body, properties = messages.encode_text("Hello World!"), messages.properties()
    try:
        channel.basic_publish(exchange, key, body, properties, mandatory=mandatory)
    except NackError:
        return "nacked"
    except UnroutableError as error:
        returned = error.messages[0].method
        return f"returned, {returned.reply_code} {returned.reply_text}"
    except ChannelClosedByBroker as error:
        # The channel is of no use any more, and whatever else was on its way on it is in doubt.
        return f"refused, {error.reply_code} {error.reply_text}"
    return "confirmed"


def main() -> None:
    console.parser(__doc__).parse_args()
    with connect("publisher_confirms/answers.py", Settings.load()) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        small, nowhere = topology.declare_small(channel), "publisher_confirms.nowhere"
        console.say(f" [x] to a queue with room: {answer(channel, '', small)}")
        console.say(f" [x] to the same queue, which is full now: {answer(channel, '', small)}")
        console.say(f" [x] to no queue, mandatory: {answer(channel, '', nowhere)}")
        console.say(f" [x] to no queue, not mandatory: {answer(channel, '', nowhere, mandatory=False)}")
        console.say(f" [x] to an exchange that is not there: {answer(channel, nowhere, '')}")


if __name__ == "__main__":
    console.run(main)
