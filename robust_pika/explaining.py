"""One readable line for what a socket, TLS or pika raised. The password is never in it."""

from __future__ import annotations

import re
import socket
import ssl

from pika import exceptions
from pika.adapters.utils.connection_workflow import (
    AMQPConnectionWorkflowFailed,
    AMQPConnectorException,
    AMQPConnectorSocketConnectError,
)

from robust_pika.errors import (
    AccessRefused,
    BrokerUnavailable,
    CertificateNotTrusted,
    ChannelFailure,
    ConnectionFailure,
    ConnectionRefused,
    DeclaredOtherwise,
    HostNotFound,
    LoginRefused,
    NoAnswer,
    NotAmqp,
    NotRouted,
    NotTaken,
    PluginMissing,
    RobustPikaError,
    TlsFailure,
    VhostNotFound,
)
from robust_pika.settings import ConnectionSettings

CONNECTION_FORCED = 320
"""An operator closed the connection, or the node is shutting down."""
INTERNAL_ERROR = 541
"""The node failed inside. Until it has recovered from a crash, it answers with this, too."""

EXCHANGE_PLUGINS = {
    "x-consistent-hash": "rabbitmq_consistent_hash_exchange",
    "x-random": "rabbitmq_random_exchange",
    "x-delayed-message": "rabbitmq_delayed_message_exchange",
}
"""Exchange types that plugins provide."""


def explain(error: BaseException, settings: ConnectionSettings) -> RobustPikaError:
    """What went wrong, with one readable line as its text; an error of this library is returned as it is."""
    if isinstance(error, RobustPikaError):
        return error
    where = settings.where
    error = innermost(error)
    return explain_socket(error, where) or _explain_amqp(error, where, settings)


def explain_socket(error: BaseException, where: object, service: str = "RabbitMQ") -> ConnectionFailure | None:
    """The same for an error of a socket or of TLS, whichever protocol is spoken there; None for another error.

    ``where`` is the address, ``service`` what was expected there, such as ``the MQTT port``.
    """
    at = str(where) if service == "RabbitMQ" else f"{where}, {service}"
    kind: type[ConnectionFailure]
    match error:
        case socket.gaierror():
            kind, text = HostNotFound, f"no address is known for {at}"
        case ssl.SSLCertVerificationError():
            kind, text = CertificateNotTrusted, f"the certificate of {at} cannot be trusted ({error.verify_message})"
        case ssl.SSLError() | ssl.CertificateError():
            reason = getattr(error, "reason", None) or error
            kind, text = (
                TlsFailure,
                f"TLS with {at} failed ({reason}); is this its TLS port, and do both sides use TLS?",
            )
        case ConnectionRefusedError():
            kind, text = ConnectionRefused, f"nothing answers at {at}"
        case OSError():
            kind, text = BrokerUnavailable, f"{service} at {where} cannot be reached: {error.strerror or error}"
        case _:
            return None
    return kind(text, where=str(where), service=service)


def innermost(error: BaseException) -> BaseException:
    """What pika wrapped: in the arguments of its own error, in a list of attempts, in the phase of an attempt."""
    while True:
        inner: object = None
        if isinstance(error, AMQPConnectionWorkflowFailed):
            # One for each address of a host; that an address could not be reached says the least.
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


def stack_timeout(settings: ConnectionSettings) -> float:
    """Seconds that one address may take for all of AMQP's opening of a connection."""
    return min(10.0, settings.connect_timeout)


def _explain_amqp(error: BaseException, where: str, settings: ConnectionSettings) -> ConnectionFailure:
    text = str(error)
    kind: type[ConnectionFailure]
    match error:
        case exceptions.UnroutableError():
            kind, text = NotRouted, f"RabbitMQ at {where} returned the message: no queue is bound for it"
        case exceptions.NackError():
            kind, text = NotTaken, f"RabbitMQ at {where} did not take the message: its queue may be full"
        # pika guesses these two from the moment at which a connection ended; only the broker's own word counts.
        case exceptions.ProbableAuthenticationError() | exceptions.ProbableAccessDeniedError() if (
            "ConnectionClosedByBroker" not in text
        ):
            kind, text = BrokerUnavailable, f"the connection to RabbitMQ at {where} broke while it was opened"
        case exceptions.ProbableAccessDeniedError() if "is down" in text or "limit" in text:
            kind, text = BrokerUnavailable, f"virtual host {settings.vhost!r} at {where} is not available now: {text}"
        case exceptions.ProbableAuthenticationError() | exceptions.AuthenticationError():
            refused = f"RabbitMQ at {where} refused user {settings.user!r}"
            kind, text = LoginRefused, f"{refused}: wrong user name or password"
        case exceptions.ProbableAccessDeniedError() if "access to vhost" in text:
            text = f"user {settings.user!r} has no permission for virtual host {settings.vhost!r}"
            kind = AccessRefused
        case exceptions.ProbableAccessDeniedError():
            kind, text = VhostNotFound, f"virtual host {settings.vhost!r} does not exist at {where}"
        case exceptions.ChannelClosedByBroker() | exceptions.ConnectionClosedByBroker():
            what = "channel" if isinstance(error, exceptions.ChannelClosedByBroker) else "connection"
            kind, text = _explain_close(what, error.reply_code, error.reply_text, where)
        case exceptions.ProtocolSyntaxError():
            kind, text = NotAmqp, f"what answers at {where} does not speak AMQP 0-9-1"
        case exceptions.IncompatibleProtocolError():
            text = f"what answers at {where} closed the connection at once; does it speak AMQP, or expect TLS?"
            kind = NoAnswer
        case _ if type(error).__name__ == "AMQPConnectorStackTimeout":
            text = (
                f"what answers at {where} does not speak AMQP 0-9-1 (the port of the management UI, perhaps?), "
                f"or is too busy to do so within {stack_timeout(settings):g} s"
            )
            kind = NoAnswer
        case _:
            text = f"the connection to RabbitMQ at {where} broke: {text or type(error).__name__}"
            kind = BrokerUnavailable
    return kind(text, where=where)


def _explain_close(what: str, code: int, text: str, where: str) -> tuple[type[ConnectionFailure], str]:
    mismatch = re.search(r"inequivalent arg '([^']+)' for (\w+) '([^']*)'", text)
    if code == 406 and mismatch:
        argument, kind, name = mismatch.groups()
        cost = " (its messages go too)" if kind == "queue" else ""
        mend = f"delete it{cost} or use another name"
        return DeclaredOtherwise, f"{kind} {name!r} exists with another {argument!r}; {mend} ({text})"
    if unknown := re.search(r"unknown exchange type '([^']+)'", text):
        plugin = EXCHANGE_PLUGINS.get(unknown[1])
        mend = f"enable its plugin: rabbitmq-plugins enable {plugin}" if plugin else "is a plugin missing?"
        return PluginMissing, f"RabbitMQ at {where} has no exchanges of type {unknown[1]!r}; {mend}"
    if code == 403:
        return AccessRefused, f"RabbitMQ at {where} refused: {text}"
    passing = code in (CONNECTION_FORCED, INTERNAL_ERROR)
    return BrokerUnavailable if passing else ChannelFailure, f"RabbitMQ at {where} closed the {what}: {code} {text}"
