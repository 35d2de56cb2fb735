"""What this example is about: the tills of a shop record their sales."""

import argparse
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sale:
    """The ``number`` counts the sales of one till, from 1 on."""

    till: str
    number: int
    text: str


def till_name(text: str) -> str:
    """A ``type`` for an argument that is a till's name."""
    # rstream counts the letters of a name where the protocol counts its bytes: what is not ASCII would not arrive.
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,50}", text):
        raise argparse.ArgumentTypeError(f"must be 1 to 50 letters, digits, dots and dashes, not {text!r}")
    return text


def text_of(till: str, number: int) -> str:
    """What a sale says."""
    return f"sale {number} of till {till}"
