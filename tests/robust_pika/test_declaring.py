"""declare_queue: a queue that keeps every message until it is handled or a dead letter, and the dead letters."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from threading import Event, Thread

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from common.config import Settings
from extras.management import Management
from robust_pika import Message, Outcome, Publisher, Reject, connect, consume, declare_queue
from robust_pika.errors import DeclaredOtherwise
from tests.support.process import LIMIT, wait_until
from tests.support.queues import put, take

QUEUE = "declared"
DEAD = "declared.dead_letters"
LOOKS = 25
"""More than the 20 times after which RabbitMQ 4 drops what comes back, unless the queue says otherwise."""


@pytest.fixture
def channel(settings: Settings) -> Iterator[BlockingChannel]:
    with connect("test", settings) as connection:
        yield connection.channel()


def requeue(channel: BlockingChannel, queue: str, times: int) -> None:
    """Take the one message of the queue, and reject it so that it comes back; ``times`` in all."""
    deliveries = channel.consume(queue, inactivity_timeout=LIMIT)
    for method, _properties, _body in itertools.islice(deliveries, times):
        assert method is not None, f"no message in {queue} after {LIMIT} s"
        channel.basic_reject(method.delivery_tag, requeue=True)
    channel.cancel()


def test_it_declares_a_queue_and_its_dead_letters_and_may_do_so_again(
    channel: BlockingChannel, management: Management
) -> None:
    for _ in range(2):
        assert declare_queue(channel, QUEUE, arguments={"x-max-length": 7}) == QUEUE
    declared = management.queue(QUEUE)
    assert (declared.durable, declared.exclusive, declared.auto_delete) == (True, False, False)
    assert declared.arguments == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 20,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": DEAD,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-max-length": 7,
    }
    dead = management.queue(DEAD)
    assert (dead.durable, dead.type) == (True, "quorum")


def test_what_comes_back_more_often_than_the_limit_is_a_dead_letter(channel: BlockingChannel) -> None:
    declare_queue(channel, QUEUE, delivery_limit=2)
    put(channel, QUEUE, b"poison")
    # The first delivery, and two more.
    requeue(channel, QUEUE, 3)
    [(properties, body)] = take(channel, DEAD, 1)
    assert body == b"poison"
    assert properties.headers["x-first-death-reason"] == "delivery_limit"
    assert properties.headers["x-first-death-queue"] == QUEUE


def test_what_is_rejected_or_expires_is_a_dead_letter_too(channel: BlockingChannel) -> None:
    declare_queue(channel, "brief", dead_letters=DEAD, arguments={"x-message-ttl": 50})
    declare_queue(channel, QUEUE)
    put(channel, "brief", b"late")
    put(channel, QUEUE, b"wrong")
    method, _properties, _body = channel.basic_get(QUEUE)
    assert method is not None
    channel.basic_reject(method.delivery_tag, requeue=False)
    found = {body: properties.headers["x-first-death-reason"] for properties, body in take(channel, DEAD, 2)}
    assert found == {b"late": "expired", b"wrong": "rejected"}


def test_a_dead_letter_that_is_looked_at_often_stays(channel: BlockingChannel) -> None:
    declare_queue(channel, QUEUE)
    put(channel, DEAD, b"evidence")
    requeue(channel, DEAD, LOOKS)
    assert [body for _properties, body in take(channel, DEAD, 1)] == [b"evidence"]


def test_a_publisher_and_a_consumer_declare_with_it(settings: Settings, channel: BlockingChannel) -> None:
    with Publisher("test", settings, declare=lambda declaring: declare_queue(declaring, QUEUE)) as publisher:
        publisher.publish("", QUEUE, b"good")
        publisher.publish("", QUEUE, b"bad")

    def handle(message: Message) -> Outcome:
        if message.body == b"good":
            return Outcome.ACK
        raise Reject("it is bad")

    stop = Event()
    consumer = Thread(
        target=consume,
        args=("test", settings, lambda declaring: declare_queue(declaring, QUEUE), handle),
        kwargs={"stop": stop},
    )
    consumer.start()
    try:
        wait_until(lambda: channel.queue_declare(DEAD, passive=True).method.message_count == 1)
    finally:
        stop.set()
        consumer.join(LIMIT)
    assert [body for _properties, body in take(channel, DEAD, 1)] == [b"bad"]


def test_a_queue_that_exists_with_other_arguments_is_an_error(settings: Settings, channel: BlockingChannel) -> None:
    channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    with pytest.raises(DeclaredOtherwise, match="'declared'"):
        Publisher("test", settings, declare=lambda declaring: declare_queue(declaring, QUEUE))
