"""Answer what fib(n) is, until Ctrl-C; start as many servers as you like. Its pair is rpc_client.py.

python rpc/rpc_server.py
python rpc/rpc_server.py --seconds-per-step 0.1         slow: fib(20) takes two seconds
python rpc/rpc_server.py --prefetch 100 --quiet         for many quick calls
"""

import time

import topology
from common.consumer import Answer, consume

from common import console, messages
from common.config import Settings
from common.errors import BadMessage
from common.messages import Message

LARGEST = 30


def fib(number: int) -> int:
    """A slow way to compute it, so that the server has something to do."""
    return number if number < 2 else fib(number - 1) + fib(number - 2)


def asked_for(message: Message) -> int:
    """The number in the request. Raises BadMessage if there is none that we would take."""
    try:
        number = int(message.text())
    except ValueError:
        raise BadMessage(f"the request must be a whole number, not {message.text()[:50]!r}") from None
    if not 0 <= number <= LARGEST:
        raise BadMessage(f"the number must be from 0 to {LARGEST}, not {number}")
    return number


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--prefetch", type=console.whole(1, 2000), default=1, metavar="N", help="requests to hold")
    parser.add_argument("--seconds-per-step", type=console.seconds, default=0.0, metavar="S", help="be slow")
    parser.add_argument("--quiet", action="store_true", help="do not print each request")
    arguments = parser.parse_args()

    def serve(message: Message) -> Answer:
        address = message.properties.reply_to
        if not address:
            # Nobody to tell: one line here, and the request goes to the dead letters.
            raise BadMessage("the request has no reply_to")
        try:
            number = asked_for(message)
            if not arguments.quiet:
                console.say(f" [.] fib({number})")
            if arguments.seconds_per_step:
                time.sleep(number * arguments.seconds_per_step)
            kind, reply = "reply", str(fib(number))
        except Exception as error:  # whatever it is: who has asked gets a reply, and the error is the reply
            kind, reply = "error", str(error) or type(error).__name__
            if not arguments.quiet:
                console.say(f" [.] Error: {reply}")
        # Whose reply it is says the correlation id; it needs no id of its own.
        properties = messages.properties(type=kind, correlation_id=message.properties.correlation_id, message_id=None)
        # Sent before the request is acknowledged: if this server dies, another one does the request.
        # A reply queue that is gone is worth a line. Of a direct address RabbitMQ cannot tell: 3.10 returns what it has
        # delivered, and 4.x confirms what it has dropped.
        is_queue = not address.startswith("amq.rabbitmq.reply-to.")
        return Answer(address, messages.encode_text(reply), properties, mandatory=is_queue)

    consume(
        "rpc/rpc_server.py",
        Settings.load(),
        topology.declare,
        serve,
        prefetch=arguments.prefetch,
        on_ready=lambda _queue: console.say(" [*] Waiting for requests. To exit press CTRL+C"),
    )


if __name__ == "__main__":
    console.run(main)
