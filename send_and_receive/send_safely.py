"""Send one message that survives a restart of RabbitMQ, and wait for its confirm. Its pair is receive.py.

python send_and_receive/send_safely.py                 sends 'Hello World!'
python send_and_receive/send_safely.py Good morning    sends 'Good morning'
date | python send_and_receive/send_safely.py -        sends what it reads from standard input
"""

import pika

from common import console, messages
from common.config import Settings
from common.connection import connect

QUEUE = "send_and_receive.hello"


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="the message; - reads standard input")
    text = console.body_text(parser.parse_args().words, default="Hello World!")

    with connect("send_and_receive/send_safely.py", Settings.load()) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True)
        # From here on, basic_publish waits until RabbitMQ has confirmed the message.
        channel.confirm_delivery()
        channel.basic_publish(
            exchange="",
            routing_key=QUEUE,
            body=messages.encode_text(text),
            properties=pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent),
        )
    console.say(f" [x] Sent {text!r}, and RabbitMQ has confirmed it")


if __name__ == "__main__":
    console.run(main)
