"""Connecting to RabbitMQ: named, tried again with back-off, over several hosts, with TLS, and with readable errors."""

from __future__ import annotations

import copy
import re
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

import pika
from pika import exceptions, spec
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils.connection_workflow import (
    AMQPConnectionWorkflowFailed,
    AMQPConnectorException,
    AMQPConnectorSocketConnectError,
)
from tenacity import Retrying, retry_if_exception, stop_before_delay, wait_random_exponential

from common.config import Settings, SettingsError
from common.errors import ExitCode, Failure, Unsupported

Channel = BlockingChannel
"""The channel of a Connection: what a handler of ``basic_consume`` gets first."""

Opened = TypeVar("Opened")


class ConnectionFailure(Failure):
    """RabbitMQ cannot be reached, or it refused us; ``transient`` says whether to try again makes sense."""

    transient = False


class BrokerUnavailable(ConnectionFailure):
    """Nobody answers at the address, or the connection broke."""

    exit_code = ExitCode.UNAVAILABLE
    transient = True


class HostNotFound(ConnectionFailure):
    """The host's name has no address (yet: in a cluster, names appear when their owners start)."""

    exit_code = ExitCode.NO_HOST
    transient = True


class AccessRefused(ConnectionFailure):
    """Wrong user or password, or no permission."""

    exit_code = ExitCode.ACCESS


class VhostNotFound(ConnectionFailure):
    """The virtual host does not exist."""

    exit_code = ExitCode.NO_VHOST


class TlsFailure(ConnectionFailure):
    """The two sides do not agree on TLS, or the certificate cannot be trusted."""

    exit_code = ExitCode.PROTOCOL


class NotAmqp(ConnectionFailure):
    """Something answers, but it does not speak AMQP 0-9-1."""

    exit_code = ExitCode.PROTOCOL


class NoAnswer(NotAmqp):
    """Something accepts connections and says nothing: not AMQP, or the way to a broker that is still starting.

    Docker's proxy is such a way: it accepts before the broker does.
    """

    transient = True


EXCHANGE_PLUGINS = {
    "x-consistent-hash": "rabbitmq_consistent_hash_exchange",
    "x-random": "rabbitmq_random_exchange",
    "x-delayed-message": "rabbitmq_delayed_message_exchange",
}
"""The plugins that bring exchange types of their own."""


class PluginMissing(ConnectionFailure):
    """The broker does not have a type of exchange, which a plugin brings."""

    exit_code = ExitCode.UNSUPPORTED


class DeclaredOtherwise(ConnectionFailure):
    """A queue or exchange of this name exists with other properties (406 PRECONDITION_FAILED)."""

    exit_code = ExitCode.DECLARED_OTHERWISE


class NotRouted(ConnectionFailure):
    """A mandatory message was returned: no queue is bound for it."""

    exit_code = ExitCode.UNROUTABLE


class NotTaken(ConnectionFailure):
    """A message was nacked: its queue is full, or failed to store it."""

    exit_code = ExitCode.NOT_CONFIRMED


class ChannelFailure(ConnectionFailure):
    """The broker closed the channel or the connection for another reason, which the text quotes."""

    exit_code = ExitCode.PROTOCOL


class ConsumerCancelled(ConnectionFailure):
    """The broker cancelled the consumer: its queue was deleted, or a message was not acknowledged in time."""

    transient = True


class Connection(pika.BlockingConnection):
    """pika's BlockingConnection, and the properties that the server sent when it was opened.

    When the broker cancels a consumer, ``start_consuming`` raises ConsumerCancelled; pika's own would just return.
    """

    def __init__(self, parameters: pika.ConnectionParameters) -> None:
        super().__init__(parameters)
        credentials = parameters.credentials
        self.server_properties: dict[str, Any] = getattr(credentials, "server_properties", {})

    def __enter__(self) -> Connection:
        return self

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
        # pika copies its parameters; we want to see what the copy was told.
        return self

    def response_for(self, start: spec.Connection.Start) -> tuple[str | None, bytes | None]:
        self.server_properties = dict(start.server_properties or {})
        answer: tuple[str | None, bytes | None] = super().response_for(start)
        return answer


def parameters(name: str, settings: Settings) -> list[pika.ConnectionParameters]:
    """pika's parameters, one per address. Raises SettingsError if a TLS file cannot be used."""
    context = tls_context(settings)
    return [
        pika.ConnectionParameters(
            host=address.host,
            port=address.port,
            virtual_host=settings.vhost,
            credentials=_Credentials(settings.user, settings.password),
            ssl_options=pika.SSLOptions(context, address.host) if context else None,
            heartbeat=settings.heartbeat,
            # Without it, a publisher hangs for ever while the broker is in a memory or disk alarm.
            blocked_connection_timeout=settings.blocked_timeout,
            # The name by which the management UI shows this connection.
            client_properties={"connection_name": name},
            # One attempt may not eat the whole deadline: the next host might answer.
            socket_timeout=min(5.0, settings.connect_timeout),
            stack_timeout=_stack_timeout(settings),
        )
        for address in settings.addresses
    ]


def _stack_timeout(settings: Settings) -> float:
    """Seconds in which a host must have said all that opens a connection."""
    return min(10.0, settings.connect_timeout)


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """The TLS context of the settings, with verification of certificate and host name; None without TLS."""
    if settings.tls is None:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.tls.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"RABBITMQ_CA_FILE is not a PEM certificate: {error}") from None
    if settings.tls.cert_file:
        try:
            context.load_cert_chain(settings.tls.cert_file, settings.tls.key_file)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"RABBITMQ_CERT_FILE and RABBITMQ_KEY_FILE do not fit: {error}") from None
    return context


def connect(name: str, settings: Settings, *, deadline: float | None = None) -> Connection:
    """Open a connection that the management UI shows as ``name``.

    All addresses are tried in turn, again and again with exponential back-off and full jitter (so that a
    thousand clients of a restarted broker do not come back at the same instant), for ``deadline`` seconds
    (``settings.connect_timeout`` by default). What waiting cannot mend (a wrong password, a missing virtual
    host, TLS) is raised at once. Raises a ConnectionFailure whose text is one readable line.
    """
    return reach(name, settings, _open, deadline=deadline)


def reach(
    name: str, settings: Settings, opened: Callable[[pika.ConnectionParameters], Opened], *, deadline: float | None
) -> Opened:
    """``connect`` for other kinds of connections: what ``opened`` makes of the first address that answers.

    It raises pika's own errors, or the system's; they are explained, and raised, as those of ``connect`` are.
    """
    limit = settings.connect_timeout if deadline is None else deadline
    choices = parameters(name, settings)

    def attempt() -> Opened:
        # One at a time rather than pika's own list: each host's answer is then known by its own error.
        failure: Failure | None = None
        for choice in choices:
            try:
                return opened(choice)
            except (exceptions.AMQPError, AMQPConnectorException, OSError) as error:
                told = explain(error, settings)
                # A refusal says more than a host that is down.
                if failure is None or getattr(failure, "transient", False):
                    failure = told
        assert failure is not None
        raise failure

    retrying = Retrying(
        stop=stop_before_delay(limit),
        wait=wait_random_exponential(multiplier=0.1, max=5),
        retry=retry_if_exception(lambda error: getattr(error, "transient", False)),
        reraise=True,
    )
    return retrying(attempt)


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
        except (exceptions.AMQPError, AMQPConnectorException, OSError) as error:
            inner = _innermost(error)
            if isinstance(inner, ssl.SSLError) or not isinstance(inner, OSError):
                raise
            first = first or error
    assert first is not None
    raise first


def explain(error: BaseException, settings: Settings) -> Failure:
    """One readable line for what pika, the socket or TLS raised; the password is never in it."""
    if isinstance(error, Failure):
        return error
    where = ", ".join(map(str, settings.addresses))
    error = _innermost(error)
    return _explain_socket(error, where) or _explain_amqp(error, where, settings)


def _innermost(error: BaseException) -> BaseException:
    """What pika wrapped: in the arguments of its own error, in a list of attempts, in the phase of an attempt."""
    while True:
        inner: object = None
        if isinstance(error, AMQPConnectionWorkflowFailed):
            # One for each address of a host; that it could not be reached says the least.
            inner = next(
                (item for item in error.exceptions if not isinstance(item, AMQPConnectorSocketConnectError)),
                error.exceptions[0],
            )
        elif isinstance(error, AMQPConnectorException):
            inner = getattr(error, "exception", None)
        elif isinstance(error, exceptions.AMQPConnectionError) and not isinstance(error, exceptions.ConnectionClosed):
            inner = next((item for item in error.args if isinstance(item, AMQPConnectorException)), None)
        if not isinstance(inner, BaseException):
            return error
        error = inner


def _explain_socket(error: BaseException, where: str) -> ConnectionFailure | None:
    match error:
        case socket.gaierror():
            return HostNotFound(f"no address is known for {where}; check RABBITMQ_HOST or AMQP_URL")
        case ssl.SSLCertVerificationError():
            return TlsFailure(
                f"the certificate of {where} cannot be trusted ({error.verify_message}); set RABBITMQ_CA_FILE"
            )
        case ssl.SSLError() | ssl.CertificateError():
            return TlsFailure(
                f"TLS with {where} failed ({getattr(error, 'reason', None) or error}); "
                "is this the broker's TLS port (5671), and do both sides use TLS?"
            )
        case ConnectionRefusedError():
            return BrokerUnavailable(f"nothing answers at {where}; start RabbitMQ with: make broker")
        case OSError():
            return BrokerUnavailable(f"RabbitMQ at {where} cannot be reached: {error.strerror or error}")
    return None


def _explain_amqp(error: BaseException, where: str, settings: Settings) -> ConnectionFailure:  # noqa: PLR0911
    text = str(error)
    match error:
        case exceptions.UnroutableError():
            return NotRouted(f"RabbitMQ at {where} returned the message: no queue is bound for it; start its consumer")
        case exceptions.NackError():
            return NotTaken(
                f"RabbitMQ at {where} did not take the message: its queue is full, perhaps; try again later"
            )
        # pika guesses them from the moment at which a connection ended; only a broker that says so has refused.
        case exceptions.ProbableAuthenticationError() | exceptions.ProbableAccessDeniedError() if (
            "ConnectionClosedByBroker" not in text
        ):
            return BrokerUnavailable(f"the connection to RabbitMQ at {where} broke while it was opened")
        case exceptions.ProbableAccessDeniedError() if "is down" in text or "limit" in text:
            return BrokerUnavailable(f"virtual host {settings.vhost!r} at {where} is not available now: {text}")
        case exceptions.ProbableAuthenticationError() | exceptions.AuthenticationError():
            return AccessRefused(
                f"RabbitMQ at {where} refused user {settings.user!r}: wrong user name or password; "
                "check RABBITMQ_USER and RABBITMQ_PASSWORD or AMQP_URL"
            )
        case exceptions.ProbableAccessDeniedError() if "access to vhost" in text:
            return AccessRefused(f"user {settings.user!r} has no permission for virtual host {settings.vhost!r}")
        case exceptions.ProbableAccessDeniedError():
            return VhostNotFound(
                f"virtual host {settings.vhost!r} does not exist at {where}; "
                "create it, or check RABBITMQ_VHOST or AMQP_URL"
            )
        case exceptions.ChannelClosedByBroker() | exceptions.ConnectionClosedByBroker():
            what = "channel" if isinstance(error, exceptions.ChannelClosedByBroker) else "connection"
            return _explain_close(what, error.reply_code, error.reply_text, where)
        case exceptions.ProtocolSyntaxError():
            return NotAmqp(f"what answers at {where} does not speak AMQP 0-9-1")
        case exceptions.IncompatibleProtocolError():
            return NoAnswer(
                f"what answers at {where} closed the connection at once; does it speak AMQP, or expect TLS?"
            )
    if type(error).__name__ == "AMQPConnectorStackTimeout":
        return NoAnswer(
            f"what answers at {where} does not speak AMQP 0-9-1 (the port of the management UI, perhaps?), "
            f"or is too busy to do so within {_stack_timeout(settings):g} s; RABBITMQ_CONNECT_TIMEOUT gives it more"
        )
    return BrokerUnavailable(f"the connection to RabbitMQ at {where} broke: {text or type(error).__name__}")


def _explain_close(what: str, code: int, text: str, where: str) -> ConnectionFailure:
    mismatch = re.search(r"inequivalent arg '([^']+)' for (\w+) '([^']*)'", text)
    if code == 406 and mismatch:
        argument, kind, name = mismatch.groups()
        cost = " (its messages go too)" if kind == "queue" else ""
        return DeclaredOtherwise(
            f"{kind} {name!r} exists with another {argument!r}; delete it{cost} or use another name ({text})"
        )
    if unknown := re.search(r"unknown exchange type '([^']+)'", text):
        plugin = EXCHANGE_PLUGINS.get(unknown[1])
        mend = f"enable its plugin: rabbitmq-plugins enable {plugin}" if plugin else "is a plugin missing?"
        return PluginMissing(f"RabbitMQ at {where} has no exchanges of type {unknown[1]!r}; {mend}")
    if code == 403:
        return AccessRefused(f"RabbitMQ at {where} refused: {text}")
    # 320: an operator closed the connection or the node is going down; 541: the node failed inside.
    failure: Any = BrokerUnavailable if code in (320, 541) else ChannelFailure
    return failure(f"RabbitMQ at {where} closed the {what}: {code} {text}")  # type: ignore[no-any-return]


def server_version(connection: Connection) -> tuple[int, int, int]:
    """The broker's version, from the properties it sent when the connection was opened."""
    raw = connection.server_properties.get("version", "0.0.0")
    digits = [int(number) for number in re.findall(r"\d+", raw.decode() if isinstance(raw, bytes) else str(raw))]
    major, minor, patch = [*digits, 0, 0, 0][:3]
    return major, minor, patch


def require(connection: Connection, minimum: tuple[int, ...], what: str) -> None:
    """Raise Unsupported, with one line, if the broker is older than ``minimum``."""
    version = server_version(connection)
    if version < minimum:
        needed, found = (".".join(map(str, numbers)) for numbers in (minimum, version))
        raise Unsupported(f"{what} needs RabbitMQ {needed} or later; this broker is {found}")
