"""Post a letter with AMQP 1.0, and print RabbitMQ's outcome. Its pair is receive.py or receive_amqp.py.

python protocols/amqp_1_0/send.py Dear all
python protocols/amqp_1_0/send.py --count 150 Dear all     numbered letters; the queue has room for a hundred
python protocols/amqp_1_0/send.py --key parcel Dear all    to where no queue is bound
"""

import uuid
from collections import Counter

import client
import topology

from common import console, messages
from common.config import Settings
from common.errors import ExitCode, Failure
from extras.optional import packages_for

with packages_for(__file__):
    from rabbitmq_amqp_python_client import AddressHelper, AmqpMessageRejectedException, Message, Publisher
    from rabbitmq_amqp_python_client.qpid.proton.utils import SendException


class Released(Failure):
    """No queue is bound for the routing key."""

    exit_code = ExitCode.UNROUTABLE


class Rejected(Failure):
    """A queue did not take the letter."""

    exit_code = ExitCode.NOT_CONFIRMED


def outcome(publisher: Publisher, text: str, content_type: str, sender: str) -> str:
    """Publish one letter, and wait for what RabbitMQ says of it."""
    message = Message(
        messages.encode_text(text),
        # The body is bytes as they are. Otherwise they would travel as a value of AMQP's own types.
        inferred=True,
        # Since 4.2, a message without it is transient.
        durable=True,
        id=str(uuid.uuid4()),
        content_type=content_type,
        application_properties={"sender": sender},
    )
    try:
        publisher.publish(message)
    except AmqpMessageRejectedException:
        return "rejected"
    except SendException:
        return "released"
    return "accepted"


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="the letter; - reads standard input")
    parser.add_argument("--from", dest="sender", default="anna", metavar="NAME", help="who sends it, anna by default")
    parser.add_argument("--type", default="text/plain", help="the content type, text/plain by default")
    parser.add_argument("--count", type=console.whole(1, 100_000), default=1, metavar="N", help="post it N times")
    parser.add_argument("--key", default=topology.KEY, help="the routing key, letter by default")
    arguments = parser.parse_args()
    text = console.body_text(arguments.words, default="Dear all")
    count: int = arguments.count
    letters = [text] if count == 1 else [f"{number}: {text}" for number in range(1, count + 1)]

    with client.connected("amqp_1_0/send.py", Settings.load()) as connection:
        publisher = connection.publisher(AddressHelper.exchange_address(topology.EXCHANGE, arguments.key))
        outcomes = Counter(outcome(publisher, letter, arguments.type, arguments.sender) for letter in letters)
    if accepted := outcomes["accepted"]:
        console.say(f" [x] Posted {text!r}" if count == 1 else f" [x] Posted {accepted} letters")
    if outcomes["released"]:
        raise Released(f"released: no queue is bound for the key {arguments.key!r}")
    if rejected := outcomes["rejected"]:
        raise Rejected(f"rejected: {rejected} of {count}, the queue {topology.QUEUE!r} is full; start receive.py")


if __name__ == "__main__":
    console.run(main)
