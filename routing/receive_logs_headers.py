"""Show the logs that have all, or any, of these labels, until Ctrl-C. Its pair is emit_log_headers.py.

python routing/receive_logs_headers.py all shop=north severity=error
python routing/receive_logs_headers.py any shop=north severity=error
python routing/receive_logs_headers.py all-with-x x-region=north severity=error
"""

import labels
import topology
from pika.spec import Basic, BasicProperties

from common import console
from common.config import Settings
from common.connection import Channel, connect

MATCHES = ("all", "any", "all-with-x", "any-with-x")


def show(channel: Channel, method: Basic.Deliver, _properties: BasicProperties, body: bytes) -> None:
    # errors="replace": otherwise one body that is no text would end all receivers of its labels.
    console.say(f" [x] {body.decode(errors='replace')}")
    channel.basic_ack(method.delivery_tag)


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("match", choices=MATCHES, help="only those with -x compare labels whose name begins with x-")
    parser.add_argument("labels", type=labels.label, nargs="+", metavar="NAME=VALUE")
    arguments = parser.parse_args()
    wanted = dict(arguments.labels)

    with connect("routing/receive_logs_headers.py", Settings.load()) as connection:
        channel = connection.channel()
        exchange = topology.declare_labelled(channel)
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, exchange, arguments={**wanted, "x-match": arguments.match})
        channel.basic_qos(prefetch_count=100)
        channel.basic_consume(queue, show)
        listed = ", ".join(f"{name}={value}" for name, value in wanted.items())
        console.say(f" [*] Waiting for logs with {arguments.match}: {listed}. To exit press CTRL+C")
        channel.start_consuming()


if __name__ == "__main__":
    console.run(main)
