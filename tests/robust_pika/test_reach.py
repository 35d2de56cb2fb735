"""Connecting in any protocol: which address is used, what is tried again, and what follows on a lost connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from robust_pika import Address, ConnectionLost, ConnectionSettings, keep_connected, keep_connected_async, reach
from robust_pika.connecting import Explain, reach_async
from robust_pika.errors import (
    AccessRefused,
    BrokerUnavailable,
    ConnectionRefused,
    ConsumerCancelled,
    HostNotFound,
    LoginRefused,
    RobustPikaError,
)

ONE, TWO = Address("one", 5672), Address("two", 5673)
SETTINGS = ConnectionSettings(addresses=(ONE, TWO), connect_timeout=0.5, reconnect_timeout=7.0)

Outcomes = dict[Address, list[Exception | str]]
"""What an attempt at an address raises or returns, one after the other; the last one again and again."""
Reach = Callable[..., str]


class Strange(Exception):
    """An error of another protocol's client."""


def reach_in_asyncio(settings: ConnectionSettings, attempt: Callable[[Address], str], **more: object) -> str:
    async def attempt_async(address: Address) -> str:
        return attempt(address)

    async def main() -> str:
        return await reach_async(settings, attempt_async, **more)  # type: ignore[arg-type]

    return asyncio.run(main())


both = pytest.mark.parametrize("reach", [reach, reach_in_asyncio], ids=["sync", "async"])


def attempts(outcomes: Outcomes, tried: list[Address]) -> Callable[[Address], str]:
    def attempt(address: Address) -> str:
        tried.append(address)
        left = outcomes[address]
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return attempt


@both
def test_the_first_address_that_answers_is_used(reach: Reach) -> None:
    tried: list[Address] = []
    outcomes: Outcomes = {ONE: [ConnectionRefusedError()], TWO: ["two"]}
    assert reach(SETTINGS, attempts(outcomes, tried)) == "two"
    assert tried == [ONE, TWO]


@both
def test_all_are_tried_again_until_one_answers(reach: Reach) -> None:
    tried: list[Address] = []
    outcomes: Outcomes = {ONE: [ConnectionRefusedError(), "one"], TWO: [socket.gaierror()]}
    assert reach(SETTINGS, attempts(outcomes, tried), deadline=30) == "one"
    assert tried == [ONE, TWO, ONE]


@both
def test_another_port_and_its_name_are_in_the_text(reach: Reach) -> None:
    tried: list[Address] = []
    here, there = Address("one", 1883), Address("two", 1883)
    outcomes: Outcomes = {here: [ConnectionRefusedError()], there: [ConnectionRefusedError()]}
    with pytest.raises(ConnectionRefused, match=r"^nothing answers at two:1883, the MQTT port$") as caught:
        reach(SETTINGS, attempts(outcomes, tried), port=1883, service="the MQTT port", deadline=0)
    assert (caught.value.where, caught.value.service) == ("two:1883", "the MQTT port")
    assert tried == [here, there]


@both
def test_a_refusal_is_raised_at_once_and_rather_than_an_address_that_is_away(reach: Reach) -> None:
    tried: list[Address] = []
    outcomes: Outcomes = {ONE: [socket.gaierror()], TWO: [LoginRefused("go away")]}
    with pytest.raises(LoginRefused):
        reach(SETTINGS, attempts(outcomes, tried), deadline=30)
    assert tried == [ONE, TWO]


@both
def test_an_error_that_is_not_expected_is_raised_as_it_is(reach: Reach) -> None:
    tried: list[Address] = []
    with pytest.raises(Strange):
        reach(SETTINGS, attempts({ONE: [Strange()]}, tried))
    assert tried == [ONE]


@both
def test_errors_of_another_client_are_explained_and_those_of_sockets_without_its_help(reach: Reach) -> None:
    seen: list[tuple[type[BaseException], Address]] = []

    def explain(error: BaseException, address: Address) -> RobustPikaError | None:
        seen.append((type(error), address))
        return AccessRefused("not you") if isinstance(error, Strange) else None

    options: dict[str, tuple[type[Exception], ...] | Explain] = {"errors": (Strange, OSError), "explain": explain}
    outcomes: Outcomes = {ONE: [socket.gaierror()], TWO: [Strange()]}
    with pytest.raises(AccessRefused, match="not you"):
        reach(SETTINGS, attempts(outcomes, []), deadline=0, **options)
    assert seen == [(socket.gaierror, ONE), (Strange, TWO)]
    outcomes = {ONE: [ConnectionResetError(104, "reset")], TWO: [socket.gaierror()]}
    with pytest.raises(HostNotFound):
        reach(SETTINGS, attempts(outcomes, []), deadline=0, **options)


# A connection that is lost

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
