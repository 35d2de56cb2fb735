"""Show all sensors' readings with AMQP, until Ctrl-C: what was published with MQTT, and its properties.

python protocols/mqtt/display_amqp.py

Its pair is sensor.py. Readings that come before this one starts for the first time have no queue yet.
"""

import reading
import topology

from common import console
from common.config import Settings
from robust_pika import Message, Outcome, consume


def work(message: Message) -> Outcome:
    """Show one reading. What is none goes to the dead letters."""
    found = reading.decode(message.body)
    console.say(f" [x] {message.routing_key}, reading {found.number}: {found.celsius:.1f} °C")
    properties = message.properties
    # QoS 0 arrives as transient, QoS 1 as persistent.
    kind = "persistent" if properties.delivery_mode == 2 else "transient"
    # RabbitMQ's headers begin with x-.
    headers = {name: value for name, value in (properties.headers or {}).items() if not name.startswith("x-")}
    console.say(f"     {kind}, content type {properties.content_type}, headers {headers}")
    return Outcome.ACK


def main() -> None:
    console.parser(__doc__).parse_args()
    consume(
        "mqtt/display_amqp.py",
        Settings.load(),
        topology.declare,
        work,
        on_ready=lambda _queue: console.say(" [*] Waiting for readings. To exit press CTRL+C"),
    )


if __name__ == "__main__":
    console.run(main)
