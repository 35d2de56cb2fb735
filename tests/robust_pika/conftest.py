"""What the tests of the library share: its log."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


class _Kept(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """The messages that the library logs from now on, from WARNING on."""
    lines: list[str] = []
    handler = _Kept(lines)
    log = logging.getLogger("robust_pika")
    log.addHandler(handler)
    yield lines
    log.removeHandler(handler)
