"""Open an urgent ticket while a consumer holds normal ones, and see how many of them are answered before it.

python reliability/priorities/compare_prefetch.py
python reliability/priorities/compare_prefetch.py --prefetch 1 5 50

It declares a temporary queue, and deletes it again.
"""

import itertools
import uuid

import levels
import topology
from pika import BasicProperties, DeliveryMode
from pika.adapters.blocking_connection import BlockingChannel

from common import console
from common.config import Settings
from common.connection import connect
from common.errors import Failure

PATIENCE = 30.0
"""Seconds to wait for a ticket."""


def publish(channel: BlockingChannel, queue: str, priority: int) -> None:
    properties = BasicProperties(priority=priority, delivery_mode=DeliveryMode.Persistent)
    channel.basic_publish("", queue, b"a ticket", properties, mandatory=True)


def normal_before_urgent(channel: BlockingChannel, publishing: BlockingChannel, queue: str, prefetch: int) -> int:
    for _ in range(2 * prefetch):
        publish(publishing, queue, levels.NORMAL)
    channel.basic_qos(prefetch_count=prefetch)
    deliveries = channel.consume(queue, inactivity_timeout=PATIENCE)
    # The consumer holds these, though it has not begun with the first one.
    held = list(itertools.islice(deliveries, prefetch))
    publish(publishing, queue, levels.URGENT)
    for answered, (method, properties, _body) in enumerate(itertools.chain(held, deliveries)):
        if method is None or properties is None:
            break  # none has come in time
        channel.basic_ack(method.delivery_tag)
        if properties.priority == levels.URGENT:
            return answered
    raise Failure(f"no ticket has come for {PATIENCE:.0f} s")


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument(
        "--prefetch", type=console.whole(1, 1000), nargs="+", default=[1, 10, 100], metavar="N", help="1 10 100"
    )
    prefetches = parser.parse_args().prefetch
    queue = f"priorities.compared.{uuid.uuid4().hex[:8]}"

    with connect("priorities/compare_prefetch.py", Settings.load()) as connection:
        publishing = connection.channel()
        publishing.confirm_delivery()
        for prefetch in prefetches:
            # If the script is killed, RabbitMQ deletes it after five minutes.
            arguments = {**topology.CLASSIC_ARGUMENTS, "x-expires": 300_000}
            publishing.queue_declare(queue, durable=True, arguments=arguments)
            try:
                with connection.channel() as channel:
                    answered = normal_before_urgent(channel, publishing, queue, prefetch)
            finally:
                publishing.queue_delete(queue)
            console.say(f" [x] prefetch {prefetch}: {answered} answered before the urgent one")


if __name__ == "__main__":
    console.run(main)
