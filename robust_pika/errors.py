"""What goes wrong, as exceptions: the text is one line that a person can act on, the attributes are for a program.

No text contains a password.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class RobustPikaError(Exception):
    """Base of all errors of this library."""

    transient = False
    """Whether the same call can succeed later without any change."""


class InvalidSettings(RobustPikaError):
    """Connection settings that cannot be used: an address that cannot be read, a certificate file that is none."""


# Connecting


class ConnectionFailure(RobustPikaError):
    """RabbitMQ cannot be reached, or refused what was asked.

    ``where`` is the address (``host:port``, several separated by commas; empty if it is not known), ``service`` what
    was expected there (``RabbitMQ``, or for instance ``the MQTT port``).
    """

    def __init__(self, text: str, *, where: str = "", service: str = "RabbitMQ") -> None:
        super().__init__(text)
        self.where = where
        self.service = service


class BrokerUnavailable(ConnectionFailure):
    """The address cannot be reached, or the connection broke."""

    transient = True


class ConnectionRefused(BrokerUnavailable):
    """No program listens at the address."""


class ConnectionLost(BrokerUnavailable):
    """A connection that had been open broke."""


class HostNotFound(ConnectionFailure):
    """The host name has no address. Transient: in a cluster, a name appears when its node starts."""

    transient = True


class AccessRefused(ConnectionFailure):
    """No permission for what was asked."""


class LoginRefused(AccessRefused):
    """Wrong user name or password."""


class VhostNotFound(ConnectionFailure):
    """The virtual host does not exist."""


class TlsFailure(ConnectionFailure):
    """The two sides do not agree on TLS."""


class CertificateNotTrusted(TlsFailure):
    """The broker's certificate was not signed by an authority that is trusted here."""


class CertificateDemanded(TlsFailure):
    """The broker demands a client certificate: none was given, or it does not trust the one that was."""


class NotAmqp(ConnectionFailure):
    """The program at the address does not speak the expected protocol."""


class NoAnswer(NotAmqp):
    """The program at the address accepts connections and sends nothing: not AMQP, or a broker that is starting.

    Transient: Docker's proxy, for example, accepts connections before the broker does.
    """

    transient = True


class ClosedAfterTls(NoAnswer):
    """The same behind TLS. So it may look, too, if a client certificate is demanded: CertificateDemanded is certain."""


class PluginMissing(ConnectionFailure):
    """The broker does not know a type of exchange that a plugin provides."""


class DeclaredOtherwise(ConnectionFailure):
    """A queue or exchange of this name exists with other properties (406 PRECONDITION_FAILED)."""


class NotRouted(ConnectionFailure):
    """A mandatory message was returned: no queue is bound for it."""


class NotTaken(ConnectionFailure):
    """A message was nacked: its queue is full, or could not store it."""


class ChannelFailure(ConnectionFailure):
    """The broker closed the channel or the connection for another reason, which the text quotes."""


class ConsumerCancelled(ConnectionFailure):
    """The broker cancelled the consumer: its queue was deleted, or a message was not acknowledged in time."""

    transient = True


# Publishing


class Sent(Protocol):
    """What an error says of its message."""

    @property
    def exchange(self) -> str: ...
    @property
    def routing_key(self) -> str: ...
    @property
    def message_id(self) -> str | None: ...


class NotDelivered(RobustPikaError):
    """One message that was not delivered; ``exchange``, ``routing_key`` and ``message_id`` say which."""

    def __init__(self, message: Sent, why: str) -> None:
        super().__init__(f"{message} {why}")
        self.exchange = message.exchange
        self.routing_key = message.routing_key
        self.message_id = message.message_id


class Returned(NotDelivered):
    """No queue is bound for the message, which was mandatory; ``reply_text`` is the broker's reason."""

    def __init__(self, message: Sent, reply_text: str) -> None:
        super().__init__(message, f"was returned: no queue is bound for it ({reply_text})")
        self.reply_text = reply_text


class Nacked(NotDelivered):
    """The broker did not take the message: a queue is full, or could not store it. Try again later."""


class NotConfirmed(NotDelivered):
    """The broker has not confirmed the message: it may or may not have arrived."""


class Refused(NotDelivered):
    """The broker closed the channel or the connection because of this message.

    ``reply_code`` and ``reply_text`` are the broker's: 404 no such exchange, 403 no permission, 406 too large, …
    """

    def __init__(self, message: Sent, reply_code: int, reply_text: str) -> None:
        super().__init__(message, f"was refused: {reply_code} {reply_text}")
        self.reply_code = reply_code
        self.reply_text = reply_text


class DeliveryError(RobustPikaError):
    """What ``flush`` and ``close`` raise: ``failures`` has one NotDelivered for each message.

    ``unlisted`` counts further ones, which were dropped because no flush asked for a very long time.
    """

    def __init__(self, failures: Sequence[NotDelivered], unlisted: int = 0) -> None:
        count = len(failures) + unlisted
        kinds = ", ".join(sorted({type(failure).__name__ for failure in failures}))
        super().__init__(str(failures[0]) if count == 1 else f"{count:,} messages ({kinds}); the first: {failures[0]}")
        self.failures = tuple(failures)
        self.unlisted = unlisted


class PublisherClosed(RobustPikaError):
    """The publisher was closed, or belongs to the process that this one was forked from."""


class PublisherFailed(RobustPikaError):
    """The publisher's I/O thread ended with an unexpected error, which the text names."""


# Consuming


class Reject(RobustPikaError):
    """Raised by a handler: this message cannot be used. It is rejected, with the text as the reason in the log.

    A rejected message goes to the dead-letter exchange of its queue, or is dropped if the queue has none.
    """


class BadMessage(Reject):
    """A body that is empty, too large or not what it is said to be; properties that AMQP cannot carry."""


class StopConsuming(RobustPikaError):
    """Raised by a handler: the program cannot go on, though this message is not the reason (a database is gone).

    The message goes back to the queue, ``consume`` ends and raises this error.
    """


# RPC


class CallFailed(RobustPikaError):
    """A call that got no result; the subclasses say why."""


class NoServer(CallFailed):
    """The queue of requests does not exist: no server has declared it."""


class NoReply(CallFailed):
    """No reply came before the deadline. The request may have been done all the same."""


class ServerError(CallFailed):
    """The server replied with an error, which the text quotes."""


class CallRefused(CallFailed):
    """RabbitMQ did not accept the request: no permission, or it is too large."""
