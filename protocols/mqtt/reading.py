"""A temperature that a sensor has read, and the topics of a sensor."""

import argparse
import re
from dataclasses import dataclass

from common import messages
from common.errors import BadMessage


@dataclass(frozen=True, slots=True)
class Reading:
    """The ``number`` counts a sensor's readings, from 1 on."""

    number: int
    celsius: float


def encode(reading: Reading) -> bytes:
    """The payload: JSON."""
    return messages.encode_json({"number": reading.number, "celsius": round(reading.celsius, 2)})


def decode(payload: bytes | bytearray) -> Reading:
    """Raises BadMessage if it is no reading."""
    value = messages.decode_json(bytes(payload))
    try:
        return Reading(int(value["number"]), float(value["celsius"]))
    except (TypeError, KeyError, ValueError, OverflowError):
        raise BadMessage("it is not a reading: a number and celsius are needed") from None


def decode_correction(payload: bytes | bytearray) -> float:
    """What to add to a sensor's readings, in °C. Raises BadMessage if it is no number."""
    value = messages.decode_json(bytes(payload))
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 50:
        raise BadMessage("it is not a correction: a number from -50 to 50 is needed")
    return float(value)


def sensor_name(text: str) -> str:
    """A ``type`` for an argument that is a sensor's name: one level of a topic, and one word of a routing key."""
    if set(text) & set("+#"):
        raise argparse.ArgumentTypeError(
            f"{text!r} has a wildcard: + and # are for subscribing, a message is published to one topic"
        )
    if not re.fullmatch(r"[\w-]{1,50}", text):
        raise argparse.ArgumentTypeError(f"must be 1 to 50 letters, digits and dashes, not {text!r}")
    return text


def topic(sensor: str, what: str) -> str:
    """For MQTT: mqtt/cellar/temperature."""
    return f"mqtt/{sensor}/{what}"


def routing_key(sensor: str, what: str) -> str:
    """The same for AMQP: mqtt.cellar.temperature."""
    return topic(sensor, what).replace("/", ".")
