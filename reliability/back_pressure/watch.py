"""Watch, until Ctrl-C, how RabbitMQ slows down the publisher, and why; a line for each change.

python reliability/back_pressure/watch.py
"""

import time

import topology

from common import console
from common.config import Settings
from extras.management import Management

EVERY = 0.1
"""Seconds between two looks. What we see is up to a second old: RabbitMQ takes samples."""


def state(management: Management) -> str:
    """The state of the publisher: the worst of the states of its connections and channels."""
    connections = {item.name: item.state for item in management.connections() if item.label == topology.PUBLISHER}
    # It may be one channel that is slowed down, and not all of the connection.
    channels = [item.details.get("state") for item in management.channels() if item.connection in connections]
    states = {*connections.values(), *channels}
    # Blocked: an alarm. Flow: it has to wait, again and again, for those behind it. The first of a connection is "".
    return next((name for name in ("blocked", "flow", "running") if name in states), "not there")


def main() -> None:
    console.parser(__doc__).parse_args()
    with Management(Settings.load()) as management:
        before = None
        while True:
            now = f"{', '.join(management.alarms()) or 'no alarm'}; publisher: {state(management)}"
            if now != before:
                console.say(f" [x] {now}")
            before = now
            time.sleep(EVERY)


if __name__ == "__main__":
    console.run(main)
