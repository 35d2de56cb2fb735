"""Send readings as fast as they are taken, and say what RabbitMQ has answered. Its pair is store.py.

python reliability/back_pressure/measure.py readings
python reliability/back_pressure/measure.py refusing --count 1000
python reliability/back_pressure/measure.py refusing --insist            send it again until it is taken
python reliability/back_pressure/measure.py newest --count 200000 --in-flight 1000 --bytes 1000
"""

import time
from collections import deque

import topology

from common import console, messages
from common.config import Settings
from robust_pika import Confirmation, Nacked, Publisher

PAUSE = 0.05
"""Seconds to wait before a refused reading is sent again."""


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("queue", choices=topology.QUEUES)
    parser.add_argument("--count", type=console.whole(1, 10_000_000), default=500, metavar="N", help="500 by default")
    parser.add_argument("--bytes", type=console.whole(0, 1_000_000), default=0, metavar="N", help="to add to a reading")
    parser.add_argument("--in-flight", type=console.whole(1, 10_000), default=1, metavar="N", help="unconfirmed ones")
    parser.add_argument("--insist", action="store_true", help="send what is refused again")
    arguments = parser.parse_args()
    queue = f"back_pressure.{arguments.queue}"
    confirmed = refused = 0
    in_flight: deque[tuple[Confirmation, bytes]] = deque()

    with Publisher(
        topology.PUBLISHER,
        Settings.load(),
        declare=lambda channel: topology.declare(channel, arguments.queue),
        window=arguments.in_flight,
    ) as publisher:

        def send(body: bytes) -> None:
            in_flight.append((publisher.publish("", queue, body, messages.properties("application/json")), body))

        def settle() -> None:
            nonlocal confirmed, refused
            confirmation, body = in_flight.popleft()
            try:
                confirmation.wait()
                confirmed += 1
            except Nacked:
                # Not an error of the connection: the queue is full, and the program decides what to do now.
                refused += 1
                if arguments.insist:
                    time.sleep(PAUSE)
                    send(body)

        for number in range(1, arguments.count + 1):
            reading = {"number": number, "at": time.time(), "more": "x" * arguments.bytes}
            send(messages.encode_json(reading))
            while len(in_flight) >= arguments.in_flight:
                settle()
        while in_flight:
            settle()
    console.say(f" [x] {arguments.count} readings: {confirmed} times yes, {refused} times no")


if __name__ == "__main__":
    console.run(main)
