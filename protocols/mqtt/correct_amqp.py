"""Correct a sensor with AMQP: what is published here, the sensor receives with MQTT. Its pair is sensor.py.

python protocols/mqtt/correct_amqp.py cellar -0.5

The sensor must be on; if it is not, RabbitMQ returns the message, and this script ends with an error.
"""

import argparse
import math

import reading
import topology

from common import console, messages
from common.config import Settings
from robust_pika import Publisher


def degrees(text: str) -> float:
    """A ``type`` for an argument that is a difference of temperatures."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not -50 <= number <= 50:
        raise argparse.ArgumentTypeError(f"must be a number from -50 to 50, not {text!r}")
    return number


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("sensor", type=reading.sensor_name, metavar="NAME", help="the sensor's name")
    parser.add_argument("degrees", type=degrees, metavar="DEGREES", help="what to add to its readings, in °C")
    arguments = parser.parse_args()
    with Publisher("mqtt/correct_amqp.py", Settings.load(), declare=topology.declare) as publisher:
        # mqtt.cellar.correction is for MQTT the topic mqtt/cellar/correction.
        key = reading.routing_key(arguments.sensor, "correction")
        body = messages.encode_json(arguments.degrees)
        publisher.publish(topology.EXCHANGE, key, body, messages.properties("application/json"))
        publisher.flush()
    console.say(f" [x] Sent {arguments.degrees:+g} °C to {arguments.sensor!r}")


if __name__ == "__main__":
    console.run(main)
