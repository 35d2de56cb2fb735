"""Send messages with ten different delays, and measure how late each of them comes.

python reliability/delayed_messages/measure_precision.py
python reliability/delayed_messages/measure_precision.py --count 10000 --rate 2000

It receives them in a temporary queue.
"""

import statistics
import time
import uuid

import delays
import topology
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic

from common import console, messages
from common.config import Settings
from common.connection import connect
from common.errors import ExitCode, Failure
from robust_pika import Publisher

DELAYS = [100, 200, 300, 500, 700, 1000, 1500, 2000, 2500, 3100]
LONGEST_FIRST = sorted(DELAYS, reverse=True)
"""The order in which they are sent: where one can be in the way of another, it is."""
PATIENCE = 30.0
"""Seconds without a message after which we do not wait for more."""


class NotAsPromised(Failure):
    exit_code = ExitCode.NOT_CONFIRMED


def send(publisher: Publisher, address: str, delay: int) -> None:
    route = delays.route(delay, address)
    properties = messages.properties("text/plain", headers={delays.DUE: delays.now() + delay})
    publisher.publish(route.exchange, route.key, b"%d" % delay, properties)


def show(late: dict[int, list[int]], count: int) -> None:
    console.say("  delay  queues  messages  early   median  longest")
    for delay, values in late.items():
        queues = len(delays.route(delay, "").delays)
        early = sum(value < 0 for value in values)
        median, longest = statistics.median(values or [0]), max(values, default=0)
        console.say(f"{delay / 1000:5.1f} s  {queues:6}  {len(values):8,}  {early:5}  {median:4.0f} ms  {longest:4} ms")
    everything = [value for values in late.values() for value in values]
    early, missing = sum(value < 0 for value in everything), count - len(everything)
    console.say(
        f" [x] {count:,} messages over {len(DELAYS)} delays: {early} early, {missing} missing, "
        f"median lateness {statistics.median(everything or [0]):.0f} ms"
    )
    if early or missing:
        raise NotAsPromised(f"{early} messages were early, {missing} did not come within {PATIENCE:.0f} s")


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--count", type=console.whole(10, 100_000), default=1000, metavar="N", help="messages (1000)")
    parser.add_argument("--rate", type=console.whole(1, 10_000), default=400, metavar="N", help="sent a second (400)")
    arguments = parser.parse_args()
    settings = Settings.load()
    address = f"delayed_messages.measured.{uuid.uuid4().hex[:8]}"
    late: dict[int, list[int]] = {delay: [] for delay in DELAYS}
    last_came = time.monotonic()

    def receive(_channel: BlockingChannel, _method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        nonlocal last_came
        last_came = time.monotonic()
        late[int(body)].append(delays.lateness(properties) or 0)

    with (
        connect("delayed_messages/measure_precision.py", settings) as connection,
        Publisher("delayed_messages/measure_precision.py", settings, declare=topology.declare_ladder) as publisher,
    ):
        channel = connection.channel()
        channel.queue_declare(address, exclusive=True)
        channel.queue_bind(address, topology.DUE, routing_key=f"#.{address}")
        channel.basic_consume(address, receive, auto_ack=True)
        began = time.monotonic()
        for number in range(arguments.count):
            send(publisher, address, LONGEST_FIRST[number % len(DELAYS)])
            # What is due is received in between; a look at it later would make it late.
            connection.sleep(max(0.0, began + (number + 1) / arguments.rate - time.monotonic()))
        publisher.flush()
        last_came = time.monotonic()
        while sum(map(len, late.values())) < arguments.count and time.monotonic() - last_came < PATIENCE:
            connection.process_data_events(time_limit=0.1)
    show(late, arguments.count)


if __name__ == "__main__":
    console.run(main)
