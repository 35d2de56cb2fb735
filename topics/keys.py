"""A routing key or a pattern on the command line of this lesson's scripts."""

import argparse


def key(text: str) -> str:
    """Raises ArgumentTypeError if AMQP cannot carry it, and ValueError, which argparse reports, if it is not UTF-8."""
    if (size := len(text.encode("utf-8"))) > 255:
        raise argparse.ArgumentTypeError(f"{size} bytes are more than the 255 that AMQP allows")
    return text
