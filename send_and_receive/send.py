"""Send one message to a queue. Its pair is receive.py; start either one first.

python send_and_receive/send.py                 sends 'Hello World!'
python send_and_receive/send.py Good morning    sends 'Good morning'
date | python send_and_receive/send.py -        sends what it reads from standard input
"""

from common import console, messages
from common.config import Settings
from common.connection import connect

QUEUE = "send_and_receive.hello"


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="the message; - reads standard input")
    text = console.body_text(parser.parse_args().words, default="Hello World!")

    with connect("send_and_receive/send.py", Settings.load()) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True)
        channel.basic_publish(exchange="", routing_key=QUEUE, body=messages.encode_text(text))
    console.say(f" [x] Sent {text!r}")


if __name__ == "__main__":
    console.run(main)
