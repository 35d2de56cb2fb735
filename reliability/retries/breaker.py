"""A circuit breaker: when everything fails, the messages are not the cause; continuing would use up their attempts."""

import threading

from common import console


class CircuitBreaker:
    """Opens when ``threshold`` different messages in a row have failed, for ``pause`` seconds; a success closes it.

    (One message that fails again and again may be to blame itself: it opens nothing.) While it is open, there is one
    attempt after each pause, to see whether things work again.
    """

    def __init__(self, threshold: int, pause: float, stop: threading.Event) -> None:
        self._threshold = threshold
        self._pause = pause
        self._stop = stop
        self._failing: set[str] = set()

    def wait(self) -> None:
        """Return when an attempt may be made: at once if it is closed, or when the program should stop."""
        if len(self._failing) >= self._threshold:
            console.say(f" [!] {len(self._failing)} in a row have failed: pausing for {self._pause:g} s")
            self._stop.wait(self._pause)

    def failed(self, message: str) -> None:
        """An attempt has failed for a reason that may have nothing to do with this message (its id)."""
        self._failing.add(message)

    def succeeded(self) -> None:
        """The bank has answered, even if it refused."""
        if len(self._failing) >= self._threshold:
            console.say(" [*] It works again")
        self._failing.clear()
