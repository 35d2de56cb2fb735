"""Where in a stream to begin, as it is written on the command line."""

import argparse
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """``first``, ``last``, ``next``, an offset (``17``), or a time ago (``5m``)."""

    text: str

    @property
    def offset(self) -> int | None:
        """The offset, if it is one."""
        return int(self.text) if self.text.isdigit() else None

    @property
    def seconds_ago(self) -> int | None:
        """How long ago, if it is a time."""
        unit = {"s": 1, "m": 60, "h": 3600, "D": 86400}.get(self.text[-1])
        return int(self.text[:-1]) * unit if unit and self.text[:-1].isdigit() else None


def parse(text: str) -> Place:
    """A ``type`` for an argument; times are written as AMQP 0-9-1's ``x-stream-offset`` wants them."""
    if not re.fullmatch(r"first|last|next|\d{1,18}|\d{1,8}[smhD]", text):
        raise argparse.ArgumentTypeError(
            f"must be first, last, next, an offset, or how long ago (10s, 5m, 2h, 1D), not {text!r}"
        )
    return Place(text)
