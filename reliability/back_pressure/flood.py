"""Send readings without confirms, as fast as this program can. Its pair is watch.py.

python reliability/back_pressure/flood.py
python reliability/back_pressure/flood.py --seconds 20

They go to the queue that keeps the newest ones, so they do not fill the disk.
"""

import signal
import threading
import time

import topology

from common import console, messages
from common.config import Settings
from common.connection import connect

BODY = b"x" * 1000


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--seconds", type=console.seconds, default=5.0, metavar="S", help="how long; 5 by default")
    limit = parser.parse_args().seconds
    # Ctrl-C must not interrupt a publish: after half a message, RabbitMQ closes the connection.
    stop = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda _signum, _frame: stop.set())
    with connect(topology.PUBLISHER, Settings.load()) as connection:
        channel = connection.channel()
        queue = topology.declare(channel, "newest")
        properties = messages.properties()
        began, count = time.monotonic(), 0
        while time.monotonic() - began < limit and not stop.is_set():
            # No confirms, so nothing says that it is too much. Only TCP slows us down, when RabbitMQ no longer reads.
            channel.basic_publish("", queue, BODY, properties)
            count += 1
        took = time.monotonic() - began
    console.say(f" [x] Sent {count} readings in {took:.0f} s")


if __name__ == "__main__":
    console.run(main)
