"""Post a letter with AMQP 0-9-1. Its pair is receive.py, which speaks AMQP 1.0 and declares the queue.

python protocols/amqp_1_0/send_amqp.py Dear all
"""

import client
import topology

from common import console, messages
from common.config import Settings
from common.connection import connect


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="the letter; - reads standard input")
    parser.add_argument("--from", dest="sender", default="carl", metavar="NAME", help="who sends it, carl by default")
    arguments = parser.parse_args()
    text = console.body_text(arguments.words, default="Dear all")
    settings = Settings.load()
    with client.connected("amqp_1_0/send_amqp.py", settings):
        pass  # It has declared what is needed.

    with connect("amqp_1_0/send_amqp.py", settings) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        properties = messages.properties(headers={"sender": arguments.sender})
        channel.basic_publish(topology.EXCHANGE, topology.KEY, messages.encode_text(text), properties, mandatory=True)
    console.say(f" [x] Posted {text!r}")


if __name__ == "__main__":
    console.run(main)
