"""Show alarms, until Ctrl-C; its queue keeps them meanwhile. Which logs are alarms is decided here, by a binding.

python topics/receive_alarms.py
Its pair is emit_log_topic.py.
"""

import topology
from pika.spec import Basic, BasicProperties

from common import console
from common.config import Settings
from common.connection import Channel, connect


def show(channel: Channel, method: Basic.Deliver, _properties: BasicProperties, body: bytes) -> None:
    # The message comes through two exchanges unchanged, with the routing key that it was published with.
    console.say(f" [x] Alarm from {method.routing_key}: {body.decode(errors='replace')}")
    channel.basic_ack(method.delivery_tag)


def main() -> None:
    console.parser(__doc__).parse_args()
    with connect("topics/receive_alarms.py", Settings.load()) as connection:
        channel = connection.channel()
        logs = topology.declare(channel)
        channel.exchange_declare(topology.ALARMS, exchange_type="fanout", durable=True)
        channel.queue_declare(topology.ON_DUTY, durable=True)
        channel.queue_bind(topology.ON_DUTY, exchange=topology.ALARMS)
        # From exchange to exchange: what matches the pattern is an alarm.
        channel.exchange_bind(destination=topology.ALARMS, source=logs, routing_key="#.error")
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(topology.ON_DUTY, show)
        console.say(" [*] Waiting for alarms. To exit press CTRL+C")
        channel.start_consuming()


if __name__ == "__main__":
    console.run(main)
