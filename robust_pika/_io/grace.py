"""The time that is left for finishing, once a stop was asked for."""

from __future__ import annotations

import time


class Grace:
    """``seconds`` that begin when ``left`` is first asked."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._deadline: float | None = None

    def left(self) -> float:
        """Seconds that are left, 0 at least."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self.seconds
        return max(0.0, self._deadline - time.monotonic())

    def end(self) -> None:
        """Nothing is left from now on."""
        self.seconds = 0.0
        self._deadline = time.monotonic()
