"""Show sensors' readings and states, with MQTT, until Ctrl-C. Its pair is sensor.py; either may start first.

python protocols/mqtt/display.py                   all sensors, from now on
python protocols/mqtt/display.py cellar attic      these two, and first the state that they are in
python protocols/mqtt/display.py --session hall    RabbitMQ keeps what comes while the display of this name is away
"""

import client
import reading

from common import console
from common.config import Settings
from common.errors import BadMessage
from extras.optional import packages_for

with packages_for(__file__):
    from paho.mqtt.client import Client, MQTTMessage


def show(message: MQTTMessage) -> None:
    """Print one message."""
    _, sensor, what = message.topic.split("/")
    if what == "state":
        since = ", as of before" if message.retain else ""
        console.say(f" [x] {sensor} is {message.payload.decode(errors='replace')}{since}")
        return
    try:
        found = reading.decode(message.payload)
    except BadMessage as failure:
        # Anybody may publish to a topic; MQTT has no dead letters, so the display prints a line and drops it.
        console.warn(f"dropped from {message.topic}: {failure}")
        return
    console.say(f" [x] {sensor}, reading {found.number}: {found.celsius:.1f} °C")


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument(
        "sensors", nargs="*", type=reading.sensor_name, metavar="NAME", help="whom to show; all if none is named"
    )
    parser.add_argument("--session", type=reading.sensor_name, metavar="NAME", help="keep what comes meanwhile")
    arguments = parser.parse_args()

    def prepare(paho: Client) -> None:
        # Left alone, paho acknowledges a message before it hands it to us.
        paho.manual_ack_set(True)
        # From the first moment: what waits in a session comes before we have subscribed to anything.
        paho.on_message = on_message

    def on_message(paho: Client, _data: object, message: MQTTMessage) -> None:
        show(message)
        paho.ack(message.mid, message.qos)

    with client.connected("mqtt/display.py", Settings.load(), session=arguments.session, prepare=prepare) as link:

        def subscribe() -> None:
            # RabbitMQ finds retained messages by their exact topic: who subscribes with + does not get them.
            names = arguments.sensors or ["+"]
            link.client.subscribe(
                [(reading.topic(name, what), 1) for name in names for what in ("temperature", "state")]
            )

        link.ready(subscribe)
        console.say(f" [*] Waiting for readings, with MQTT {link.version}. To exit press CTRL+C")
        link.until(lambda: False)


if __name__ == "__main__":
    console.run(main)
