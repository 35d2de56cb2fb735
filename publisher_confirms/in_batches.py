"""Publish messages in batches, wait for each batch's confirms, and say how fast that was. It needs no other program.

python publisher_confirms/in_batches.py --batch 100
"""

import time

import pika
import topology
from pika.exceptions import AMQPError
from pika.frame import Method
from pika.spec import Basic
from select_connection import NotConfirmed, open_channel

from common import console, messages
from common.config import Settings


def publish(settings: Settings, count: int, batch: int = 100) -> float:
    """Publish ``count`` messages; the seconds until all are confirmed."""
    in_flight: set[int] = set()
    refused: list[str] = []

    def on_return(_channel: object, _method: object, _properties: object, body: bytes) -> None:
        refused.append(f"{body.decode()} was returned")

    def on_answer(frame: Method[Basic.Ack | Basic.Nack]) -> None:
        tag = frame.method.delivery_tag
        # multiple: this one answer is for all messages up to the tag.
        answered = {number for number in in_flight if number <= tag} if frame.method.multiple else {tag}
        if isinstance(frame.method, Basic.Nack):
            refused.extend(f"message {number} was nacked" for number in sorted(answered))
        in_flight.difference_update(answered)
        if not in_flight:
            channel.connection.ioloop.stop()

    with open_channel("publisher_confirms/in_batches.py", settings) as channel:
        channel.add_on_return_callback(on_return)
        channel.confirm_delivery(on_answer)
        began = time.perf_counter()
        for number in range(1, count + 1):
            body = messages.encode_text(f"message {number}")
            properties = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
            channel.basic_publish("", topology.MEASURED, body, properties, mandatory=True)
            in_flight.add(number)  # RabbitMQ numbers the messages of a channel in the same way: the delivery tags.
            if number % batch == 0 or number == count:
                # Returns when on_answer has stopped it: RabbitMQ has answered the whole batch.
                try:
                    channel.connection.ioloop.start()
                except AMQPError as error:
                    raise NotConfirmed(
                        f"{len(in_flight)} in doubt, from message {min(in_flight, default=number + 1)} on: {error}"
                    ) from None
                if refused:
                    raise NotConfirmed(f"{len(refused)} of {batch} messages refused; the first: {refused[0]}")
        return time.perf_counter() - began


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--count", type=console.whole(1, 1_000_000), default=20_000, metavar="N", help="messages")
    parser.add_argument("--batch", type=console.whole(1, 1000), default=100, metavar="N", help="messages in a batch")
    arguments = parser.parse_args()
    count, batch = arguments.count, arguments.batch
    seconds = publish(Settings.load(), count, batch)
    console.say(f" [x] {count:,} messages confirmed, in batches of {batch}: {count / seconds:,.0f} per second")


if __name__ == "__main__":
    console.run(main)
