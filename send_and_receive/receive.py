"""Receive what send.py sends, until Ctrl-C. Its pair is send.py; either may start first.

python send_and_receive/receive.py
"""

import topology
from common.consumer import Outcome, consume

from common import console
from common.config import Settings
from common.messages import Message


def receive(message: Message) -> Outcome:
    # text() raises BadMessage for what is no text; consume then rejects it, and it goes to the dead letters.
    console.say(f" [x] Received {message.text()!r}")
    return Outcome.ACK


def ready(_queue: str) -> None:
    console.say(" [*] Waiting for messages. To exit press CTRL+C")


def main() -> None:
    console.parser(__doc__).parse_args()
    consume("send_and_receive/receive.py", Settings.load(), topology.declare, receive, on_ready=ready)


if __name__ == "__main__":
    console.run(main)
