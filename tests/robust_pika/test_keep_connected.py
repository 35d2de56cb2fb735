"""What follows on a lost connection: a session that connects and works begins again. No broker is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from robust_pika import ConnectionLost, ConnectionSettings, keep_connected, keep_connected_async
from robust_pika.errors import BrokerUnavailable, ConsumerCancelled

SETTINGS = ConnectionSettings(connect_timeout=0.5, reconnect_timeout=7.0)
Session = Callable[[ConnectionSettings], str]


def keep(session: Session, pauses: list[float]) -> str:
    return keep_connected(SETTINGS, session, sleep=pauses.append)


def keep_in_asyncio(session: Session, pauses: list[float]) -> str:
    async def session_async(settings: ConnectionSettings) -> str:
        return session(settings)

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robust_pika.connecting.asyncio.sleep", sleep)
        return asyncio.run(awaiting(keep_connected_async(SETTINGS, session_async)))


async def awaiting(what: Awaitable[str]) -> str:
    return await what


keeping = pytest.mark.parametrize("keep", [keep, keep_in_asyncio], ids=["sync", "async"])


@keeping
def test_a_session_that_is_lost_begins_again_and_has_more_time_to_connect(
    keep: Callable[[Session, list[float]], str], logged: list[str]
) -> None:
    limits: list[float] = []
    pauses: list[float] = []
    losses = [ConnectionLost("the connection is lost"), ConsumerCancelled("the queue is gone")]

    def session(settings: ConnectionSettings) -> str:
        limits.append(settings.connect_timeout)
        if losses:
            raise losses.pop(0)
        return "done"

    assert keep(session, pauses) == "done"
    assert limits == [0.5, 7.0, 7.0]
    assert logged == ["the connection is lost; connecting again", "the queue is gone; connecting again"]
    # At random, and longer and longer.
    assert 0.1 <= pauses[0] <= 0.5
    assert 0.1 <= pauses[1] <= 1.5


@keeping
def test_a_session_that_cannot_connect_is_the_end(keep: Callable[[Session, list[float]], str]) -> None:
    calls: list[ConnectionSettings] = []

    def session(settings: ConnectionSettings) -> str:
        calls.append(settings)
        if len(calls) == 1:
            raise ConnectionLost("the connection is lost")
        raise BrokerUnavailable("nobody there")

    with pytest.raises(BrokerUnavailable, match="nobody there"):
        keep(session, [])
    assert len(calls) == 2
