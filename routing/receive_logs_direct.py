"""Receive the logs of these severities from now on, until Ctrl-C. Start as many as you like.

python routing/receive_logs_direct.py error
python routing/receive_logs_direct.py info warning error
"""

import topology
from common.consumer import Outcome, consume
from common.declaring import DeclaringChannel

from common import console
from common.config import Settings
from common.messages import Message


def receive(message: Message) -> Outcome:
    console.say(f" [x] {message.routing_key}: {message.text()}")
    return Outcome.ACK


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("severities", choices=topology.SEVERITIES, nargs="+", help="one or several")
    severities = parser.parse_args().severities

    def declare(channel: DeclaringChannel) -> str:
        exchange = topology.declare(channel)
        queue = topology.declare_temporary(channel)
        # A queue may have any number of bindings. A message that fits several comes once all the same.
        for severity in severities:
            channel.queue_bind(queue, exchange, routing_key=severity)
        return queue

    def ready(_queue: str) -> None:
        console.say(f" [*] Waiting for {', '.join(severities)}. To exit press CTRL+C")

    consume("routing/receive_logs_direct.py", Settings.load(), declare, receive, on_ready=ready)


if __name__ == "__main__":
    console.run(main)
