"""Send a task that no worker can read: bytes that are no text, as a faulty program might. Its pair is worker.py.

python work_queue/send_rubbish.py
"""

import pika
import topology

from common import console
from common.config import Settings
from common.connection import connect

RUBBISH = bytes([0xFF, 0x00, 0xFE])


def main() -> None:
    console.parser(__doc__).parse_args()
    with connect("work_queue/send_rubbish.py", Settings.load()) as connection:
        channel = connection.channel()
        queue = topology.declare(channel)
        channel.confirm_delivery()
        # RabbitMQ does not look into a body, so it takes this one like any other.
        properties = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
        channel.basic_publish(exchange="", routing_key=queue, body=RUBBISH, properties=properties)
    console.say(" [x] Sent rubbish")


if __name__ == "__main__":
    console.run(main)
