"""Read letters with AMQP 0-9-1 until Ctrl-C. Its pair is send.py, which speaks AMQP 1.0.

python protocols/amqp_1_0/receive_amqp.py
"""

import client
import topology

from common import console
from common.config import Settings
from robust_pika import DeclaringChannel, Message, Outcome, consume


def read(message: Message) -> Outcome:
    """Say what has come, and with what."""
    properties = message.properties
    lasting = "persistent" if properties.delivery_mode == 2 else "transient"
    console.say(f" [x] Received {message.text()!r}")
    console.say(f"     {lasting}, content type {properties.content_type}, headers {properties.headers}")
    return Outcome.ACK


def main() -> None:
    console.parser(__doc__).parse_args()
    settings = Settings.load()

    def declare(_channel: DeclaringChannel) -> str:
        with client.connected("amqp_1_0/receive_amqp.py", settings):
            return topology.QUEUE

    consume(
        "amqp_1_0/receive_amqp.py",
        settings,
        declare,
        read,
        on_ready=lambda _queue: console.say(" [*] Waiting for letters. To exit press CTRL+C"),
    )


if __name__ == "__main__":
    console.run(main)
