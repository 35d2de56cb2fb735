"""Show the logs that no other queue got, until Ctrl-C; its queue keeps them meanwhile. Its pair is emit_log_direct.py.

python routing/receive_unrouted.py
"""

import topology
from pika.spec import Basic, BasicProperties

from common import console
from common.config import Settings
from common.connection import Channel, connect


def show(channel: Channel, method: Basic.Deliver, _properties: BasicProperties, body: bytes) -> None:
    # The alternate exchange gets the message unchanged, with the routing key that it was published with.
    console.say(f" [x] Unrouted {method.routing_key}: {body.decode(errors='replace')}")
    channel.basic_ack(method.delivery_tag)


def main() -> None:
    console.parser(__doc__).parse_args()
    with connect("routing/receive_unrouted.py", Settings.load()) as connection:
        channel = connection.channel()
        topology.declare(channel)
        channel.queue_declare(topology.UNROUTED, durable=True)
        channel.queue_bind(topology.UNROUTED, exchange=topology.UNROUTED)
        channel.basic_qos(prefetch_count=100)
        channel.basic_consume(topology.UNROUTED, show)
        console.say(" [*] Waiting for unrouted logs. To exit press CTRL+C")
        channel.start_consuming()


if __name__ == "__main__":
    console.run(main)
