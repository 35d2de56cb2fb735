"""Read letters with AMQP 1.0 until Ctrl-C, and accept, discard or requeue each. Its pair is send.py or send_amqp.py.

python protocols/amqp_1_0/receive.py
python protocols/amqp_1_0/receive.py --seconds 1    a slow reader

A letter that begins with "Later" is put back the first time; what is no text goes to the dead letters.
"""

import os
import signal
import time
from types import FrameType

import client
import topology
from pika import BasicProperties

from common import console
from common.config import Settings
from common.errors import BadMessage
from extras.optional import packages_for
from robust_pika import Message, keep_connected

with packages_for(__file__):
    from rabbitmq_amqp_python_client import AddressHelper, Event


class Reader(client.Watchful):
    """Called for each letter."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._busy = self._stopped = False
        self._put_back: set[object] = set()

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """Leave, but finish the letter in hand first; at the second time leave at once."""
        at_once = self._stopped or not self._busy
        self._stopped = True
        if at_once:
            raise KeyboardInterrupt

    def on_amqp_message(self, event: Event) -> None:
        if self._stopped:
            # It had been sent to us already. This way it does not count as an attempt to deliver it.
            self.delivery_context.requeue(event)
            return
        self._busy = True
        self._read(event)
        self._busy = False
        if self._stopped:
            raise KeyboardInterrupt

    def _read(self, event: Event) -> None:
        letter = event.message
        properties = BasicProperties(content_type=client.text_of(letter.content_type))
        try:
            text = Message(bytes(letter.body or b""), properties, "", "").text()
        except (BadMessage, TypeError, ValueError) as failure:
            console.warn(f"discarded: {failure}")
            self.delivery_context.discard(event)
            return
        sender = (letter.application_properties or {}).get("sender", "unknown")
        if text.startswith("Later") and letter.id not in self._put_back:
            console.say(f" [x] Put back {text!r}")
            self._put_back.add(letter.id)
            self.delivery_context.requeue(event)
            return
        console.say(f" [x] Received {text!r} from {sender}")
        time.sleep(self._seconds)
        self.delivery_context.accept(event)


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("--seconds", type=console.seconds, default=0.0, metavar="S", help="how long a letter takes")
    arguments = parser.parse_args()
    reader = Reader(arguments.seconds)

    def session(settings: Settings) -> None:
        with client.connected("amqp_1_0/receive.py", settings) as connection:
            consumer = connection.consumer(AddressHelper.queue_address(topology.QUEUE), message_handler=reader)
            console.say(f" [*] Waiting for letters (process {os.getpid()}). To exit press CTRL+C")
            consumer.run()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, reader.stop)
    keep_connected(Settings.load(), session)


if __name__ == "__main__":
    console.run(main)
