"""Send what receive.py cannot use: bytes that are no text, as a faulty or foreign program might. It uses pika alone.

python send_and_receive/send_rubbish.py
"""

import topology

from common import console
from common.config import Settings
from common.connection import connect


def main() -> None:
    console.parser(__doc__).parse_args()
    with connect("send_and_receive/send_rubbish.py", Settings.load()) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        # RabbitMQ does not look into messages: to it, this one is as good as any.
        channel.basic_publish("", topology.declare(channel), bytes([0xFF, 0x00, 0xFE]), mandatory=True)
    console.say(" [x] Sent rubbish")


if __name__ == "__main__":
    console.run(main)
