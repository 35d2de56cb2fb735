"""Receive alarms, until Ctrl-C; which logs are alarms is decided here, and no sender or receiver of logs need know.

python topics/receive_alarms.py
"""

import topology
from common.consumer import Outcome, consume
from common.declaring import DeclaringChannel

from common import console
from common.config import Settings
from common.messages import Message


def declare(channel: DeclaringChannel) -> str:
    logs = topology.declare(channel)
    alarms = topology.declare_alarms(channel)
    # From exchange to exchange. This binding stays when we go; the one below goes with our queue.
    channel.exchange_bind(destination=alarms, source=logs, routing_key="#.error")
    queue = topology.declare_temporary(channel)
    channel.queue_bind(queue, alarms)
    return queue


def receive(message: Message) -> Outcome:
    # The message is the one that was sent to the first exchange: its routing key is still there.
    console.say(f" [x] Alarm from {message.routing_key}: {message.text()}")
    return Outcome.ACK


def ready(_queue: str) -> None:
    console.say(" [*] Waiting for alarms. To exit press CTRL+C")


def main() -> None:
    console.parser(__doc__).parse_args()
    consume("topics/receive_alarms.py", Settings.load(), declare, receive, on_ready=ready)


if __name__ == "__main__":
    console.run(main)
