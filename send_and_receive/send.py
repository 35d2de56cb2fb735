"""Send one message to a queue, and know that RabbitMQ has it. Its pair is receive.py; either may start first.

python send_and_receive/send.py                 sends 'Hello World!'
python send_and_receive/send.py Good morning    sends 'Good morning'
date | python send_and_receive/send.py -        sends what comes from standard input
"""

import topology

from common import console, messages
from common.config import Settings
from common.connection import connect


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="the message; - reads standard input")
    text = console.body_text(parser.parse_args().words, default="Hello World!")

    with connect("send_and_receive/send.py", Settings.load()) as connection:
        channel = connection.channel()
        queue = topology.declare(channel)
        # From here on basic_publish returns when the message is safe, and raises UnroutableError or NackError if not.
        channel.confirm_delivery()
        channel.basic_publish(
            exchange="",
            routing_key=queue,
            body=messages.encode_text(text),
            properties=messages.properties("text/plain"),
            mandatory=True,
        )
    console.say(f" [x] Sent {text!r}")


if __name__ == "__main__":
    console.run(main)
