"""AMQP 1.0 with our settings, through RabbitMQ's own client, and what goes wrong there as one readable line."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import topology

from common.config import Address, Settings
from common.connection import connect, require
from extras.optional import packages_for
from robust_pika import ConnectionLost, reach
from robust_pika.errors import ChannelFailure

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
    )
    from rabbitmq_amqp_python_client.qpid.proton import ConnectionException, LinkException, ProtonException

NEEDS = (4, 0)
WATCH_SECONDS = 0.5


class Watchful(AMQPMessagingHandler):
    """A handler that ends a consumer's run(), with ConnectionLost, when connection or queue are gone.

    By itself, run() would wait for ever.
    """

    def on_link_opened(self, event: Event) -> None:
        """The subscription is there."""
        self._connection = event.connection
        event.container.schedule(WATCH_SECONDS, self)

    def on_timer_task(self, event: Event) -> None:
        """Look whether there still is a connection."""
        transport = self._connection.transport if self._connection else None
        if transport is None or transport.closed:
            raise ConnectionLost("the AMQP 1.0 connection is lost")
        event.container.schedule(WATCH_SECONDS, self)

    def on_link_error(self, event: Event) -> None:
        """RabbitMQ has ended the subscription, and says why."""
        condition = event.link.remote_condition if event.link else None
        if condition is not None and condition.name == "amqp:resource-deleted":
            raise ConnectionLost(f"RabbitMQ has ended the subscription: {condition.description}")
        raise ChannelFailure(f"RabbitMQ has refused the subscription: {condition}")


def text_of(value: object) -> str | None:
    """A symbol of AMQP 1.0 as a text; where there is none, this client says 'None'."""
    return None if value is None or str(value) in ("", "None") else str(value)


@contextmanager
def connected(name: str, settings: Settings) -> Iterator[Connection]:
    """A connection on which the topology is declared, to the first address that lets us in.

    Raises Unsupported for a RabbitMQ before 4.0, and a ConnectionFailure whose text is one readable line.
    """
    # It would log the errors that we raise.
    for library in ("proton", "rabbitmq_amqp_python_client"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
    where = _who_answers(name, settings)
    connection = _environment(where, settings).connection()
    try:
        connection.dial()
        topology.declare(connection.management())
        yield connection
    except LinkException as error:
        raise ChannelFailure(f"RabbitMQ at {where} refused: {error}") from None
    except (ConnectionException, ProtonException, OSError) as error:
        raise ConnectionLost(f"the AMQP 1.0 connection to {where} is lost ({type(error).__name__})") from None
    finally:
        # What is lost already cannot be closed properly.
        with suppress(Exception):
            connection.close()


def _who_answers(name: str, settings: Settings) -> Address:
    """The first address at which RabbitMQ accepts our login. AMQP 0-9-1 is used to ask: its errors say more."""

    def attempt(address: Address) -> Address:
        with connect(name, replace(settings, addresses=(address,)), deadline=0) as connection:
            require(connection, NEEDS, "RabbitMQ's AMQP 1.0 client")
        return address

    return reach(settings, attempt)


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
