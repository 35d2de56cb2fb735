"""aio-pika with our settings, and what goes wrong there as one readable line."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from pika import exceptions as pika_exceptions

from common import console
from common.config import Address, Settings
from extras.optional import packages_for
from robust_pika import RobustPikaError, connect, reach_async
from robust_pika.connecting import tls_context
from robust_pika.errors import BrokerUnavailable, NotRouted, NotTaken
from robust_pika.explaining import explain

with packages_for(__file__):
    from aio_pika import connect_robust
    from aio_pika.abc import AbstractRobustConnection
    from aio_pika.exceptions import AMQPError, ChannelClosed, DeliveryError, PublishError

RECONNECT_SECONDS = 1.0


def run(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run ``main(stop)`` in an event loop. SIGINT and SIGTERM set ``stop``; a second one leaves at once.

    Raises what ``main`` raises; an error of aio-pika as an error of robust_pika.
    """

    async def begin() -> None:
        stop = asyncio.Event()
        # aio-pika would log the errors that we raise.
        for library in ("aio_pika", "aiormq"):
            logging.getLogger(library).setLevel(logging.CRITICAL + 1)
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def stopped() -> None:
            if stop.is_set():
                task.cancel()
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            # Windows cannot; there Ctrl-C cancels everything.
            with suppress(NotImplementedError):
                loop.add_signal_handler(number, stopped)
        try:
            await main(stop)
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        except (AMQPError, TimeoutError, asyncio.TimeoutError) as error:
            raise explained(error, Settings.load()) from None

    asyncio.run(begin())


@asynccontextmanager
async def connected(
    name: str, settings: Settings, stop: asyncio.Event, on_return: Callable[[], None] = lambda: None
) -> AsyncIterator[AbstractRobustConnection]:
    """A robust connection: aio-pika makes it again when it is lost, with its channels, queues and consumers.

    One line says that it is lost, and ``on_return`` is called when all of it is there again. If that takes longer than
    ``settings.reconnect_timeout`` seconds, the program ends with BrokerUnavailable: aio-pika itself would try for ever.
    Raises a ConnectionFailure whose text is one readable line.
    """
    # aio-pika's errors say little. So robust_pika connects first: it waits for a broker that is starting, says what is
    # wrong with the settings, and finds out which of several hosts answers.
    where = await _who_answers(name, settings)
    context = tls_context(settings)
    connection = await connect_robust(
        host=where.host,
        port=where.port,
        login=settings.user,
        password=settings.password,
        virtualhost=settings.vhost,
        ssl=context is not None,
        ssl_context=context,
        timeout=settings.connect_timeout,
        heartbeat=settings.heartbeat,
        reconnect_interval=RECONNECT_SECONDS,
        client_properties={"connection_name": name},
    )
    loop = asyncio.get_running_loop()
    failure: BrokerUnavailable | None = None
    alarm: asyncio.TimerHandle | None = None
    leaving = False

    def give_up() -> None:
        nonlocal failure
        failure = BrokerUnavailable(f"RabbitMQ at {where} did not come back in {settings.reconnect_timeout:g} s")
        stop.set()

    def lost(_connection: object, _error: object) -> None:
        nonlocal alarm
        # It is called for each attempt that fails as well.
        if not leaving and alarm is None:
            console.warn(f"the connection to RabbitMQ at {where} broke; connecting again")
            alarm = loop.call_later(settings.reconnect_timeout, give_up)

    def back() -> None:
        nonlocal alarm
        if alarm is not None:
            alarm.cancel()
        alarm = None

    def returned(_connection: object) -> None:
        back()
        on_return()

    connection.close_callbacks.add(lost)
    connection.reconnect_callbacks.add(returned)
    try:
        yield connection
        if failure is not None:
            raise failure
    finally:
        leaving = True
        back()
        await connection.close()


async def _who_answers(name: str, settings: Settings) -> Address:
    """The first address at which RabbitMQ accepts our login. Raises a ConnectionFailure."""

    async def attempt(address: Address) -> Address:
        alone = replace(settings, addresses=(address,))
        connection = await asyncio.to_thread(connect, name, alone, deadline=0)
        connection.close()
        return address

    return await reach_async(settings, attempt)


def explained(error: BaseException, settings: Settings) -> RobustPikaError:
    """What aio-pika raised, as one readable line."""
    match error:
        case PublishError():
            return NotRouted("RabbitMQ returned the message: no queue is bound for it")
        case DeliveryError():
            return NotTaken("RabbitMQ did not take the message: its queue may be full")
        case ChannelClosed(args=(int(code), str(text), *_)):
            return explain(pika_exceptions.ChannelClosedByBroker(code, text), settings)
        case ChannelClosed(args=(str(text), *_)):
            # The classes stand for the codes.
            code = 406 if "PRECONDITION_FAILED" in text else 403 if "ACCESS_REFUSED" in text else 404
            return explain(pika_exceptions.ChannelClosedByBroker(code, text), settings)
        case TimeoutError() | asyncio.TimeoutError():
            return NotTaken("RabbitMQ does not answer (in a memory or disk alarm?)")
    return BrokerUnavailable(f"the connection to RabbitMQ broke: {error}")
