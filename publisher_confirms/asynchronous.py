"""Publish without a pause and take RabbitMQ's answers as they come; say how fast that was. It needs no other program.

python publisher_confirms/asynchronous.py --count 100000
"""

import time

import pika
import topology
from pika.exceptions import AMQPError
from pika.frame import Method
from pika.spec import Basic, BasicProperties
from select_connection import NotConfirmed, open_channel

from common import console, messages
from common.config import Settings


def publish(settings: Settings, count: int, window: int = 1000) -> float:
    """Publish ``count`` messages, at most ``window`` of them in flight; the seconds until all are confirmed."""
    tags = iter(range(1, count + 1))  # RabbitMQ numbers the messages of a channel in the same way: the delivery tags.
    in_flight: dict[int, str] = {}
    refused: list[str] = []

    def publish_more() -> None:
        while len(in_flight) < window and (tag := next(tags, 0)):
            in_flight[tag] = message = f"message {tag}"
            properties = BasicProperties(delivery_mode=pika.DeliveryMode.Persistent, message_id=message)
            channel.basic_publish("", topology.MEASURED, messages.encode_text(message), properties, mandatory=True)
        if not in_flight:
            channel.connection.ioloop.stop()

    def on_return(_channel: object, _method: object, properties: BasicProperties, _body: bytes) -> None:
        refused.append(f"{properties.message_id} was returned")

    def on_answer(frame: Method[Basic.Ack | Basic.Nack]) -> None:
        last = frame.method.delivery_tag
        # multiple: this one answer is for all messages up to the tag.
        for tag in [tag for tag in in_flight if tag <= last] if frame.method.multiple else [last]:
            message = in_flight.pop(tag)
            if isinstance(frame.method, Basic.Nack):
                refused.append(f"{message} was nacked")
        publish_more()

    with open_channel("publisher_confirms/asynchronous.py", settings) as channel:
        channel.add_on_return_callback(on_return)
        channel.confirm_delivery(on_answer)
        began = time.perf_counter()
        publish_more()
        try:
            # It calls on_answer and on_return, and returns when publish_more has stopped it: all are answered.
            channel.connection.ioloop.start()
        except AMQPError as error:
            first = min(in_flight, default=count + 1)
            raise NotConfirmed(f"{len(in_flight):,} messages in doubt, from {first} on: {error}") from None
        if refused:
            raise NotConfirmed(f"{len(refused):,} of {count:,} messages refused; the first: {refused[0]}")
        return time.perf_counter() - began


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--count", type=console.whole(1, 1_000_000), default=20_000, metavar="N", help="messages")
    count = parser.parse_args().count
    seconds = publish(Settings.load(), count)
    console.say(f" [x] {count:,} messages confirmed, asynchronously: {count / seconds:,.0f} per second")


if __name__ == "__main__":
    console.run(main)
