"""Close the connections of this lesson's scripts, as rabbitmqctl close_all_connections does with those of all programs.

python robust_clients/cut_connections.py
python robust_clients/cut_connections.py worker     only those whose name has "worker" in it
"""

import time
from contextlib import suppress

from common import console
from common.config import Settings
from common.errors import ExitCode, Failure
from extras.management import Management, NotFound

LIMIT = 10.0
"""Seconds to wait for one: RabbitMQ shows a new connection after up to five."""


class NoConnection(Failure):
    exit_code = ExitCode.UNAVAILABLE


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="a part of the connection's name")
    name = parser.parse_args().name
    end = time.monotonic() + LIMIT
    with Management(Settings.load()) as management:
        while not (
            found := [
                each for each in management.connections() if "robust_clients/" in each.label and name in each.label
            ]
        ):
            if time.monotonic() > end:
                raise NoConnection("no script of this lesson is connected (to this virtual host)")
            time.sleep(0.1)
        for connection in found:
            with suppress(NotFound):  # It has just been closed by its own side.
                management.close_connection(connection.name, "cut")
                console.say(f" [x] Closed the connection of {connection.label}")


if __name__ == "__main__":
    console.run(main)
