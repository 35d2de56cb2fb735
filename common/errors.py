"""The failures that a reader is meant to understand: one line of text, and an exit code each."""

from __future__ import annotations

from enum import IntEnum

from robust_pika import errors
from robust_pika.errors import BadMessage, RobustPikaError

__all__ = ["BadMessage", "ExitCode", "Failure", "RobustPikaError", "Unsupported", "came_of_an_interrupt", "described"]


class ExitCode(IntEnum):
    """Exit codes of every script; those from 64 to 78 are those of BSD's ``sysexits.h``."""

    USAGE = 2
    DATA = 65
    NO_VHOST = 66
    UNROUTABLE = 67
    NO_HOST = 68
    UNAVAILABLE = 69
    NOT_INSTALLED = 72
    DECLARED_OTHERWISE = 73
    OUTPUT = 74
    NOT_CONFIRMED = 75
    PROTOCOL = 76
    ACCESS = 77
    CONFIG = 78
    UNSUPPORTED = 79


EXIT_CODES: dict[type[RobustPikaError], ExitCode] = {
    errors.InvalidSettings: ExitCode.CONFIG,
    errors.BrokerUnavailable: ExitCode.UNAVAILABLE,
    errors.HostNotFound: ExitCode.NO_HOST,
    errors.AccessRefused: ExitCode.ACCESS,
    errors.VhostNotFound: ExitCode.NO_VHOST,
    errors.TlsFailure: ExitCode.PROTOCOL,
    errors.NotAmqp: ExitCode.PROTOCOL,
    errors.PluginMissing: ExitCode.UNSUPPORTED,
    errors.DeclaredOtherwise: ExitCode.DECLARED_OTHERWISE,
    errors.NotRouted: ExitCode.UNROUTABLE,
    errors.NotTaken: ExitCode.NOT_CONFIRMED,
    errors.ChannelFailure: ExitCode.PROTOCOL,
    errors.Returned: ExitCode.UNROUTABLE,
    errors.NotDelivered: ExitCode.NOT_CONFIRMED,
    errors.Reject: ExitCode.DATA,
    errors.NoServer: ExitCode.UNROUTABLE,
    errors.NoReply: ExitCode.NOT_CONFIRMED,
    errors.ServerError: ExitCode.DATA,
    errors.CallRefused: ExitCode.ACCESS,
}
"""The exit code of an error of the library, or of the nearest class that it derives from."""

REFUSALS = {403: ExitCode.ACCESS, 404: ExitCode.UNROUTABLE, 406: ExitCode.DATA}
"""The exit code of a message that RabbitMQ refused, by its reply code; PROTOCOL for others."""

HINTS: dict[type[RobustPikaError], str] = {
    errors.InvalidSettings: "check RABBITMQ_CA_FILE, RABBITMQ_CERT_FILE and RABBITMQ_KEY_FILE",
    errors.ConnectionRefused: "start RabbitMQ with: make broker",
    errors.HostNotFound: "check RABBITMQ_HOST or AMQP_URL",
    errors.LoginRefused: "check RABBITMQ_USER and RABBITMQ_PASSWORD or AMQP_URL",
    errors.VhostNotFound: "create it, or check RABBITMQ_VHOST or AMQP_URL",
    errors.CertificateNotTrusted: "RABBITMQ_CA_FILE must name the certificate of the authority that signed it",
    errors.CertificateDemanded: "check RABBITMQ_CERT_FILE and RABBITMQ_KEY_FILE",
    errors.ClosedAfterTls: "check RABBITMQ_CERT_FILE and RABBITMQ_KEY_FILE",
    errors.NotRouted: "start its consumer",
    errors.NotTaken: "try again later",
}
"""What a reader of the course can do about an error of the library."""


class Failure(Exception):
    """Something a reader can mend: ``str()`` is one line that names it; ``exit_code`` is the script's."""

    exit_code: ExitCode = ExitCode.UNAVAILABLE


class Unsupported(Failure):
    """The broker is too old (or lacks a plugin) for what the example shows."""

    exit_code = ExitCode.UNSUPPORTED


def described(error: Failure | RobustPikaError) -> tuple[str, ExitCode]:
    """The line that a reader sees, and the exit code of a script that ends with this error."""
    hint = next((HINTS[kind] for kind in type(error).__mro__ if kind in HINTS), "")
    text = f"{error}; {hint}" if hint else str(error)
    return text, _exit_code(error)


def _exit_code(error: Failure | RobustPikaError) -> ExitCode:
    match error:
        case errors.DeliveryError():
            return _exit_code(error.failures[0])
        case errors.Refused():
            return REFUSALS.get(error.reply_code, ExitCode.PROTOCOL)
    own: ExitCode | None = getattr(error, "exit_code", None)
    if own is not None:
        return own
    return next((EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), ExitCode.UNAVAILABLE)


def came_of_an_interrupt(error: BaseException | None) -> bool:
    """Whether a library raised ``error`` because Ctrl-C interrupted its work."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
