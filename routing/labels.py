"""The labels of a message, as they are written on a command line."""

import argparse


def label(text: str) -> tuple[str, str]:
    """``NAME=VALUE`` as a pair. Raises ArgumentTypeError for what a headers exchange cannot compare."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"write NAME=VALUE, not {text!r}")
    if name.startswith("x-"):
        raise argparse.ArgumentTypeError(f"RabbitMQ does not compare names that begin with x-, such as {name!r}")
    try:
        name_bytes, value_bytes = len(name.encode()), len(value.encode())
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8") from None
    # A message's headers travel in one frame, of 128 KiB; AMQP's limit for a name is 255 bytes.
    if name_bytes > 255 or value_bytes > 1000:
        raise argparse.ArgumentTypeError("a name has at most 255 bytes, a value 1,000")
    return name, value
