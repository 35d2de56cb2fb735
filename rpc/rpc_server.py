"""Answer what fib(n) is, until Ctrl-C; start as many servers as you like. Its pair is rpc_client.py.

python rpc/rpc_server.py
python rpc/rpc_server.py --seconds 3     slow: three seconds for each answer
"""

import os
import time
from functools import partial

import pika
import topology
from pika.spec import Basic, BasicProperties

from common import console, messages
from common.config import Settings
from common.connection import Channel, connect
from common.errors import BadMessage

LARGEST = 30


def fib(number: int) -> int:
    """A slow way to compute it, so that the server has something to do."""
    return number if number < 2 else fib(number - 1) + fib(number - 2)


def answer(body: bytes) -> str:
    text = messages.decode_text(body)
    if not text.isdecimal() or len(text) > 9 or int(text) > LARGEST:
        raise BadMessage(f"the request must be a whole number from 0 to {LARGEST}, not {text[:50]!r}")
    return str(fib(int(text)))


def serve(seconds: float, channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
    if not properties.reply_to:
        console.warn("a request without reply_to was rejected: nobody can get the answer")
        channel.basic_reject(method.delivery_tag, requeue=False)
        return
    try:
        kind, text = "reply", answer(body)
        console.say(f" [.] fib({body.decode()})")
        time.sleep(seconds)
    except BadMessage as failure:
        # An error is an answer, too. Without one, the client would wait until its deadline.
        kind, text = "error", str(failure)
        console.say(f" [.] Error: {text}")
    # The default exchange takes the reply to the client; the id tells the client which request it answers.
    reply = pika.BasicProperties(type=kind, correlation_id=properties.correlation_id)
    channel.basic_publish("", properties.reply_to, messages.encode_text(text), reply)
    # Only now: the request of a server that dies before this line goes to another server.
    channel.basic_ack(method.delivery_tag)


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--seconds", type=console.seconds, default=0.0, metavar="S", help="be slow: S for each answer")
    arguments = parser.parse_args()
    with connect("rpc/rpc_server.py", Settings.load()) as connection:
        channel = connection.channel()
        queue = topology.declare(channel)
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(queue, partial(serve, arguments.seconds))
        console.say(f" [*] Server {os.getpid()} waits for requests. To exit press CTRL+C")
        channel.start_consuming()


if __name__ == "__main__":
    console.run(main)
