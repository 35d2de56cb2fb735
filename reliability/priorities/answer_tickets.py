"""Answer tickets, until Ctrl-C. Its pair is open_ticket.py; either may start first.

python reliability/priorities/answer_tickets.py
python reliability/priorities/answer_tickets.py --queue quorum
python reliability/priorities/answer_tickets.py --rank 10 --work 5    gets a ticket before others do; takes 5 seconds
"""

import time

import levels
import topology

from common import console
from common.config import Settings
from common.connection import connect, server_version
from robust_pika import DeclaringChannel, Message, Outcome, consume


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--queue", choices=topology.QUEUES, default="classic", help="classic by default")
    parser.add_argument("--rank", type=console.whole(-100, 100), default=0, metavar="N", help="the consumer's priority")
    parser.add_argument("--work", type=console.seconds, default=0.0, metavar="S", help="seconds that a ticket takes")
    parser.add_argument("--prefetch", type=console.whole(1, 2000), default=1, metavar="N", help="1 by default")
    arguments = parser.parse_args()
    settings = Settings.load()
    with connect("priorities/answer_tickets.py", settings) as connection:
        version = server_version(connection)

    def declare(channel: DeclaringChannel) -> str:
        topology.declare(channel)
        return topology.QUEUES[arguments.queue]

    def ready(_queue: str) -> None:
        console.say(" [*] Waiting for tickets. To exit press CTRL+C")
        if arguments.queue == "quorum":
            rule = levels.of_quorum_queues(version)
            console.say(f" [*] Priorities here (RabbitMQ {'.'.join(map(str, version))}): {rule}")

    def answer(message: Message) -> Outcome:
        ticket = message.text()
        time.sleep(arguments.work)
        console.say(f" [x] Answered {ticket!r}")
        return Outcome.ACK

    consume(
        "priorities/answer_tickets.py",
        settings,
        declare,
        answer,
        # No priority overtakes the tickets that a consumer already holds.
        prefetch=arguments.prefetch,
        # The priority of the consumer, not of a message: who gets a ticket first, not which.
        arguments={"x-priority": arguments.rank},
        on_ready=ready,
    )


if __name__ == "__main__":
    console.run(main)
