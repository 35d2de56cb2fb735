"""Connecting: named, tried again with back-off, over several addresses, with TLS, and with readable errors."""

from __future__ import annotations

import asyncio
import copy
import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import pika
from pika import exceptions, spec
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_before_delay,
    wait_random_exponential,
)

from robust_pika.errors import ConnectionLost, ConsumerCancelled, InvalidSettings, RobustPikaError
from robust_pika.explaining import explain, explain_socket, innermost, stack_timeout
from robust_pika.settings import Address, ConnectionSettings

log = logging.getLogger("robust_pika")

Opened = TypeVar("Opened")
Own = TypeVar("Own", bound=ConnectionSettings)
Result = TypeVar("Result")

Channel = BlockingChannel
"""The channel of a Connection: what a callback of ``basic_consume`` gets first."""

STEADY_SECONDS = 10.0
"""A session that was lost sooner than this after it began waits longer and longer before it begins again."""

LOST = (ConnectionLost, ConsumerCancelled)
"""What ends a session that is to begin again."""

GOODBYE = 2.0
"""Seconds that closing a connection may take when an exception ends its ``with`` block."""

PIKA_ERRORS = (exceptions.AMQPError, AMQPConnectorException, OSError)
"""What pika raises when a connection cannot be opened, or breaks."""

Explain = Callable[[BaseException, Address], RobustPikaError | None]
"""Makes an error of this library, with a readable text, of what an attempt to connect to an address raised.

None for an error of which it knows nothing.
"""


class Connection(pika.BlockingConnection):
    """pika's BlockingConnection, and the properties that the server sent when it was opened.

    When the broker cancels a consumer, ``start_consuming`` raises ConsumerCancelled; pika's own would just return.
    """

    def __init__(self, parameters: pika.ConnectionParameters) -> None:
        super().__init__(parameters)
        self.parameters = parameters
        """What it was opened with; another kind of connection to the same address can use it."""
        credentials = parameters.credentials
        self.server_properties: dict[str, Any] = getattr(credentials, "server_properties", {})

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, _kind: object, error: object, _traceback: object) -> None:
        if error is None:
            if self.is_open:
                self.close()
            return
        # After Ctrl-C in the middle of pika's work, or when the network stalls, pika's close() can wait for an answer
        # that does not come. No other thread uses the connection while this one waits.
        goodbye = threading.Thread(target=self._close_quietly, name="goodbye", daemon=True)
        goodbye.start()
        goodbye.join(GOODBYE)

    def _close_quietly(self) -> None:
        # What broke the ``with`` block says more.
        with suppress(Exception):
            if self.is_open:
                self.close()

    def channel(self, channel_number: int | None = None) -> Channel:
        """Open a channel."""
        channel = super().channel(channel_number)
        channel.add_on_cancel_callback(_raise_cancelled)
        return channel


def _raise_cancelled(_frame: object) -> None:
    raise ConsumerCancelled(
        "RabbitMQ cancelled the consumer: its queue was deleted, or a message was not acknowledged in time"
    )


class _Credentials(pika.PlainCredentials):
    """Keeps the server's properties: BlockingConnection does not show them, but its credentials see them first."""

    def __init__(self, user: str, password: str) -> None:
        super().__init__(user, password)
        self.server_properties: dict[str, Any] = {}

    def __deepcopy__(self, _memo: dict[int, Any]) -> _Credentials:
        # pika copies its parameters, credentials included; the properties must arrive in ours.
        return self

    def response_for(self, start: spec.Connection.Start) -> tuple[str | None, bytes | None]:
        self.server_properties = dict(start.server_properties or {})
        answer: tuple[str | None, bytes | None] = super().response_for(start)
        return answer


def parameters(
    name: str, settings: ConnectionSettings, address: Address, context: ssl.SSLContext | None = None
) -> pika.ConnectionParameters:
    """pika's parameters for one address; ``context`` is that of ``tls_context``."""
    return pika.ConnectionParameters(
        host=address.host,
        port=address.port,
        virtual_host=settings.vhost,
        credentials=_Credentials(settings.user, settings.password),
        ssl_options=pika.SSLOptions(context, address.host) if context else None,
        heartbeat=settings.heartbeat,
        # Without it, a publisher waits for ever while the broker is in a memory or disk alarm.
        blocked_connection_timeout=settings.blocked_timeout,
        # The management UI shows the connection by this name.
        client_properties={"connection_name": name},
        # One address must not use up the whole deadline: the next one might answer.
        socket_timeout=min(5.0, settings.connect_timeout),
        stack_timeout=stack_timeout(settings),
    )


def tls_context(settings: ConnectionSettings) -> ssl.SSLContext | None:
    """A TLS context that verifies the certificate and the host name; None without TLS. Raises InvalidSettings."""
    if settings.tls is None:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.tls.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise InvalidSettings(f"the CA file {str(settings.tls.ca_file)!r} is not a PEM certificate: {error}") from None
    if settings.tls.cert_file:
        try:
            context.load_cert_chain(settings.tls.cert_file, settings.tls.key_file)
        except (OSError, ssl.SSLError) as error:
            files = f"{str(settings.tls.cert_file)!r} and {str(settings.tls.key_file)!r}"
            raise InvalidSettings(f"the certificate and key files {files} do not fit together: {error}") from None
    return context


def connect(name: str, settings: ConnectionSettings, *, deadline: float | None = None) -> Connection:
    """Open a connection that the management UI shows as ``name``.

    All addresses are tried in turn, again and again, with exponential back-off and full jitter (so that a thousand
    clients of a restarted broker do not come back at the same instant), for ``deadline`` seconds
    (``settings.connect_timeout`` by default). What waiting cannot mend (a wrong password, a missing virtual host,
    TLS) is raised at once. Raises a ConnectionFailure, or InvalidSettings.
    """
    return reach_amqp(name, settings, _open, deadline=deadline)


def reach_amqp(
    name: str,
    settings: ConnectionSettings,
    attempt: Callable[[pika.ConnectionParameters], Opened],
    *,
    deadline: float | None = None,
) -> Opened:
    """``connect`` for pika's other connections: what ``attempt`` makes of the first address that answers."""
    context = tls_context(settings)
    return reach(
        settings,
        lambda address: attempt(parameters(name, settings, address, context)),
        explain=lambda error, _address: explain(error, settings),
        errors=PIKA_ERRORS,
        deadline=deadline,
    )


def reach(
    settings: ConnectionSettings,
    attempt: Callable[[Address], Opened],
    *,
    port: int | None = None,
    service: str = "RabbitMQ",
    explain: Explain | None = None,
    errors: tuple[type[Exception], ...] = (OSError,),
    deadline: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Opened:
    """Connect, in any protocol: what ``attempt(address)`` returns for the first address of the settings that answers.

    ``port`` replaces the port of the addresses, and ``service`` names what is expected there. All addresses are tried
    in turn, as in ``connect``, for ``deadline`` seconds (``settings.connect_timeout`` by default; 0: once).

    ``errors`` are what ``attempt`` may raise besides the errors of this library. ``explain(error, address)`` makes a
    readable error of them. Where it returns None, and without it, errors of sockets and of TLS are explained, and
    others are raised as they are. An error that is ``transient`` is tried again, any other one is raised at once. If
    several addresses fail, a refusal is raised rather than that another address cannot be reached.
    """
    limit = settings.connect_timeout if deadline is None else deadline
    caught: tuple[type[Exception], ...] = (*errors, RobustPikaError)

    def attempt_all() -> Opened:
        tried = _Tried(port, service, explain)
        for address in settings.addresses:
            try:
                return attempt(tried.place(address))
            except caught as error:
                tried.note(error)
        raise tried.failure()

    return backing_off(limit, sleep=sleep)(attempt_all)


async def reach_async(
    settings: ConnectionSettings,
    attempt: Callable[[Address], Awaitable[Opened]],
    *,
    port: int | None = None,
    service: str = "RabbitMQ",
    explain: Explain | None = None,
    errors: tuple[type[Exception], ...] = (OSError,),
    deadline: float | None = None,
) -> Opened:
    """``reach`` for asyncio."""
    limit = settings.connect_timeout if deadline is None else deadline
    caught: tuple[type[Exception], ...] = (*errors, RobustPikaError)

    async def attempt_all() -> Opened:
        tried = _Tried(port, service, explain)
        for address in settings.addresses:
            try:
                return await attempt(tried.place(address))
            except caught as error:
                tried.note(error)
        raise tried.failure()

    retrying = AsyncRetrying(
        stop=stop_before_delay(limit),
        wait=wait_random_exponential(multiplier=0.1, max=5),
        retry=retry_if_exception(is_transient),
        reraise=True,
    )
    return await retrying(attempt_all)


def keep_connected(
    settings: Own, session: Callable[[Own], Result], *, sleep: Callable[[float], None] = time.sleep
) -> Result:
    """What ``session(settings)`` returns; it is called again each time that its connection is lost.

    A session connects, with ``connect`` or ``reach``, and works until it is done. It raises ConnectionLost or
    ConsumerCancelled when what it is connected to is gone; any other error is raised from here. From the second call
    on, its settings have the ``reconnect_timeout`` as their ``connect_timeout``.
    """
    pauses = _Pauses()
    while True:
        pauses.begin()
        try:
            return session(settings)
        except LOST as error:
            settings = _with_more_time(settings)
            sleep(pauses.after(error))


async def keep_connected_async(settings: Own, session: Callable[[Own], Awaitable[Result]]) -> Result:
    """``keep_connected`` for asyncio."""
    pauses = _Pauses()
    while True:
        pauses.begin()
        try:
            return await session(settings)
        except LOST as error:
            settings = _with_more_time(settings)
            await asyncio.sleep(pauses.after(error))


class _Pauses:
    """How long to wait before the next session: longer and longer while each is lost soon after it began."""

    def __init__(self) -> None:
        self._began = 0.0
        self._longest = 0.0

    def begin(self) -> None:
        self._began = time.monotonic()

    def after(self, error: BaseException) -> float:
        """Log the loss; the seconds to wait. Random, so that not all clients of a restarted broker come at once."""
        log.warning("%s; connecting again", error)
        steady = time.monotonic() - self._began > STEADY_SECONDS
        self._longest = 0.5 if steady else min(5.0, 2 * self._longest + 0.5)
        return random.uniform(0.1, self._longest)


def _with_more_time(settings: Own) -> Own:
    return replace(settings, connect_timeout=settings.reconnect_timeout)


def backing_off(
    limit: float | Callable[[], float],
    *,
    sleep: Callable[[float], None] = time.sleep,
    retry: Callable[[BaseException], bool] | None = None,
    before_sleep: Callable[[RetryCallState], None] | None = None,
) -> Retrying:
    """Call a function again while it raises a transient error, for ``limit`` seconds, with back-off and full jitter.

    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)
    """

    def spent(state: RetryCallState) -> bool:
        seconds = limit() if callable(limit) else limit
        return (state.seconds_since_start or 0.0) + state.upcoming_sleep >= seconds

    return Retrying(
        stop=spent,
        wait=wait_random_exponential(multiplier=0.1, max=5),
        retry=retry_if_exception(retry or is_transient),
        before_sleep=before_sleep,
        sleep=sleep,
        reraise=True,
    )


def is_transient(error: BaseException) -> bool:
    """Whether it makes sense to try again."""
    return bool(getattr(error, "transient", False))


class _Tried:
    """One attempt at each address: the address in hand, and the error that says the most."""

    def __init__(self, port: int | None, service: str, explain: Explain | None) -> None:
        self._port = port
        self._service = service
        self._explain = explain
        self._address = Address("", 0)
        self._failure: BaseException | None = None

    def place(self, address: Address) -> Address:
        self._address = Address(address.host, self._port or address.port)
        return self._address

    def note(self, error: BaseException) -> None:
        readable = error
        if not isinstance(error, RobustPikaError):
            explained = self._explain(error, self._address) if self._explain else None
            readable = explained or explain_socket(error, self._address, self._service) or error
        # A refusal says more than an address that cannot be reached.
        if self._failure is None or (is_transient(self._failure) and not is_transient(readable)):
            self._failure = readable

    def failure(self) -> BaseException:
        assert self._failure is not None, "there are no addresses"
        return self._failure


def _open(choice: pika.ConnectionParameters) -> Connection:
    """Connect to the first address of the host that answers. Raises the most telling of their errors."""
    first: Exception | None = None
    # A name can have several: localhost is ::1 and 127.0.0.1. pika would raise the error of the last, even if it is
    # that this machine has no IPv6, and another address has refused the password.
    found = socket.getaddrinfo(choice.host, choice.port, type=socket.SOCK_STREAM)
    for host in dict.fromkeys(str(entry[4][0]) for entry in found):
        parameters = copy.copy(choice)
        parameters.host = host
        try:
            return Connection(parameters)
        except PIKA_ERRORS as error:
            inner = innermost(error)
            if isinstance(inner, ssl.SSLError) or not isinstance(inner, OSError):
                raise
            first = first or error
    assert first is not None
    raise first
