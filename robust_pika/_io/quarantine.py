"""Finding the message over which the broker closed a channel or a connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

from robust_pika.explaining import CONNECTION_FORCED, INTERNAL_ERROR

INSIDE_ATTEMPTS = 8
"""How often a message that is sent alone may meet INTERNAL_ERROR before it is refused for that. Malformed properties
cause this error, but for some seconds a node that comes back from a crash answers every message with it, too."""

Item = TypeVar("Item")


class Quarantine:
    """Sends suspects one by one, until it is known which of them the broker refuses.

    A broker that closes a channel does not say which of the unconfirmed messages was the reason. If there was only
    one, it is that one. Otherwise all of them are sent again, one at a time (those that are fine are delivered,
    perhaps twice, as when a connection breaks), and the next time the answer is known. A closed connection may have
    other reasons, so once is not enough to blame the only message in flight; after an internal error not even twice.

    The suspects are the first messages of the queue that its owner sends from.
    """

    def __init__(self) -> None:
        self._suspects = 0
        self._alone = False  # a suspect is in flight, and nothing else is
        self._failed_inside = 0  # how often in a row a suspect met INTERNAL_ERROR

    @property
    def active(self) -> bool:
        """Whether messages are sent one at a time now."""
        return self._alone or self._suspects > 0

    def admit(self, in_flight: int) -> bool:
        """Whether the next message may be sent while ``in_flight`` others are unconfirmed; if so, it counts as sent."""
        if not self.active:
            return True
        if in_flight:
            return False
        self._alone = self._suspects > 0
        self._suspects -= self._alone
        return True

    def confirmed(self) -> None:
        """The broker has confirmed something, so it does not fail inside any more."""
        self._failed_inside = 0

    def interrupt(self) -> None:
        """The connection ended for another reason; what was in flight is sent again."""
        self._suspects += self._alone
        self._alone = False

    def clear(self) -> None:
        """All messages were given up."""
        self._suspects = 0
        self._alone = False

    def guilty(
        self, accused: Sequence[Item], reason: ChannelClosedByBroker | ConnectionClosedByBroker
    ) -> tuple[Item | None, bool]:
        """Which of the unconfirmed messages the broker refuses, if that is known; the others are suspects from now on.

        The second value says whether this is a step forward; if not, a pause before the next attempt makes sense.
        """
        alone, self._alone = self._alone, False
        inside = reason.reply_code == INTERNAL_ERROR
        self._failed_inside += alone and inside
        by_channel = isinstance(reason, ChannelClosedByBroker)
        sure = by_channel or (alone and not (inside and self._failed_inside < INSIDE_ATTEMPTS))
        if not accused:
            return None, False
        if sure and len(accused) == 1:
            self._failed_inside = 0
            return accused[0], True
        self._suspects += len(accused)
        return None, sure or not self._failed_inside


def may_be_over_a_message(reason: BaseException | None) -> bool:
    """Whether a connection or channel that ended for this reason may have been closed over one message."""
    if isinstance(reason, ConnectionClosedByBroker):
        return bool(reason.reply_code != CONNECTION_FORCED)
    return isinstance(reason, ChannelClosedByBroker)
