"""What a topology needs of a channel, whichever of pika's connections the channel is on."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol, cast

from pika.exchange_type import ExchangeType
from pika.frame import Method
from pika.spec import Exchange, Queue

from robust_pika._io.link import Link

Arguments = dict[str, Any] | None

_LIMIT_OF_DEAD_LETTERS = 1_000_000
"""A tool that shows dead letters requeues them each time. RabbitMQ 4 would drop a message that has been requeued more
than 20 times, its default; -1 lifts the limit there, but on 3.10 it means that no message may come back at all."""


class DeclaringChannel(Protocol):
    """The part of pika's BlockingChannel that declares. Each call returns when RabbitMQ has answered, or raises."""

    def exchange_declare(  # noqa: PLR0917 - as in pika
        self,
        exchange: str,
        exchange_type: ExchangeType | str = ExchangeType.direct,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Arguments = None,
    ) -> object:
        """See https://www.rabbitmq.com/docs/exchanges."""

    def exchange_delete(self, exchange: str | None = None, if_unused: bool = False) -> Method[Exchange.DeleteOk]:
        """Delete an exchange, with its bindings."""

    def exchange_bind(
        self, destination: str, source: str, routing_key: str = "", arguments: Arguments = None
    ) -> Method[Exchange.BindOk]:
        """See https://www.rabbitmq.com/docs/e2e."""

    def exchange_unbind(
        self,
        destination: str | None = None,
        source: str | None = None,
        routing_key: str = "",
        arguments: Arguments = None,
    ) -> Method[Exchange.UnbindOk]:
        """Take a binding of ``exchange_bind`` back."""

    def queue_declare(  # noqa: PLR0917
        self,
        queue: str,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Arguments = None,
    ) -> Method[Queue.DeclareOk]:
        """See https://www.rabbitmq.com/docs/queues."""

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False) -> Method[Queue.DeleteOk]:
        """Delete a queue, with its messages."""

    def queue_purge(self, queue: str) -> Method[Queue.PurgeOk]:
        """Delete the messages that are ready."""

    def queue_bind(
        self, queue: str, exchange: str, routing_key: str | None = None, arguments: Arguments = None
    ) -> Method[Queue.BindOk]:
        """See https://www.rabbitmq.com/tutorials/tutorial-four-python#bindings."""

    def queue_unbind(
        self, queue: str, exchange: str, routing_key: str | None = None, arguments: Arguments = None
    ) -> Method[Queue.UnbindOk]:
        """Take a binding of ``queue_bind`` back."""


class _Linked:
    """The methods of a Link's channel, each of which waits for its answer: else they are those of a BlockingChannel."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def __getattr__(self, name: str) -> Any:
        return partial(self._link.ask, getattr(self._link.channel, name))


def declare_queue(
    channel: DeclaringChannel,
    name: str,
    *,
    delivery_limit: int = 20,
    dead_letters: str | None = None,
    arguments: Arguments = None,
) -> str:
    """Declare a queue that keeps every message until it is handled or a dead letter; return ``name``.

    ``name`` is a durable quorum queue. A message that a consumer rejects, that comes back to the queue more than
    ``delivery_limit`` times, or that expires, is moved to the queue ``dead_letters`` (``<name>.dead_letters`` by
    default), which is declared, too; several queues may share it. The message leaves ``name`` only when
    ``dead_letters`` has stored it (the strategy ``at-least-once``). RabbitMQ has this only for a queue that, when it
    is full, refuses new messages (``x-overflow: reject-publish``); the publisher then gets a nack.

    ``arguments`` are added to those of ``name``, for instance ``x-max-length`` (in messages) or ``x-message-ttl`` (in
    milliseconds).

    https://www.rabbitmq.com/docs/quorum-queues#dead-lettering
    https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling
    """
    dead_letters = dead_letters or f"{name}.dead_letters"
    channel.queue_declare(
        dead_letters, durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": _LIMIT_OF_DEAD_LETTERS}
    )
    channel.queue_declare(
        name,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": delivery_limit,
            # The default exchange, which routes to the queue that the routing key names.
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead_letters,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            **(arguments or {}),
        },
    )
    return name


def declaring(link: Link) -> DeclaringChannel:
    """The channel of a Link, to declare on."""
    return cast(DeclaringChannel, _Linked(link))
