"""A label on the command line of emit_log_headers.py and receive_logs_headers.py."""

import argparse


def label(text: str) -> tuple[str, str]:
    """``NAME=VALUE`` as a pair. Raises ValueError, which argparse reports, if it is not UTF-8."""
    name, equals, value = text.partition("=")
    # AMQP allows 255 bytes for a header's name.
    if not (name and equals) or len(text.encode("utf-8")) > 255:
        raise argparse.ArgumentTypeError("write NAME=VALUE, at most 255 bytes in all")
    return name, value
