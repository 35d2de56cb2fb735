"""Receive messages about orders, until Ctrl-C; what comes twice is shown twice.

python reliability/transactional_outbox/receive_orders.py
"""

import topology

from common import console
from common.config import Settings
from common.errors import BadMessage
from robust_pika import Message, Outcome, consume


def receive(message: Message) -> Outcome:
    match message.json():
        case {"customer": str(customer), "amount": int(amount)}:
            console.say(f" [x] Received {message.properties.message_id or '(no id)'}: {amount} euros for {customer}")
            return Outcome.ACK
    raise BadMessage('the body is not an order, such as {"customer": "ada", "amount": 10}')


def main() -> None:
    console.parser(__doc__).parse_args()
    consume(
        "transactional_outbox/receive_orders.py",
        Settings.load(),
        topology.declare,
        receive,
        on_ready=lambda _queue: console.say(" [*] Waiting for orders. To exit press CTRL+C"),
    )


if __name__ == "__main__":
    console.run(main)
