"""Cook what is ordered, with AMQP, until Ctrl-C: what order.py sent with STOMP, and its properties.

python protocols/stomp/cook_amqp.py
"""

import topology

from common import console
from common.config import Settings
from robust_pika import Message, Outcome, consume

STOMPS_OWN = {"receipt", "content-length", "x-delivery-count"}
"""RabbitMQ passes on what was meant for itself, and adds a count."""


def work(message: Message) -> Outcome:
    """Do one order. What is no text goes to the dead letters."""
    dish, properties = message.text(), message.properties
    headers = {name: value for name, value in (properties.headers or {}).items() if name not in STOMPS_OWN}
    kind = "persistent" if properties.delivery_mode == 2 else "transient"
    console.say(f" [x] Cooking {dish!r}: {kind}, content type {properties.content_type}, headers {headers}")
    return Outcome.ACK


def main() -> None:
    console.parser(__doc__).parse_args()
    consume(
        "stomp/cook_amqp.py",
        Settings.load(),
        topology.declare,
        work,
        on_ready=lambda _queue: console.say(" [*] Waiting for orders. To exit press CTRL+C"),
    )


if __name__ == "__main__":
    console.run(main)
