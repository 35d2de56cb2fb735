"""AMQP 1.0 with our settings, through RabbitMQ's own client, and what goes wrong there as one readable line."""

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import topology
from pika import exceptions as pika_exceptions

from common import console
from common.config import Address, Settings
from common.connection import connect, require
from common.errors import Failure
from common.optional import packages_for
from robust_pika import ConnectionFailure
from robust_pika.errors import BrokerUnavailable, ChannelFailure
from robust_pika.explaining import explain

with packages_for(__file__):
    from rabbitmq_amqp_python_client import (
        AMQPMessagingHandler,
        AmqpUri,
        Connection,
        Environment,
        Event,
        PosixClientCert,
        PosixSslConfigurationContext,
        RecoveryConfiguration,
        ValidationCodeException,
    )
    from rabbitmq_amqp_python_client.qpid.proton import ConnectionException, LinkException, ProtonException

NEEDS = (4, 0)
WATCH_SECONDS = 0.5


class Disconnected(ConnectionFailure):
    """A connection that worked is lost."""

    transient = True


class Watchful(AMQPMessagingHandler):
    """A handler that ends a consumer's run(), with Disconnected, when connection or queue are gone.

    Left alone, run() waits on for ever.
    """

    def on_link_opened(self, event: Event) -> None:
        """The subscription is there."""
        self._connection = event.connection
        event.container.schedule(WATCH_SECONDS, self)

    def on_timer_task(self, event: Event) -> None:
        """Look whether there still is a connection."""
        transport = self._connection.transport
        if transport is None or transport.closed:
            raise Disconnected("the AMQP 1.0 connection is lost")
        event.container.schedule(WATCH_SECONDS, self)

    def on_link_error(self, event: Event) -> None:
        """RabbitMQ has ended the subscription, and says why."""
        condition = event.link.remote_condition
        if condition is not None and condition.name == "amqp:resource-deleted":
            raise Disconnected(f"RabbitMQ has ended the subscription: {condition.description}")
        raise ChannelFailure(f"RabbitMQ has refused the subscription: {condition}")


def text_of(value: object) -> str | None:
    """A symbol of AMQP 1.0 as a text; where there is none, this client says 'None'."""
    return None if value is None or str(value) in ("", "None") else str(value)


@contextmanager
def connected(name: str, settings: Settings) -> Iterator[Connection]:
    """A connection on which the topology is declared, to the first address that lets us in.

    Raises Unsupported for a RabbitMQ before 4.0, and a ConnectionFailure whose text is one readable line.
    """
    # The client's library logs what we tell.
    for library in ("proton", "rabbitmq_amqp_python_client"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
    where = _who_answers(name, settings)
    connection = _environment(where, settings).connection()
    try:
        connection.dial()
        try:
            topology.declare(connection.management())
        except ValidationCodeException:
            # It says no more than "ErrPreconditionFailed". AMQP 0-9-1 tells which queue, and which argument.
            raise _declared_otherwise(name, settings) from None
        yield connection
    except LinkException as error:
        raise ChannelFailure(f"RabbitMQ at {where} refused: {error}") from None
    except (ConnectionException, ProtonException, OSError) as error:
        raise Disconnected(f"the AMQP 1.0 connection to {where} is lost ({type(error).__name__})") from None
    finally:
        # What is lost already cannot be closed properly.
        with suppress(Exception):
            connection.close()


def _who_answers(name: str, settings: Settings) -> Address:
    """The first address at which RabbitMQ lets us in. The course's own connection is asked: it tells what is wrong."""
    failure: Failure | None = None
    for address in settings.addresses:
        try:
            with connect(name, replace(settings, addresses=(address,))) as connection:
                require(connection, NEEDS, "RabbitMQ's AMQP 1.0 client")
            return address
        except ConnectionFailure as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _environment(where: Address, settings: Settings) -> Environment:
    context = None
    if settings.tls:
        pair = settings.tls.cert_file, settings.tls.key_file
        own = PosixClientCert(client_cert=str(pair[0]), client_key=str(pair[1])) if all(pair) else None
        context = PosixSslConfigurationContext(ca_cert=str(settings.tls.ca_file or ""), client_cert=own)
    uri = AmqpUri(
        schema="amqps" if settings.tls else "amqp",
        host=where.host,
        port=where.port,
        user=settings.user,
        password=settings.password,
        vhost=settings.vhost,
    )
    # It could connect again by itself, but would not say so, and not stop at Ctrl-C meanwhile.
    recovery = RecoveryConfiguration(active_recovery=False)
    return Environment(amqp_uri=uri, ssl_context=context, recovery_configuration=recovery)


def _declared_otherwise(name: str, settings: Settings) -> Failure:
    arguments = {
        topology.DEAD_LETTERS: {"x-queue-type": "quorum"},
        topology.QUEUE: {
            "x-queue-type": "quorum",
            "x-max-length": topology.ROOM,
            "x-overflow": "reject-publish",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": topology.DEAD_LETTERS,
            "x-dead-letter-strategy": "at-least-once",
        },
        topology.JOURNAL: {"x-queue-type": "stream", "x-max-length-bytes": 100_000_000},
    }
    with connect(name, settings) as connection:
        try:
            for queue, wanted in arguments.items():
                connection.channel().queue_declare(queue, durable=True, arguments=wanted)
            connection.channel().exchange_declare(topology.EXCHANGE, "direct", durable=True)
        except pika_exceptions.AMQPError as error:
            return explain(error, settings)
    return ChannelFailure("RabbitMQ refused the declarations, or the permission for them")


def persistently(settings: Settings, session: Callable[[], None]) -> None:
    """Call ``session``, and again each time a connection that had worked is lost.

    To connect again is tried for ``settings.reconnect_timeout`` seconds. Raises what ``session`` raised last.
    """
    deadline: float | None = None
    while True:
        try:
            return session()
        except Disconnected as failure:
            deadline = time.monotonic() + settings.reconnect_timeout
            console.warn(f"{failure}; connecting again")
        except BrokerUnavailable:
            if deadline is None or time.monotonic() > deadline:
                raise
        # At random, so that not all the clients of a restarted broker come at once.
        time.sleep(random.uniform(0.1, 1.0))
