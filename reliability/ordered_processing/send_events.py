"""Send events of parcels, step by step. Its pair is follow.py; either may start first.

python reliability/ordered_processing/send_events.py several         to a queue that several consumers share
python reliability/ordered_processing/send_events.py single          to a queue with a single active consumer
python reliability/ordered_processing/send_events.py partitions      to the partition of each parcel
python reliability/ordered_processing/send_events.py single --parcels 100 --steps 200
python reliability/ordered_processing/send_events.py single --steps 3 --after 2    the steps 3, 4 and 5
"""

from dataclasses import asdict

import topology
from logbook import Event
from pika.adapters.blocking_connection import BlockingChannel

from common import console, messages
from common.config import Settings
from common.publisher import Publisher


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("to", choices=["several", "single", "partitions"])
    parser.add_argument("--parcels", type=console.whole(1, 100_000), default=1, metavar="N", help="1 by default")
    parser.add_argument("--steps", type=console.whole(1, 100_000), default=4, metavar="N", help="of each, 4 by default")
    parser.add_argument("--after", type=console.whole(0, 100_000), default=0, metavar="N", help="steps done before")
    arguments = parser.parse_args()
    last = arguments.after + arguments.steps

    def declare(channel: BlockingChannel) -> str:
        match arguments.to:
            case "several":
                return topology.declare_several(channel)
            case "single":
                return topology.declare_single(channel)
        topology.declare_partition(channel, "1")
        return topology.PARCELS

    # One publisher, because what two of them send meets in any order.
    with Publisher("ordered_processing/send_events.py", Settings.load(), declare=declare) as publisher:
        for step in range(arguments.after + 1, last + 1):
            for number in range(1, arguments.parcels + 1):
                event = Event(f"parcel-{number}", step, last)
                body = messages.encode_json(asdict(event))
                properties = messages.properties("application/json", type="parcel.event")
                if arguments.to == "partitions":
                    # The exchange makes a number of the routing key, and of that the partition: always the same one.
                    publisher.publish(topology.PARCELS, event.parcel, body, properties)
                else:
                    queue = topology.SEVERAL if arguments.to == "several" else topology.SINGLE
                    publisher.publish("", queue, body, properties)
        publisher.flush()
    console.say(f" [x] Sent {arguments.steps} steps of {arguments.parcels} parcels")


if __name__ == "__main__":
    console.run(main)
