"""One readable line for what a socket, TLS or pika raised. The password is never in it."""

from __future__ import annotations

import ast
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
    CertificateDemanded,
    CertificateNotTrusted,
    ChannelFailure,
    ClosedAfterTls,
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
ACCESS_REFUSED = 403
"""Wrong user name or password, or no permission."""
INTERNAL_ERROR = 541
"""The node failed inside. Until it has recovered from a crash, it answers with this, too."""

EXCHANGE_PLUGINS = {
    "x-consistent-hash": "rabbitmq_consistent_hash_exchange",
    "x-random": "rabbitmq_random_exchange",
    "x-delayed-message": "rabbitmq_delayed_message_exchange",
}
"""Exchange types that plugins provide."""

# OpenSSL's numbers for what is wrong with a certificate, and what mends it.
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
_OTHER_MENDS = {
    9: "is this machine's clock right?",
    10: "renew it, or is this machine's clock wrong?",
    62: "connect by a name that it has",
    64: "connect by a name that it has",
}
# What the other side of TLS says to a client whose certificate it misses or does not like.
_CERTIFICATE_ALERT = re.compile(r"\w*ALERT_\w*(?:CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)\w*")


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
            kind = CertificateNotTrusted if error.verify_code in _UNKNOWN_AUTHORITY else TlsFailure
            mend = _OTHER_MENDS.get(error.verify_code)
            text = f"the certificate of {at} cannot be trusted ({error.verify_message}){f'; {mend}' if mend else ''}"
        case ssl.SSLError() | ssl.CertificateError():
            kind, text = _explain_tls(str(getattr(error, "reason", None) or error), at)
        case ConnectionRefusedError():
            kind, text = ConnectionRefused, f"nothing answers at {at}"
        case OSError():
            kind, text = BrokerUnavailable, f"{service} at {where} cannot be reached: {error.strerror or error}"
        case _:
            return None
    return kind(text, where=str(where), service=service)


def _explain_tls(reason: str, at: str) -> tuple[type[ConnectionFailure], str]:
    if _CERTIFICATE_ALERT.fullmatch(reason):
        return CertificateDemanded, f"{at} refused TLS ({reason}); it demands a client certificate that it trusts"
    if reason.endswith("ALERT_HANDSHAKE_FAILURE"):
        # Most often, but a cipher that both have may be missing, too.
        return CertificateDemanded, f"{at} refused TLS ({reason}); does it demand a client certificate that it trusts?"
    question = "or does it demand a client certificate?" if "EOF" in reason else "and do both sides use TLS?"
    return TlsFailure, f"TLS with {at} failed ({reason}); is this its TLS port, {question}"


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
        case exceptions.ProbableAuthenticationError() | exceptions.ProbableAccessDeniedError():
            kind, text = _explain_refusal(error, where, settings)
        case exceptions.AuthenticationError():
            kind, text = LoginRefused, _login_refused(where, settings)
        case exceptions.ChannelClosedByBroker() | exceptions.ConnectionClosedByBroker():
            what = "channel" if isinstance(error, exceptions.ChannelClosedByBroker) else "connection"
            kind, text = _explain_close(what, error.reply_code, error.reply_text, where)
        case exceptions.ProtocolSyntaxError():
            kind, text = NotAmqp, f"what answers at {where} does not speak AMQP 0-9-1"
        case exceptions.IncompatibleProtocolError() if alert := re.search(r"\[SSL: (\w*ALERT\w*)\]", text):
            kind, text = _explain_tls(alert[1], where)
        case exceptions.IncompatibleProtocolError() if settings.tls:
            text = f"what answers at {where} closed the connection after the TLS handshake; does it speak AMQP, "
            text += "or demand a client certificate that it trusts?"
            kind = ClosedAfterTls
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


def _explain_refusal(
    error: exceptions.AMQPConnectionError, where: str, settings: ConnectionSettings
) -> tuple[type[ConnectionFailure], str]:
    """The connection ended while we logged in. pika guesses why from the moment; only the broker's own word counts."""
    said = re.match(r"ConnectionClosedByBroker: \((\d+)\) (.*)", str(error.args[0]), re.DOTALL)
    if said is None:
        return BrokerUnavailable, f"the connection to RabbitMQ at {where} broke while it was opened"
    code, reply = int(said[1]), str(ast.literal_eval(said[2]))
    if isinstance(error, exceptions.ProbableAuthenticationError) and code == ACCESS_REFUSED:
        return LoginRefused, _login_refused(where, settings)
    # Only how RabbitMQ's sentence begins and ends: between stand the names of the virtual host and the user.
    sentence = reply.partition(" - ")[2]
    if sentence.endswith((" is down", " is reached", " timeout")):
        return BrokerUnavailable, f"virtual host {settings.vhost!r} at {where} is not available now: {reply}"
    if sentence.startswith("vhost "):
        return VhostNotFound, f"virtual host {settings.vhost!r} does not exist at {where}"
    if sentence.startswith("access to vhost "):
        return AccessRefused, f"user {settings.user!r} has no permission for virtual host {settings.vhost!r}"
    return _explain_close("connection", code, reply, where)


def _login_refused(where: str, settings: ConnectionSettings) -> str:
    return f"RabbitMQ at {where} refused user {settings.user!r}: wrong user name or password"


def _explain_close(what: str, code: int, text: str, where: str) -> tuple[type[ConnectionFailure], str]:
    if mismatch := re.match(
        r"PRECONDITION_FAILED - inequivalent arg '([^']+)' for (\w+) '(.*?)(?:' in vhost '|$)", text
    ):
        argument, kind, name = mismatch.groups()
        cost = " (its messages go too)" if kind == "queue" else ""
        mend = f"delete it{cost} or use another name"
        return DeclaredOtherwise, f"{kind} {name!r} exists with another {argument!r}; {mend} ({text})"
    if unknown := re.fullmatch(r"[A-Z_]+ - unknown exchange type '(.+)'", text):
        plugin = EXCHANGE_PLUGINS.get(unknown[1])
        mend = f"enable its plugin: rabbitmq-plugins enable {plugin}" if plugin else "is a plugin missing?"
        return PluginMissing, f"RabbitMQ at {where} has no exchanges of type {unknown[1]!r}; {mend}"
    if code == ACCESS_REFUSED:
        return AccessRefused, f"RabbitMQ at {where} refused: {text}"
    passing = code in (CONNECTION_FORCED, INTERNAL_ERROR)
    return BrokerUnavailable if passing else ChannelFailure, f"RabbitMQ at {where} closed the {what}: {code} {text}"
