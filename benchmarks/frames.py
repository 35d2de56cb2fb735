"""What robust_pika gains by writing and reading the frames of messages itself: with and without, in turn.

The library does so in two modules: robust_pika/_io/wire.py writes messages and acknowledgements, and
robust_pika/_io/incoming.py reads deliveries. Here the same Publisher and the same consume also run on a link without
them: on pika's ``basic_publish``, ``basic_ack`` and ``basic_consume``, and the objects that pika makes of each frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from pika import BasicProperties, ConnectionParameters
from pika.channel import Channel
from pika.spec import Basic

from benchmarks import consumers, publishers
from benchmarks.consuming import PREFETCH, out_of
from benchmarks.measure import Contender, Goal, Lab
from benchmarks.publishing import into
from robust_pika import Message, consumer
from robust_pika._io import line
from robust_pika._io.incoming import Take
from robust_pika._io.link import Link
from robust_pika._io.wire import Batch, Outgoing

WORTH = 1.5
"""A module of its own for the frames must bring at least this factor."""

PUBLISHER = "robust_pika.Publisher"
PUBLISHER_ON_PIKA = "the same without wire: pika's basic_publish"
CONSUME = f"robust_pika.consume, prefetch {PREFETCH}"
CONSUME_ON_PIKA = "the same without incoming: pika's deliveries"
CONSUME_ON_PIKA_ALONE = "the same without both: pika's deliveries and basic_ack"


class PikasBatch(Batch):
    """What goes out, by the methods of pika's channel: each hands its frames to the transport one by one."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def add(self, message: Outgoing) -> None:
        """As in Batch, but nothing waits for ``flush``."""
        self._channel.basic_publish(
            message.exchange, message.routing_key, message.body, message.properties, message.mandatory
        )

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        """As in Batch."""
        self._channel.basic_ack(tag, multiple)

    def reject(self, tag: int, *, requeue: bool) -> None:
        """As in Batch."""
        self._channel.basic_reject(tag, requeue)

    def give_back(self, tag: int) -> None:
        """As in Batch."""
        self._channel.basic_nack(tag, requeue=True)

    def flush(self) -> None:
        """There is nothing to send: pika has it."""


class LinkWithoutWire(Link):
    """A link that sends by pika's own methods."""

    def _first_answer(self) -> Channel:
        channel = super()._first_answer()
        self.outgoing = PikasBatch(channel)
        return channel


class LinkWithoutIncoming(Link):
    """A link whose deliveries come as pika makes them."""

    def __init__(self, choice: ConnectionParameters, *, consuming: bool = False) -> None:
        # A link that will not consume is one without Incoming.
        super().__init__(choice, consuming=consuming)

    def consume(self, queue: str, take: Take, **options: object) -> str:
        """As in Link."""

        def deliver(_channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
            message = Message(body, properties, method.exchange, method.routing_key, method.redelivered)
            take(method.delivery_tag, message)

        answer = self.ask(self.channel.basic_consume, queue, on_message_callback=deliver, **options)
        return str(answer.method.consumer_tag)


class LinkOnPikaAlone(LinkWithoutWire, LinkWithoutIncoming):
    """A link with neither of the two."""


@contextmanager
def linked_by(kind: type[Link]) -> Iterator[None]:
    """Inside of it, publishers and consumers open links of this kind."""
    with ExitStack() as stack:
        for module in (line, consumer):
            stack.enter_context(mock.patch.object(module, "Link", kind))
        yield


def on(kind: type[Link], turn: Callable[[int], float]) -> Callable[[int], float]:
    """This turn, on links of this kind."""

    def turned(count: int) -> float:
        with linked_by(kind):
            return turn(count)

    return turned


def run(lab: Lab) -> list[Goal]:
    """Both directions, on a quorum queue."""
    settings = lab.settings
    publish = into(lab, "quorum", publishers.ours)
    sent = lab.table("frames-publishing", "Publishing with confirms, on whose frames", "messages/s", PUBLISHER)
    lab.contest(
        sent,
        [
            Contender(PUBLISHER, publish, pace=10_000),
            Contender(PUBLISHER_ON_PIKA, on(LinkWithoutWire, publish), pace=5000),
        ],
    )

    def filled_and_emptied(kind: type[Link]) -> Callable[[int], float]:
        def take(queue: str, count: int) -> float:
            with linked_by(kind):
                return consumers.ours(settings, queue, count, PREFETCH)

        # The queue is filled in the same way for all.
        return out_of(lab, "quorum", take, emptied=True)

    received = lab.table("frames-consuming", "Consuming with acknowledgements, on whose frames", "messages/s", CONSUME)
    lab.contest(
        received,
        [
            Contender(CONSUME, filled_and_emptied(Link), pace=8000),
            Contender(CONSUME_ON_PIKA, filled_and_emptied(LinkWithoutIncoming), pace=5000),
            Contender(CONSUME_ON_PIKA_ALONE, filled_and_emptied(LinkOnPikaAlone), pace=5000),
        ],
    )
    return [
        Goal("robust_pika.Publisher: with wire to without", WORTH, sent.ratio(PUBLISHER_ON_PIKA)),
        Goal("robust_pika.consume: with incoming to without", WORTH, received.ratio(CONSUME_ON_PIKA)),
    ]
