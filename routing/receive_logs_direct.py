"""Show the logs of these severities, until Ctrl-C. Start as many as you like. Its pair is emit_log_direct.py.

python routing/receive_logs_direct.py error
python routing/receive_logs_direct.py info warning error
"""

import topology
from pika.spec import Basic, BasicProperties

from common import console
from common.config import Settings
from common.connection import Channel, connect


def show(channel: Channel, method: Basic.Deliver, _properties: BasicProperties, body: bytes) -> None:
    # errors="replace": otherwise one body that is no text would end all receivers of its severity.
    console.say(f" [x] {method.routing_key}: {body.decode(errors='replace')}")
    channel.basic_ack(method.delivery_tag)


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("severities", choices=topology.SEVERITIES, nargs="+", help="one or several")
    severities = parser.parse_args().severities

    with connect("routing/receive_logs_direct.py", Settings.load()) as connection:
        channel = connection.channel()
        exchange = topology.declare(channel)
        queue = channel.queue_declare("", exclusive=True).method.queue
        for severity in severities:
            channel.queue_bind(queue, exchange, routing_key=severity)
        channel.basic_qos(prefetch_count=100)
        channel.basic_consume(queue, show)
        console.say(f" [*] Waiting for {', '.join(severities)}. To exit press CTRL+C")
        channel.start_consuming()


if __name__ == "__main__":
    console.run(main)
