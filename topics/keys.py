"""Routing keys and patterns, as they are written on a command line."""

import argparse

MAX_BYTES = 255
"""AMQP's limit."""


def key(text: str) -> str:
    """A routing key or a pattern. Raises ArgumentTypeError if it is too long, or not UTF-8."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8") from None
    if size > MAX_BYTES:
        raise argparse.ArgumentTypeError(f"{size} bytes are more than the {MAX_BYTES} that RabbitMQ takes")
    return text
