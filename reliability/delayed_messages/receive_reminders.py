"""Receive reminders when they are due, until Ctrl-C. Its pair is remind.py; either may start first.

python reliability/delayed_messages/receive_reminders.py
"""

import delays
import topology

from common import console
from common.config import Settings
from robust_pika import Message, Outcome, consume


def receive(message: Message) -> Outcome:
    late = delays.lateness(message.properties)
    how_late = "" if late is None else f", {late / 1000:.3f} s late"
    console.say(f" [x] Received {message.text()!r}{how_late}")
    return Outcome.ACK


def main() -> None:
    console.parser(__doc__).parse_args()
    consume(
        "delayed_messages/receive_reminders.py",
        Settings.load(),
        topology.declare,
        receive,
        on_ready=lambda _queue: console.say(" [*] Waiting for reminders. To exit press CTRL+C"),
    )


if __name__ == "__main__":
    console.run(main)
