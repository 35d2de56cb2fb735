"""Receive the logs that have all, or any, of these labels, until Ctrl-C. Start as many as you like.

python routing/receive_logs_headers.py all shop=north severity=error
python routing/receive_logs_headers.py any shop=north severity=error
"""

import labels
import topology
from common.consumer import Outcome, consume
from common.declaring import DeclaringChannel

from common import console
from common.config import Settings
from common.messages import Message


def receive(message: Message) -> Outcome:
    console.say(f" [x] {message.text()}")
    return Outcome.ACK


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("match", choices=("all", "any"), help="how many of the labels a log must have")
    parser.add_argument("labels", type=labels.label, nargs="+", metavar="NAME=VALUE")
    arguments = parser.parse_args()
    wanted = dict(arguments.labels)

    def declare(channel: DeclaringChannel) -> str:
        exchange = topology.declare_labelled(channel)
        queue = topology.declare_temporary(channel)
        channel.queue_bind(queue, exchange, arguments={**wanted, "x-match": arguments.match})
        return queue

    def ready(_queue: str) -> None:
        listed = ", ".join(f"{name}={value}" for name, value in wanted.items())
        console.say(f" [*] Waiting for logs with {arguments.match} of {listed}. To exit press CTRL+C")

    consume("routing/receive_logs_headers.py", Settings.load(), declare, receive, on_ready=ready)


if __name__ == "__main__":
    console.run(main)
