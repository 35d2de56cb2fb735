"""Which message is blamed when the broker closes a channel or a connection; no broker is needed."""

from __future__ import annotations

from collections import deque

import pytest
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker, StreamLostError

from robust_pika._io.quarantine import INSIDE_ATTEMPTS, Quarantine, may_be_over_a_message

CHANNEL = ChannelClosedByBroker(404, "NOT_FOUND - no exchange 'nowhere'")
CONNECTION = ConnectionClosedByBroker(501, "FRAME_ERROR")
INSIDE = ConnectionClosedByBroker(541, "INTERNAL_ERROR")


def deliver(messages: list[str], bad: set[str], reason: ChannelClosedByBroker | ConnectionClosedByBroker) -> list[str]:
    """Send messages to a broker that ends the channel over the bad ones, until all are settled; the refused ones."""
    quarantine = Quarantine()
    queue, refused = deque(messages), []
    for _ in range(100 * len(messages)):
        in_flight: list[str] = []
        while queue and quarantine.admit(len(in_flight)):
            in_flight.append(queue.popleft())
        if bad & set(in_flight):
            guilty, _ = quarantine.guilty(in_flight, reason)
            if guilty is None:
                queue.extendleft(reversed(in_flight))
            else:
                refused.append(guilty)
        else:
            quarantine.confirmed()
        if not queue:
            return refused
    raise AssertionError(f"still not sent: {queue}")


def test_without_a_suspect_everything_is_sent_at_once() -> None:
    quarantine = Quarantine()
    assert not quarantine.active
    assert all(quarantine.admit(in_flight) for in_flight in range(1000))


@pytest.mark.parametrize("reason", [CHANNEL, CONNECTION, INSIDE], ids=["channel", "connection", "internal error"])
@pytest.mark.parametrize("bad", [set(), {"0"}, {"9"}, {"3", "4"}, set("0123456789")], ids=len)
def test_exactly_the_bad_messages_are_refused(
    bad: set[str], reason: ChannelClosedByBroker | ConnectionClosedByBroker
) -> None:
    assert deliver([str(number) for number in range(10)], bad, reason) == sorted(bad)


def test_a_single_message_is_blamed_for_a_closed_channel_at_once() -> None:
    quarantine = Quarantine()
    assert quarantine.admit(0)
    assert quarantine.guilty(["a"], CHANNEL) == ("a", True)


def test_a_closed_connection_is_blamed_on_a_message_the_second_time_only() -> None:
    quarantine = Quarantine()
    assert quarantine.admit(0)
    assert quarantine.guilty(["a"], CONNECTION) == (None, True)
    assert quarantine.active
    assert quarantine.admit(0)
    assert quarantine.guilty(["a"], CONNECTION) == ("a", True)


def test_an_internal_error_is_blamed_on_a_message_after_many_times() -> None:
    quarantine = Quarantine()
    assert quarantine.guilty(["a"], INSIDE) == (None, True)
    for _ in range(INSIDE_ATTEMPTS - 1):
        assert quarantine.admit(0)
        # No step forward: a pause before the next attempt makes sense.
        assert quarantine.guilty(["a"], INSIDE) == (None, False)
    assert quarantine.admit(0)
    assert quarantine.guilty(["a"], INSIDE) == ("a", True)


def test_a_suspect_whose_connection_is_cut_stays_one() -> None:
    quarantine = Quarantine()
    quarantine.guilty(["a", "b"], CONNECTION)
    assert quarantine.admit(0)
    assert not quarantine.admit(1)
    quarantine.interrupt()
    assert quarantine.admit(0)
    assert not quarantine.admit(1)


def test_what_may_be_over_a_message() -> None:
    assert may_be_over_a_message(CHANNEL)
    assert may_be_over_a_message(CONNECTION)
    assert not may_be_over_a_message(ConnectionClosedByBroker(320, "CONNECTION_FORCED - shutdown"))
    assert not may_be_over_a_message(StreamLostError("cut"))
    assert not may_be_over_a_message(None)
