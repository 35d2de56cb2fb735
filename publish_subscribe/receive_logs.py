"""Show every log that is published while this runs, until Ctrl-C. Start as many as you like. Its pair is emit_log.py.

python publish_subscribe/receive_logs.py
python publish_subscribe/receive_logs.py --slow 1    takes a second for each log
"""

import time

import topology
from pika.spec import Basic, BasicProperties

from common import console
from common.config import Settings
from common.connection import Channel, connect


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--slow", type=console.seconds, default=0.0, metavar="S", help="take S seconds for each log")
    pause = parser.parse_args().slow

    def show(channel: Channel, method: Basic.Deliver, _properties: BasicProperties, body: bytes) -> None:
        time.sleep(pause)
        # errors="replace": otherwise one body that is no text would end all subscribers at once.
        console.say(f" [x] {body.decode(errors='replace')}")
        channel.basic_ack(method.delivery_tag)

    with connect("publish_subscribe/receive_logs.py", Settings.load()) as connection:
        channel = connection.channel()
        exchange = topology.declare(channel)
        # Without a name: RabbitMQ makes one up. Exclusive: only this connection may use it, and it ends with it.
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, exchange)
        # At most 100 logs wait in this program; the others wait in its queue.
        channel.basic_qos(prefetch_count=100)
        channel.basic_consume(queue, show)
        console.say(" [*] Waiting for logs. To exit press CTRL+C")
        channel.start_consuming()


if __name__ == "__main__":
    console.run(main)
