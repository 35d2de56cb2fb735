"""Which address is tried, how often, and which error is raised; no broker is needed."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from robust_pika import Address, ConnectionFailure, ConnectionSettings, RobustPikaError, reach, reach_async
from robust_pika.connecting import backing_off
from robust_pika.errors import BrokerUnavailable, CertificateNotTrusted, ConnectionRefused, HostNotFound, TlsFailure

SETTINGS = ConnectionSettings(addresses=(Address("one", 1), Address("two", 2)), connect_timeout=0.3)


class Attempt:
    """Raises these errors in turn (the last one again and again), or returns the address."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.tried: list[Address] = []

    def __call__(self, address: Address) -> Address:
        self.tried.append(address)
        error = self.errors.pop(0) if len(self.errors) > 1 else self.errors[0]
        if error:
            raise error
        return address

    async def later(self, address: Address) -> Address:
        await asyncio.sleep(0)
        return self(address)


def test_the_first_address_that_answers_is_taken() -> None:
    attempt = Attempt(ConnectionRefusedError(), None)
    assert reach(SETTINGS, attempt) == Address("two", 2)
    assert attempt.tried == [Address("one", 1), Address("two", 2)]


def test_another_port_on_the_same_hosts() -> None:
    attempt = Attempt(ConnectionRefusedError(), None)
    assert reach(SETTINGS, attempt, port=1883) == Address("two", 1883)


def test_all_are_tried_again_until_the_time_is_up() -> None:
    attempt = Attempt(ConnectionRefusedError())
    with pytest.raises(ConnectionRefused, match=r"^nothing answers at one:1883, the MQTT port$") as caught:
        reach(SETTINGS, attempt, port=1883, service="the MQTT port")
    assert (caught.value.where, caught.value.service) == ("one:1883", "the MQTT port")
    assert caught.value.transient
    assert len(attempt.tried) >= 4
    assert len(attempt.tried) % 2 == 0


def test_without_a_deadline_each_is_tried_once() -> None:
    attempt = Attempt(ConnectionRefusedError())
    with pytest.raises(ConnectionRefused):
        reach(SETTINGS, attempt, deadline=0)
    assert len(attempt.tried) == 2


def test_a_refusal_says_more_than_an_address_that_cannot_be_reached() -> None:
    class Refusal(ConnectionFailure):
        pass

    for errors in ((ConnectionRefusedError(), Refusal("no")), (Refusal("no"), ConnectionRefusedError())):
        attempt = Attempt(*errors)
        with pytest.raises(Refusal):
            reach(SETTINGS, attempt)
        assert len(attempt.tried) == 2, "a refusal is not tried again"


@pytest.mark.parametrize(
    ("error", "kind", "transient"),
    [
        (socket.gaierror(-2, "Name or service not known"), HostNotFound, True),
        (ConnectionRefusedError(111, "Connection refused"), ConnectionRefused, True),
        (OSError(113, "No route to host"), BrokerUnavailable, True),
        (ssl.SSLCertVerificationError("certificate verify failed"), CertificateNotTrusted, False),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), TlsFailure, False),
    ],
)
def test_errors_of_sockets_and_tls_are_explained(
    error: OSError, kind: type[ConnectionFailure], transient: bool
) -> None:
    if isinstance(error, ssl.SSLCertVerificationError):
        error.verify_code, error.verify_message = 18, "self-signed certificate"
    with pytest.raises(kind, match=r"one:1\b") as caught:
        reach(SETTINGS, Attempt(error), deadline=0)
    assert type(caught.value) is kind
    assert caught.value.transient is transient
    assert "\n" not in str(caught.value)


def test_what_is_no_error_of_the_connection_is_raised_as_it_is() -> None:
    with pytest.raises(KeyError):
        reach(SETTINGS, Attempt(KeyError("a bug")))


def test_a_client_can_explain_its_own_errors() -> None:
    def explain(error: BaseException, where: Address) -> RobustPikaError:
        return ConnectionFailure(f"{where} says {error}")

    with pytest.raises(ConnectionFailure, match=r"^one:1 says 'refused'$"):
        reach(SETTINGS, Attempt(KeyError("refused")), errors=(KeyError,), explain=explain)


def test_a_client_need_not_explain_errors_of_sockets() -> None:
    with pytest.raises(ConnectionRefused, match=r"^nothing answers at one:1$"):
        reach(SETTINGS, Attempt(ConnectionRefusedError()), explain=lambda _error, _where: None, deadline=0)


def test_asyncio_does_the_same() -> None:
    attempt = Attempt(ConnectionRefusedError(), None)
    assert asyncio.run(reach_async(SETTINGS, attempt.later)) == Address("two", 2)
    with pytest.raises(ConnectionRefused):
        asyncio.run(reach_async(SETTINGS, Attempt(ConnectionRefusedError()).later, deadline=0))


def test_pauses_grow_and_are_random() -> None:
    pauses: list[float] = []

    def fail() -> None:
        raise BrokerUnavailable("away")

    with pytest.raises(BrokerUnavailable):
        # Nobody waits here, so the time that counts is that of the calls alone.
        backing_off(lambda: 0.0 if len(pauses) == 40 else 1e9, sleep=pauses.append)(fail)
    assert len(pauses) == 40
    assert max(pauses) <= 5
    assert max(pauses[:3]) <= 0.4
    assert len(set(pauses)) > 30


def test_what_is_not_transient_is_not_tried_again() -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise TlsFailure("no")

    with pytest.raises(TlsFailure):
        backing_off(60)(fail)
    assert len(calls) == 1
