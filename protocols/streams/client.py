"""The stream port with our settings, through rstream; and whatever goes wrong there as one readable line.

Left alone, rstream logs an exception of a callback and goes on with the next message, and tells of a lost connection
only a handler. A Link makes exceptions of both, where the program waits.
"""

import asyncio
import logging
import random
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import place

from common import console
from common.config import Address, Settings
from common.errors import ExitCode, Failure
from extras.optional import packages_for
from robust_pika.connecting import tls_context
from robust_pika.errors import (
    AccessRefused,
    BrokerUnavailable,
    ConnectionFailure,
    HostNotFound,
    TlsFailure,
    VhostNotFound,
)

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

START_TIMEOUT = 15.0
Entity = TypeVar("Entity", Producer, Consumer, SuperStreamConsumer)


class Disconnected(ConnectionFailure):
    """A connection that worked is lost."""

    transient = True


class NotStreams(ConnectionFailure):
    """Something answers at the port, but not in the stream protocol."""

    exit_code = ExitCode.PROTOCOL


class StreamGone(ConnectionFailure):
    """The stream does not exist (any more)."""

    exit_code = ExitCode.DECLARED_OTHERWISE


class NotConfirmed(Failure):
    """RabbitMQ has refused messages, or does not confirm them."""

    exit_code = ExitCode.NOT_CONFIRMED


class Silent(Failure):
    """RabbitMQ says nothing for too long."""

    exit_code = ExitCode.NOT_CONFIRMED


class Link:
    """What a program waits on: it ends a wait when the connection is lost or a callback has failed."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._failure: Exception | None = None
        self._listening = asyncio.Event()

    def on_close(self, info: OnClosedErrorInfo) -> None:
        """rstream's ``on_close_handler``."""
        self.fail(Disconnected(f"the stream connection is lost ({info.reason})"))

    def fail(self, error: Exception) -> None:
        """Let the wait end with this error; the first one counts."""
        self._failure = self._failure or error
        self._changed.set()

    def changed(self) -> None:
        """Let the wait look at its condition again."""
        self._changed.set()

    async def until(self, condition: Callable[[], bool], limit: float | None = None) -> None:
        """Return when the condition holds. Raises what went wrong; Silent if nothing changes for ``limit`` seconds."""
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
                raise Silent(f"RabbitMQ has said nothing for {limit:g} s; is it in a memory or disk alarm?") from None

    async def lost(self) -> None:
        """Wait until something goes wrong, and raise it."""
        await self.until(lambda: False)

    def careful(
        self, callback: Callable[[bytes, MessageContext], Awaitable[None]]
    ) -> Callable[[bytes, MessageContext], Awaitable[None]]:
        """The callback, called from when the program waits; what it raises ends the wait, and is the end of it."""

        async def call(message: bytes, context: MessageContext) -> None:
            await self._listening.wait()
            if self._failure is None:
                try:
                    await callback(message, context)
                except Exception as error:
                    self.fail(error)
                except SystemExit as left:
                    # What we print reaches nobody any more.
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
    """One of rstream's classes, started, and its Link; the addresses of the settings are tried in turn.

    Raises a ConnectionFailure whose text is one readable line.
    """
    link = Link()
    entity = await _start(kind, name, settings, link, more)
    try:
        yield entity, link
    except exceptions.ServerError as error:
        raise explain(error, settings.addresses[0], settings) from error
    except (ConnectionError, asyncio.TimeoutError) as error:
        raise Disconnected(f"the stream connection is lost ({error or 'no answer'})") from error
    finally:
        # What is lost already cannot be closed properly.
        with suppress(Exception):
            await asyncio.wait_for(entity.close(), START_TIMEOUT)


async def _start(kind: type[Entity], name: str, settings: Settings, link: Link, more: dict[str, Any]) -> Entity:
    failure: ConnectionFailure | None = None
    for address in settings.addresses:
        entity = kind(
            address.host,
            settings.stream_port,
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
        except (exceptions.ServerError, OSError, asyncio.TimeoutError, AssertionError) as error:
            failure = explain(error, Address(address.host, settings.stream_port), settings)
        else:
            return entity
    assert failure is not None
    raise failure


def explain(error: Exception, where: Address, settings: Settings) -> ConnectionFailure:  # noqa: PLR0911
    """What rstream or the socket said, as one line that says how to mend it."""
    match error:
        case exceptions.AuthenticationFailure() | exceptions.SASLAuthenticationFailureLoopback():
            return AccessRefused(f"the stream port {where} refused user {settings.user!r}; check RABBITMQ_PASSWORD")
        case exceptions.AccessRefused():
            return AccessRefused(f"user {settings.user!r} may not do this in virtual host {settings.vhost!r}")
        case exceptions.VirtualHostAccessFailure():
            return VhostNotFound(f"virtual host {settings.vhost!r} does not exist for the stream port {where}")
        case exceptions.StreamDoesNotExist():
            return StreamGone("the stream does not exist any more: somebody has deleted it")
        case exceptions.ServerError():
            return Disconnected(f"the stream port {where} says {type(error).__name__} {error}".rstrip())
        case asyncio.TimeoutError():
            return NotStreams(
                f"what answers at {where} does not speak the stream protocol; its port is 5552 (5551 with TLS), "
                "see RABBITMQ_STREAM_PORT"
            )
        case ssl.SSLError():
            return TlsFailure(f"TLS with the stream port {where} failed ({error.reason})")
        case socket.gaierror():
            return HostNotFound(
                f"no address is known for the stream port {where}, or for the host name that RabbitMQ advertises there"
            )
        case _:
            return BrokerUnavailable(
                f"nothing answers at {where}, the stream port: rabbitmq-plugins enable rabbitmq_stream, "
                "or set RABBITMQ_STREAM_PORT"
            )


def specification(begin: place.Place) -> ConsumerOffsetSpecification:
    """Where to begin, as the stream protocol wants it: times are milliseconds since 1970."""
    if begin.offset is not None:
        return ConsumerOffsetSpecification(OffsetType.OFFSET, begin.offset)
    if begin.seconds_ago is not None:
        return ConsumerOffsetSpecification(OffsetType.TIMESTAMP, round((time.time() - begin.seconds_ago) * 1000))
    return ConsumerOffsetSpecification(OffsetType[begin.text.upper()])


async def persistently(settings: Settings, session: Callable[[], Awaitable[None]]) -> None:
    """Call ``session``, and again each time a connection that had worked is lost; it must know where it was.

    To connect again is tried for ``settings.reconnect_timeout`` seconds. Raises what ``session`` raised last.
    """
    deadline: float | None = None
    while True:
        try:
            return await session()
        except Disconnected as failure:
            deadline = time.monotonic() + settings.reconnect_timeout
            console.warn(f"{failure}; connecting again")
        except ConnectionFailure as failure:
            # What has worked may be silent for a while: a proxy whose broker is just coming back, for example.
            passing = failure.transient or isinstance(failure, NotStreams)
            if not passing or deadline is None or time.monotonic() > deadline:
                raise
        # At random, so that not all the clients of a restarted broker come at once.
        await asyncio.sleep(random.uniform(0.1, 1.0))


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
