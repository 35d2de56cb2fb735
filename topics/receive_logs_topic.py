"""Receive the logs whose key fits one of these patterns, until Ctrl-C. Start as many as you like.

python topics/receive_logs_topic.py '#'                    everything
python topics/receive_logs_topic.py '*.till.*' '#.error'   what is about a till, and all errors
"""

import keys
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
    parser.add_argument("patterns", type=keys.key, nargs="+", metavar="PATTERN", help="* is one word, # any number")
    patterns = parser.parse_args().patterns

    def declare(channel: DeclaringChannel) -> str:
        exchange = topology.declare(channel)
        queue = topology.declare_temporary(channel)
        # Patterns that fit the same message do no harm: a queue gets it once.
        for pattern in patterns:
            channel.queue_bind(queue, exchange, routing_key=pattern)
        return queue

    def ready(_queue: str) -> None:
        console.say(f" [*] Waiting for {', '.join(patterns)}. To exit press CTRL+C")

    consume("topics/receive_logs_topic.py", Settings.load(), declare, receive, on_ready=ready)


if __name__ == "__main__":
    console.run(main)
