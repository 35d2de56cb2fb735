"""Where a program that counts is called: for metrics, traces and tests."""

from __future__ import annotations


class Hooks:
    """Override what you need, and pass it to Publisher, ``consume`` or RpcClient. Each method does nothing here.

    The methods are called on the I/O thread, so they must be quick and must not block; an exception in one ends the
    connection. ``count`` is a number of messages.
    """

    def published(self, count: int) -> None:
        """Handed to the connection for the first time, or again after a reconnect."""

    def confirmed(self, count: int) -> None:
        """Confirmed by the broker."""

    def returned(self, count: int) -> None:
        """Mandatory, and returned: no queue was bound for it."""

    def nacked(self, count: int) -> None:
        """Refused with ``basic.nack``: a queue was full, for example."""

    def in_flight(self, count: int) -> None:
        """So many messages are now published and not confirmed, or delivered and not settled."""

    def delivered(self, count: int) -> None:
        """Received by the consumer."""

    def acknowledged(self, count: int) -> None:
        """Acknowledged by the consumer."""

    def rejected(self, count: int) -> None:
        """Rejected by the consumer without requeueing."""

    def requeued(self, count: int) -> None:
        """Given back to the queue by the consumer."""

    def reconnected(self) -> None:
        """Connected again after a connection was lost."""
