"""A thermometer that speaks MQTT: publishes its readings, tells whether it is there, and takes corrections.

python protocols/mqtt/sensor.py cellar                        a reading each second, until Ctrl-C
python protocols/mqtt/sensor.py cellar --count 3 --every 0    three readings, and off
python protocols/mqtt/sensor.py cellar --qos 0                sends, and does not ask whether it arrived

Its pairs are display.py, which speaks MQTT, and display_amqp.py and correct_amqp.py, which speak AMQP.
"""

import itertools
import os
import time
from functools import partial

import client
import reading
from reading import Reading

from common import console
from common.config import Settings
from common.errors import BadMessage
from extras.optional import packages_for

with packages_for(__file__):
    from paho.mqtt.client import Client, MQTTMessage
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties


def details(sensor: str) -> Properties:
    """What only MQTT 5 can say beside the payload."""
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = "application/json"
    properties.UserProperty = [("sensor", sensor)]
    # Seconds. After that, the reading is of no use any more.
    properties.MessageExpiryInterval = 3600
    return properties


class Sensor:
    """The thermometer itself: what it measures, and by how much it corrects that."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.correction = 0.0

    def measure(self, number: int) -> Reading:
        """The next reading."""
        return Reading(number, 18 + number % 10 / 10 + self.correction)

    def on_message(self, _paho: Client, _data: object, message: MQTTMessage) -> None:
        """Somebody has published a correction."""
        try:
            self.correction = reading.decode_correction(message.payload)
        except BadMessage as failure:
            console.warn(f"dropped from {message.topic}: {failure}")
        else:
            console.say(f" [x] Told to correct by {self.correction:+g} °C")


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("sensor", type=reading.sensor_name, metavar="NAME", help="the sensor's name")
    parser.add_argument("--count", type=console.whole(1, 1_000_000), metavar="N", help="end after N readings")
    parser.add_argument("--every", type=console.seconds, default=1.0, metavar="S", help="seconds between readings")
    parser.add_argument("--qos", type=int, choices=(0, 1), default=1, help="1, the default, waits for RabbitMQ's word")
    arguments = parser.parse_args()
    sensor = Sensor(arguments.sensor)
    state, temperature = reading.topic(sensor.name, "state"), reading.topic(sensor.name, "temperature")

    def prepare(paho: Client) -> None:
        paho.on_message = sensor.on_message
        # The last will: RabbitMQ publishes it if this connection ends without a goodbye.
        paho.will_set(state, b"lost", qos=1, retain=True)

    with client.connected("mqtt/sensor.py", Settings.load(), prepare=prepare) as link:

        def here() -> None:
            # Retained: RabbitMQ keeps the latest one, for clients that subscribe later.
            link.publish(state, b"here", qos=1, retain=True)
            link.subscribe(reading.topic(sensor.name, "correction"))

        def room(due: float) -> bool:
            # What RabbitMQ has not acknowledged, paho keeps in memory: not without end.
            return time.monotonic() >= due and link.unacknowledged < client.AT_A_TIME

        link.ready(here)
        console.say(
            f" [*] Sensor {sensor.name!r} is on, with MQTT {link.version} (process {os.getpid()}). "
            "To switch it off press CTRL+C"
        )
        try:
            for number in itertools.count(1) if arguments.count is None else range(1, arguments.count + 1):
                properties = details(sensor.name) if link.is_5 else None
                link.publish(temperature, reading.encode(sensor.measure(number)), arguments.qos, properties=properties)
                link.until(partial(room, time.monotonic() + arguments.every), poll=min(0.1, arguments.every + 0.001))
        except KeyboardInterrupt:
            console.say(" [*] Switched off")
        link.publish(state, b"off", qos=1, retain=True)
        link.until_done()
        if arguments.count is not None:
            console.say(f" [x] Sent {arguments.count} readings")


if __name__ == "__main__":
    console.run(main)
