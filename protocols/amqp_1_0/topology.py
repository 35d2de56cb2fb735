"""The post office of this example, declared through AMQP 1.0 itself: its management is requests and answers too."""

from collections.abc import Iterator
from contextlib import contextmanager

from extras.optional import packages_for
from robust_pika.errors import ChannelFailure, DeclaredOtherwise

with packages_for(__file__):
    from rabbitmq_amqp_python_client import (
        ExchangeSpecification,
        ExchangeToQueueBindingSpecification,
        ExchangeType,
        Management,
        QuorumQueueSpecification,
        StreamSpecification,
        ValidationCodeException,
    )

EXCHANGE = "amqp_1_0.post"
QUEUE = "amqp_1_0.letters"
DEAD_LETTERS = f"{QUEUE}.dead_letters"
JOURNAL = "amqp_1_0.journal"
KEY = "letter"
ROOM = 100


def declare(management: Management) -> str:
    """Declare the letters' queue, which is small, and the journal that has a copy of each; return the queue's name."""
    with _readable(f"exchange {EXCHANGE!r}"):
        management.declare_exchange(ExchangeSpecification(name=EXCHANGE, exchange_type=ExchangeType.direct))
    for queue in (
        QuorumQueueSpecification(name=DEAD_LETTERS),
        # The delivery limit is 20, as always since RabbitMQ 4.0. (This client's deliver_limit sends a wrong name, which
        # RabbitMQ does not know and ignores.)
        QuorumQueueSpecification(
            name=QUEUE,
            max_len=ROOM,
            overflow_behaviour="reject-publish",
            dead_letter_exchange="",
            dead_letter_routing_key=DEAD_LETTERS,
            dead_letter_strategy="at-least-once",
        ),
        StreamSpecification(name=JOURNAL, max_len_bytes=100_000_000),
    ):
        with _readable(f"queue {queue.name!r}"):
            management.declare_queue(queue)
    for bound in (QUEUE, JOURNAL):
        management.bind(
            ExchangeToQueueBindingSpecification(source_exchange=EXCHANGE, destination_queue=bound, binding_key=KEY)
        )
    return QUEUE


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """The client does not say what RabbitMQ refused to declare, nor with which argument."""
    try:
        yield
    except ValidationCodeException as error:
        if "PreconditionFailed" in str(error):
            raise DeclaredOtherwise(
                f"{what} exists with another type or other arguments; delete it (with its messages) or use another name"
            ) from None
        raise ChannelFailure(f"RabbitMQ refused to declare {what}: {error}") from None
