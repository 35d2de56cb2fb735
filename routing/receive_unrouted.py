"""Receive the logs that nobody wanted, until Ctrl-C; they are kept while it is away. Its pair is emit_log_direct.py.

python routing/receive_unrouted.py
"""

import topology
from common.consumer import Outcome, consume

from common import console
from common.config import Settings
from common.messages import Message


def receive(message: Message) -> Outcome:
    # An alternate exchange gets the message as it was: even its routing key is the one it was sent with.
    console.say(f" [x] Nobody wanted {message.routing_key}: {message.text()}")
    return Outcome.ACK


def ready(_queue: str) -> None:
    console.say(" [*] Waiting for what nobody wants. To exit press CTRL+C")


def main() -> None:
    console.parser(__doc__).parse_args()
    consume("routing/receive_unrouted.py", Settings.load(), topology.declare_unrouted, receive, on_ready=ready)


if __name__ == "__main__":
    console.run(main)
