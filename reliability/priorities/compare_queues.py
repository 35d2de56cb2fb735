"""Let normal and urgent tickets wait in queues of either kind, and see which are answered first.

python reliability/priorities/compare_queues.py
python reliability/priorities/compare_queues.py --no-end --answer 270    for each urgent one answered, another comes

It declares temporary queues, and deletes them again.
"""

import time
import uuid
from collections import Counter, deque
from dataclasses import dataclass

import levels
import topology
from pika import BasicProperties, DeliveryMode
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic

from common import console
from common.config import Settings
from common.connection import connect, server_version
from common.errors import Failure

WAITING = 90
"""How many normal tickets wait, and how many urgent ones behind them."""
PATIENCE = 30.0
"""Seconds to wait for a ticket."""
TEMPORARY = {"x-expires": 300_000}
"""If the script is killed, RabbitMQ deletes the queues after five minutes."""


@dataclass(frozen=True)
class Setup:
    """Where either kind of ticket waits, with which prefetch, and the arguments of the queues."""

    title: str
    normal: str
    urgent: str
    prefetch: dict[str, int]
    arguments: dict[str, object]


def setups(name: str, rule: str) -> list[Setup]:
    classic, quorum, low, high = (f"{name}.{kind}" for kind in ("classic", "quorum", "normal", "urgent"))
    return [
        Setup("classic queue", classic, classic, {classic: 1}, topology.CLASSIC_ARGUMENTS),
        Setup(f"quorum queue ({rule})", quorum, quorum, {quorum: 1}, topology.QUORUM_ARGUMENTS),
        # No priorities at all: the share of each is its part in what we hold at any time.
        Setup("two queues, prefetch 2 and 1", low, high, {high: 2, low: 1}, topology.QUORUM_ARGUMENTS),
    ]


def publish(channel: BlockingChannel, queue: str, priority: int) -> None:
    properties = BasicProperties(priority=priority, delivery_mode=DeliveryMode.Persistent)
    channel.basic_publish("", queue, b"a ticket", properties, mandatory=True)


def answer(channel: BlockingChannel, publishing: BlockingChannel, setup: Setup, total: int, no_end: bool) -> int:
    """Answer ``total`` tickets; how many of them are normal ones."""
    held: deque[tuple[int, int]] = deque()
    answered: Counter[int] = Counter()

    def receive(_channel: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, _body: bytes) -> None:
        held.append((method.delivery_tag, properties.priority))

    for queue, prefetch in setup.prefetch.items():
        # Holds for the consumers that are started after it.
        channel.basic_qos(prefetch_count=prefetch)
        channel.basic_consume(queue, receive)
    while answered.total() < total:
        # As much time as a quick piece of work takes; meanwhile, RabbitMQ fills up what we hold.
        channel.connection.sleep(0.001)
        deadline = time.monotonic() + PATIENCE
        while not held and time.monotonic() < deadline:
            # pika may come back at once with nothing, such as after the end of another consumer.
            channel.connection.process_data_events(time_limit=1)
        if not held:
            raise Failure(f"no ticket has come for {PATIENCE:.0f} s, after {answered.total()} of {total}")
        tag, priority = held.popleft()
        if no_end and priority == levels.URGENT:
            publish(publishing, setup.urgent, levels.URGENT)
        channel.basic_ack(tag)
        answered[priority] += 1
    return answered[levels.NORMAL]


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument(
        "--answer", type=console.whole(1, 2000), default=WAITING, metavar="N", help=f"{WAITING} by default"
    )
    parser.add_argument("--no-end", action="store_true", help="for each urgent ticket answered, another one comes")
    arguments = parser.parse_args()
    name = f"priorities.compared.{uuid.uuid4().hex[:8]}"

    with connect("priorities/compare_queues.py", Settings.load()) as connection:
        publishing = connection.channel()
        publishing.confirm_delivery()
        for setup in setups(name, levels.of_quorum_queues(server_version(connection))):
            try:
                for queue in setup.prefetch:
                    publishing.queue_declare(queue, durable=True, arguments={**setup.arguments, **TEMPORARY})
                for queue, priority in ((setup.normal, levels.NORMAL), (setup.urgent, levels.URGENT)):
                    for _ in range(WAITING):
                        publish(publishing, queue, priority)
                with connection.channel() as channel:
                    normal = answer(channel, publishing, setup, arguments.answer, arguments.no_end)
            finally:
                for queue in setup.prefetch:
                    publishing.queue_delete(queue)
            console.say(f" [x] {setup.title}: {normal} normal ones among the first {arguments.answer}")


if __name__ == "__main__":
    console.run(main)
