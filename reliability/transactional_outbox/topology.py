"""The exchange and the queue of this example; declaring what is there already is harmless."""

from robust_pika import DeclaringChannel, declare_queue

EXCHANGE = "transactional_outbox.orders"
QUEUE = "transactional_outbox.received"


def declare(channel: DeclaringChannel) -> str:
    """Declare the exchange for orders, and a queue that gets them all; return the queue's name."""
    # A fanout exchange: another program that wants the orders binds another queue.
    channel.exchange_declare(EXCHANGE, exchange_type="fanout", durable=True)
    declare_queue(channel, QUEUE)
    channel.queue_bind(QUEUE, EXCHANGE)
    return QUEUE
