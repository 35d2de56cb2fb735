"""The post office of this example, declared through AMQP 1.0 itself: its management is requests and answers too."""

from extras.optional import packages_for

with packages_for(__file__):
    from rabbitmq_amqp_python_client import (
        ExchangeSpecification,
        ExchangeToQueueBindingSpecification,
        ExchangeType,
        Management,
        QuorumQueueSpecification,
        StreamSpecification,
    )

EXCHANGE = "amqp_1_0.post"
QUEUE = "amqp_1_0.letters"
DEAD_LETTERS = f"{QUEUE}.dead_letters"
JOURNAL = "amqp_1_0.journal"
KEY = "letter"
ROOM = 100


def declare(management: Management) -> str:
    """Declare the letters' queue, which is small, and the journal that has a copy of each; return the queue's name."""
    management.declare_exchange(ExchangeSpecification(name=EXCHANGE, exchange_type=ExchangeType.direct))
    management.declare_queue(QuorumQueueSpecification(name=DEAD_LETTERS))
    management.declare_queue(
        # The delivery limit is 20, as always since RabbitMQ 4.0. (This client's deliver_limit sends a wrong name, which
        # RabbitMQ does not know and does not mind.)
        QuorumQueueSpecification(
            name=QUEUE,
            max_len=ROOM,
            overflow_behaviour="reject-publish",
            dead_letter_exchange="",
            dead_letter_routing_key=DEAD_LETTERS,
            dead_letter_strategy="at-least-once",
        )
    )
    management.declare_queue(StreamSpecification(name=JOURNAL, max_len_bytes=100_000_000))
    for queue in (QUEUE, JOURNAL):
        management.bind(
            ExchangeToQueueBindingSpecification(source_exchange=EXCHANGE, destination_queue=queue, binding_key=KEY)
        )
    return QUEUE
