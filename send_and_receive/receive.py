"""Receive what send.py sends, until Ctrl-C. Its pair is send.py; start either one first.

python send_and_receive/receive.py
"""

from pika.spec import Basic, BasicProperties

from common import console
from common.config import Settings
from common.connection import Channel, connect

QUEUE = "send_and_receive.hello"


def receive(channel: Channel, method: Basic.Deliver, _properties: BasicProperties, body: bytes) -> None:
    # To RabbitMQ a body is bytes. Those that are no UTF-8 text are shown as replacement characters.
    text = body.decode("utf-8", errors="replace")
    console.say(f" [x] Received {text!r}")
    channel.basic_ack(method.delivery_tag)


def main() -> None:
    console.parser(__doc__).parse_args()
    with connect("send_and_receive/receive.py", Settings.load()) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True)
        channel.basic_consume(QUEUE, receive)
        console.say(" [*] Waiting for messages. To exit press CTRL+C")
        channel.start_consuming()


if __name__ == "__main__":
    console.run(main)
