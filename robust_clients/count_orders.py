"""Take the orders off their queue, and say how many came more than once, and how many are missing.

Its pairs are sender_reconnecting.py and sender.py; start one of those first, and wait for its end.

python robust_clients/count_orders.py 5000     there must be orders 1 to 5000
"""

import topology
from pika.spec import Basic, BasicProperties

from common import console
from common.config import Settings
from common.connection import Channel, connect
from common.errors import ExitCode, Failure


class OrdersMissing(Failure):
    exit_code = ExitCode.NOT_CONFIRMED


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("count", type=console.whole(1, 1_000_000), metavar="COUNT", help="how many there must be")
    total = parser.parse_args().count
    ids: set[str | None] = set()
    with connect("robust_clients/count_orders.py", Settings.load()) as connection:
        channel = connection.channel()
        queue = topology.declare_orders(channel)
        waiting = messages = channel.queue_declare(queue, passive=True).method.message_count

        def receive(channel: Channel, method: Basic.Deliver, properties: BasicProperties, _body: bytes) -> None:
            nonlocal waiting
            ids.add(properties.message_id)
            channel.basic_ack(method.delivery_tag)
            waiting -= 1
            if not waiting:
                channel.stop_consuming()

        channel.basic_qos(prefetch_count=500)
        if waiting:
            channel.basic_consume(queue, receive)
            channel.start_consuming()
    missing = total - len(ids)
    console.say(f" [x] {messages} messages, {len(ids)} orders; twice: {messages - len(ids)}, missing: {missing}")
    if missing:
        raise OrdersMissing(f"{missing} orders are missing")


if __name__ == "__main__":
    console.run(main)
