"""Ask what fib(n) is, and wait for the reply. Its pair is rpc_server.py; start at least one of those first.

python rpc/rpc_client.py 30
python rpc/rpc_client.py --deadline 1 30     waits one second, not longer
"""

import time
import uuid

import pika
import topology
from pika.spec import Basic, BasicProperties

from common import console, messages
from common.config import Settings
from common.connection import Channel, connect
from common.errors import ExitCode, Failure

REPLIES = "amq.rabbitmq.reply-to"
"""Not a queue, though it is consumed like one: RabbitMQ hands each reply directly to the channel that has asked."""


class CallFailed(Failure):
    def __init__(self, text: str, exit_code: ExitCode) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def ask(channel: Channel, number: str, deadline: float) -> str:
    call = str(uuid.uuid4())
    replies: list[tuple[BasicProperties, bytes]] = []

    def receive(_channel: Channel, _method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        if properties.correlation_id == call:
            replies.append((properties, body))

    def no_server(*_returned: object) -> None:
        raise CallFailed("no server is there; start one with: python rpc/rpc_server.py", ExitCode.UNROUTABLE)

    # Direct reply-to requires both: auto_ack, and the same channel for the request.
    channel.basic_consume(REPLIES, receive, auto_ack=True)
    channel.add_on_return_callback(no_server)
    # When its time is up, RabbitMQ deletes the request: no server works for a client that has given up.
    request = pika.BasicProperties(reply_to=REPLIES, correlation_id=call, expiration=str(int(deadline * 1000)))
    channel.basic_publish("", topology.QUEUE, messages.encode_text(number), request, mandatory=True)
    end = time.monotonic() + deadline
    while not replies and (left := end - time.monotonic()) > 0:
        # It may return early, and without a reply.
        channel.connection.process_data_events(time_limit=left)
    if not replies:
        raise CallFailed(f"no reply within {deadline:g} s; the server is too slow, or gone", ExitCode.NOT_CONFIRMED)
    [(properties, body)] = replies
    if properties.type == "error":
        raise CallFailed(f"the server says: {body.decode('utf-8', 'replace')}", ExitCode.DATA)
    return messages.decode_text(body)


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("number", nargs="?", default="30", metavar="NUMBER", help="the n of fib(n), 30 by default")
    parser.add_argument("--deadline", type=console.seconds, default=5.0, metavar="S", help="in seconds, 5 by default")
    arguments = parser.parse_args()
    with connect("rpc/rpc_client.py", Settings.load()) as connection:
        console.say(f" [x] Requesting fib({arguments.number})")
        console.say(f" [.] Got {ask(connection.channel(), arguments.number, arguments.deadline)}")


if __name__ == "__main__":
    console.run(main)
