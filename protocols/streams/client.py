"""The stream protocol with our settings, through rstream, and what goes wrong there as one readable line.

By itself, rstream logs an exception of a callback and goes on with the next message, and calls a handler when the
connection is lost. A Link raises both where the program waits.
"""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import place

from common.config import Address, Settings
from common.errors import ExitCode
from extras.optional import packages_for
from robust_pika import ConnectionFailure, ConnectionLost, reach_async
from robust_pika.connecting import tls_context
from robust_pika.errors import AccessRefused, HostNotFound, LoginRefused, NoAnswer, NotTaken, VhostNotFound

with packages_for(__file__):
    from rstream import (
        Consumer,
        ConsumerOffsetSpecification,
        MessageContext,
        OffsetType,
        OnClosedErrorInfo,
        Producer,
        SuperStreamConsumer,
        exceptions,
    )
    from rstream.recovery import BackOffRecoveryStrategy

SERVICE = "the stream port (5552, with TLS 5551; see RABBITMQ_STREAM_PORT and rabbitmq-plugins enable rabbitmq_stream)"
START_TIMEOUT = 15.0
Entity = TypeVar("Entity", Producer, Consumer, SuperStreamConsumer)


class NotStreams(NoAnswer):
    """Something answers at the port, but not in the stream protocol, or not yet."""


class StreamGone(ConnectionFailure):
    """The stream does not exist (any more)."""

    exit_code = ExitCode.DECLARED_OTHERWISE


class Link:
    """What a program waits on: it ends a wait when the connection is lost or a callback has failed."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._failure: Exception | None = None
        self._listening = asyncio.Event()

    def on_close(self, info: OnClosedErrorInfo) -> None:
        """rstream's ``on_close_handler``."""
        self.fail(ConnectionLost(f"the stream connection is lost ({info.reason})"))

    def fail(self, error: Exception) -> None:
        """Let the wait end with this error; the first one counts."""
        self._failure = self._failure or error
        self._changed.set()

    def changed(self) -> None:
        """Let the wait look at its condition again."""
        self._changed.set()

    async def until(self, condition: Callable[[], bool], limit: float | None = None) -> None:
        """Return when the condition holds. Raises what went wrong; NotTaken if nothing comes for ``limit`` seconds."""
        self._listening.set()
        while True:
            if self._failure:
                raise self._failure
            if condition():
                return
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), limit)
            except asyncio.TimeoutError:
                raise NotTaken(f"RabbitMQ has said nothing for {limit:g} s (in a memory or disk alarm?)") from None

    async def lost(self) -> None:
        """Wait until something goes wrong, and raise it."""
        await self.until(lambda: False)

    def careful(
        self, callback: Callable[[bytes, MessageContext], Awaitable[None]]
    ) -> Callable[[bytes, MessageContext], Awaitable[None]]:
        """The callback, called once the program waits; its first exception is raised there, and ends the calls."""

        async def call(message: bytes, context: MessageContext) -> None:
            await self._listening.wait()
            if self._failure is None:
                try:
                    await callback(message, context)
                except Exception as error:
                    self.fail(error)
                except SystemExit as left:
                    # The output cannot be written any more.
                    self.fail(Left(left.code))

        return call


class Left(Exception):
    """A callback wants the program to end with this exit code."""

    def __init__(self, code: object) -> None:
        super().__init__(code)
        self.code = code


@asynccontextmanager
async def connected(
    kind: type[Entity], name: str, settings: Settings, **more: Any
) -> AsyncIterator[tuple[Entity, Link]]:
    """One of rstream's classes, started at the first address that answers, and its Link.

    Raises a ConnectionFailure whose text is one readable line.
    """

    async def start(address: Address) -> tuple[Entity, Link]:
        link = Link()
        entity = kind(
            address.host,
            address.port,
            vhost=settings.vhost,
            username=settings.user,
            password=settings.password,
            ssl_context=tls_context(settings),
            heartbeat=settings.heartbeat,
            connection_name=name,
            on_close_handler=link.on_close,
            # It would begin at offset 0 again if nothing had come yet; we know better where we are.
            recovery_strategy=BackOffRecoveryStrategy(enable=False),
            **more,
        )
        try:
            await asyncio.wait_for(entity.start(), START_TIMEOUT)
        except BaseException:
            await _close(entity)
            raise
        return entity, link

    entity, link = await reach_async(
        settings,
        start,
        port=settings.stream_port,
        service=SERVICE,
        errors=(exceptions.ServerError, OSError, asyncio.TimeoutError, AssertionError),
        explain=lambda error, where: explain(error, where, settings),
    )
    try:
        yield entity, link
    except exceptions.ServerError as error:
        raise explain(error, settings.addresses[0], settings) or error from error
    except (ConnectionError, asyncio.TimeoutError) as error:
        raise ConnectionLost(f"the stream connection is lost ({error or 'no answer'})") from error
    finally:
        await _close(entity)


async def _close(entity: Entity) -> None:
    # What is lost already cannot be closed properly.
    with suppress(Exception):
        await asyncio.wait_for(entity.close(), START_TIMEOUT)


def explain(error: BaseException, where: Address, settings: Settings) -> ConnectionFailure | None:
    """What rstream said, as one readable line; None for errors of sockets and of TLS."""
    user, vhost = f"user {settings.user!r}", f"virtual host {settings.vhost!r}"
    kind: type[ConnectionFailure]
    match error:
        case exceptions.AuthenticationFailure() | exceptions.SASLAuthenticationFailureLoopback():
            kind, text = LoginRefused, f"RabbitMQ at {where} refused {user}"
        case exceptions.AccessRefused():
            kind, text = AccessRefused, f"{user} may not do this in {vhost}"
        case exceptions.VirtualHostAccessFailure():
            kind, text = VhostNotFound, f"{vhost} does not exist at {where}, or is not available"
        case exceptions.StreamDoesNotExist():
            kind, text = StreamGone, "the stream does not exist any more: somebody has deleted it"
        case exceptions.ServerError():
            kind, text = ConnectionLost, f"RabbitMQ at {where} says {type(error).__name__} {error}".rstrip()
        case asyncio.TimeoutError() | AssertionError():
            kind, text = NotStreams, f"what answers at {where} does not speak the stream protocol; expected {SERVICE}"
        case socket.gaierror():
            text = f"no address is known for {where}, or for the host name that RabbitMQ advertises there"
            kind = HostNotFound
        case _:
            return None
    return kind(text, where=str(where), service=SERVICE)


def specification(begin: place.Place) -> ConsumerOffsetSpecification:
    """Where to begin, as the stream protocol wants it: times are milliseconds since 1970."""
    if begin.offset is not None:
        return ConsumerOffsetSpecification(OffsetType.OFFSET, begin.offset)
    if begin.seconds_ago is not None:
        return ConsumerOffsetSpecification(OffsetType.TIMESTAMP, round((time.time() - begin.seconds_ago) * 1000))
    return ConsumerOffsetSpecification(OffsetType[begin.text.upper()])


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run an asynchronous ``main`` to its end; Ctrl-C and SIGTERM cancel it, so that it can still tidy up."""
    logging.getLogger("rstream").setLevel(logging.CRITICAL + 1)

    async def stoppable() -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        # Tasks of rstream's own fail with a lost connection, of which we know; asyncio would print their tracebacks.
        loop.set_exception_handler(lambda _loop, _context: None)
        await main()

    try:
        # Cancelled by a signal: that is how these programs are meant to end.
        with suppress(asyncio.CancelledError):
            asyncio.run(stoppable())
    except Left as left:
        raise SystemExit(left.code) from None
