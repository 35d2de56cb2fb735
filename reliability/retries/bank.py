"""A bank as we need it here: what it does depends on the words in the payment."""

import time


class Transient(Exception):
    """It failed now and may work later: a timeout, a lock, a server that is just being restarted."""


class Permanent(Exception):
    """It will never work, however often it is tried."""


class Bank:
    """``down_for``: seconds, from the first payment on, in which it does not answer at all."""

    def __init__(self, down_for: float = 0.0) -> None:
        self._down_for = down_for
        self._first: float | None = None

    def pay(self, payment: str, attempt: int) -> None:
        """Pay. Raises Transient or Permanent."""
        now = time.monotonic()
        self._first = self._first or now
        if now - self._first < self._down_for:
            raise Transient("the bank does not answer")
        if "closed" in payment:
            raise Permanent("the account is closed")
        if "never" in payment or ("slow" in payment and attempt < 3):
            raise Transient("the bank is busy")
