"""Publish five messages to a queue with room for three, and look which of them it has. It needs no other program.

python publisher_confirms/overflow.py drop-head          what RabbitMQ does unless a queue is declared otherwise
python publisher_confirms/overflow.py reject-publish
"""

import pika
import topology
from pika.exceptions import NackError

from common import console, messages
from common.config import Settings
from common.connection import connect


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("overflow", choices=["drop-head", "reject-publish"], help="what the queue does when it is full")
    overflow = parser.parse_args().overflow
    with connect("publisher_confirms/overflow.py", Settings.load()) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        queue = topology.small_queue(channel, 3, overflow)
        for number in range(1, 6):
            text = messages.encode_text(f"message {number}")
            properties = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
            try:
                channel.basic_publish("", queue, text, properties, mandatory=True)
                console.say(f" [x] message {number} is confirmed")
            except NackError:
                console.say(f" [x] message {number} is nacked")
        # basic_get takes one message; if the queue is empty, it returns None three times: method, properties and body.
        while (body := channel.basic_get(queue, auto_ack=True)[2]) is not None:
            console.say(f" [x] in the queue: {messages.decode_text(body)}")


if __name__ == "__main__":
    console.run(main)
