"""Show the logs whose key matches one of these patterns, until Ctrl-C. Its pair is emit_log_topic.py.

python topics/receive_logs_topic.py '#'                    all logs
python topics/receive_logs_topic.py '*.till.*' '#.error'   all logs about a till, and all errors
"""

import keys
import topology
from pika.spec import Basic, BasicProperties

from common import console
from common.config import Settings
from common.connection import Channel, connect


def show(channel: Channel, method: Basic.Deliver, _properties: BasicProperties, body: bytes) -> None:
    # errors="replace": otherwise one body that is no text would end all receivers whose patterns match.
    console.say(f" [x] {method.routing_key}: {body.decode(errors='replace')}")
    channel.basic_ack(method.delivery_tag)


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("patterns", type=keys.key, nargs="+", metavar="PATTERN", help="* is one word, # any number")
    patterns = parser.parse_args().patterns

    with connect("topics/receive_logs_topic.py", Settings.load()) as connection:
        channel = connection.channel()
        exchange = topology.declare(channel)
        queue = channel.queue_declare("", exclusive=True).method.queue
        for pattern in patterns:
            channel.queue_bind(queue, exchange, routing_key=pattern)
        channel.basic_qos(prefetch_count=100)
        channel.basic_consume(queue, show)
        console.say(f" [*] Waiting for {', '.join(patterns)}. To exit press CTRL+C")
        channel.start_consuming()


if __name__ == "__main__":
    console.run(main)
