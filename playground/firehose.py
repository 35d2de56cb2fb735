"""The firehose: RabbitMQ's copy of every message that is published and delivered in one virtual host.

https://www.rabbitmq.com/docs/firehose. The copies go through a queue of ours that is bounded in number and bytes,
and drops the oldest: a reader that falls behind costs neither the broker nor us any memory. Beyond some hundred copies
a second it would cost the examples their speed, so then the firehose is on for a moment every other second only, and
what it told in that moment is scaled up (a *window*).
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker

from broker.queues import PLAYGROUND
from common.config import Settings
from common.connection import connect
from common.errors import Failure, RobustPikaError
from extras.management import Management
from playground.broker_side import what_is_wrong

OWN = PLAYGROUND
"""How the names of our queues begin."""
EXCHANGE = "amq.rabbitmq.trace"
MOST = 600
"""Copies a second, above which windows are looked at instead of everything."""
KEPT_BYTES = 1024
"""Bytes of a body that are kept."""
_FEW = 300
_KNOWN = 10.0
_WINDOW = 0.15
_PAUSE = 1.75
_SAMPLE = 300
_QUEUE = {
    # On RabbitMQ 4 the default type of a virtual host could be another, which has no drop-head.
    "x-queue-type": "classic",
    "x-max-length": 10_000,
    "x-max-length-bytes": 32 * 1024 * 1024,
    "x-overflow": "drop-head",
}


@dataclass(frozen=True, slots=True)
class Copy:
    """One event. ``user`` published the message or got it; ``queues`` are those it was routed to or came from.

    ``properties`` are the message's own, its headers among them; ``body`` is its beginning, ``size`` that of all of it,
    in bytes.
    """

    published: bool
    exchange: str
    key: str
    queues: tuple[str, ...]
    connection: str
    user: str
    redelivered: bool
    properties: dict[str, Any]
    body: bytes
    size: int
    seen: float


@dataclass(frozen=True, slots=True)
class Window:
    """What happened in some ``seconds``: ``count`` events, of which ``copies`` are the first."""

    copies: list[Copy]
    count: int
    seconds: float


class Firehose(threading.Thread):
    """Turns the firehose on and reads it until stop(). The callbacks are called on this thread.

    ``on_state`` gets one line that says why it cannot be read, and an empty one when it can be.
    """

    def __init__(
        self,
        settings: Settings,
        on_copies: Callable[[list[Copy]], None],
        on_window: Callable[[Window], None],
        on_state: Callable[[str], None],
    ) -> None:
        super().__init__(name="firehose", daemon=True)
        self.settings = settings
        self._on_copies, self._on_window, self._on_state = on_copies, on_window, on_state
        self._ending = threading.Event()

    def stop(self) -> None:
        """Let it end; join() waits until the firehose is off."""
        self._ending.set()

    def run(self) -> None:
        # The failure says it all; pika's tracebacks beside it would hide it.
        logging.getLogger("pika").setLevel(logging.CRITICAL)
        with Management(self.settings) as api:
            while not self._ending.is_set():
                try:
                    with connect("playground: firehose", self.settings, deadline=1.0) as connection:
                        api.set_tracing(True)
                        self._on_state("")
                        _Reader(self, connection, api).read()
                except (Failure, RobustPikaError, AMQPError, OSError) as error:
                    self._on_state(what_is_wrong(error, self.settings))
                    self._ending.wait(0.5)
            # The virtual host may be gone already.
            with suppress(Failure):
                api.set_tracing(False)

    @property
    def ending(self) -> threading.Event:
        """Set as soon as it is to end."""
        return self._ending

    def copies(self, copies: list[Copy]) -> None:
        """Pass them on."""
        self._on_copies(copies)

    def window(self, window: Window) -> None:
        """Pass it on."""
        self._on_window(window)


class _Reader:
    def __init__(self, firehose: Firehose, connection: pika.BlockingConnection, api: Management) -> None:
        self.firehose = firehose
        self.connection = connection
        self.api = api
        self.channel: BlockingChannel = connection.channel()
        self.queue = f"{OWN}{secrets.token_hex(4)}"
        self.channel.queue_declare(self.queue, exclusive=True, arguments=_QUEUE)
        for events in ("publish.#", "deliver.#"):
            self.channel.queue_bind(self.queue, EXCHANGE, events)
        self.channel.basic_qos(prefetch_count=200)
        self.recent: deque[tuple[float, int]] = deque()
        self.probe: BlockingChannel = connection.channel()
        self.known: dict[str, float] = {}

    def read(self) -> None:
        while not self.firehose.ending.is_set():
            self.everything()
            self.windows()

    def everything(self) -> None:
        """Read all copies, until there are too many or it ends."""
        batch: list[Copy] = []
        last = 0

        def got(
            _channel: BlockingChannel, method: pika.spec.Basic.Deliver, properties: pika.BasicProperties, body: bytes
        ) -> None:
            nonlocal last
            last = method.delivery_tag
            batch.append(read(method.routing_key, properties, body))

        self.recent.clear()
        tag = self.channel.basic_consume(self.queue, got)
        while not self.firehose.ending.is_set() and not self.too_many(len(batch)):
            batch.clear()
            self.connection.process_data_events(time_limit=0.1)
            if batch:
                self.channel.basic_ack(last, multiple=True)
                self.firehose.copies([self.checked(copy) for copy in batch])
        self.channel.basic_cancel(tag)

    def checked(self, copy: Copy) -> Copy:
        """The copy without a queue that is not there: the default exchange is said to route to any name."""
        if copy.published and copy.exchange == "" and copy.queues and not self.exists(copy.queues[0]):
            return replace(copy, queues=())
        return copy

    def exists(self, queue: str) -> bool:
        now = time.monotonic()
        if self.known.get(queue, 0.0) < now:
            if not self.probe.is_open:
                self.probe = self.connection.channel()
            try:
                self.probe.queue_declare(queue, passive=True)
            except ChannelClosedByBroker as closed:
                # 405: it belongs to another connection, so it exists.
                if closed.reply_code != 405:
                    return False
            if len(self.known) > 1000:
                self.known.clear()
            self.known[queue] = now + _KNOWN
        return True

    def too_many(self, more: int) -> bool:
        now = time.monotonic()
        self.recent.append((now, more))
        while self.recent and self.recent[0][0] < now - 1.0:
            self.recent.popleft()
        return sum(count for _, count in self.recent) > MOST

    def windows(self) -> None:
        """Look at moments, until there is little to see or it ends."""
        quiet = 0
        self.api.set_tracing(False)
        self.channel.queue_purge(self.queue)
        while quiet < 2 and not self.firehose.ending.is_set():
            self.api.set_tracing(True)
            begin = time.monotonic()
            self.firehose.ending.wait(_WINDOW)
            self.api.set_tracing(False)
            seconds = time.monotonic() - begin
            count = self.channel.queue_declare(self.queue, passive=True).method.message_count
            copies = self.sample()
            self.firehose.window(Window(copies, max(count, len(copies)), seconds))
            quiet = quiet + 1 if count / seconds < _FEW else 0
            if quiet < 2:
                self.connection.process_data_events(time_limit=0)
                self.firehose.ending.wait(_PAUSE if not quiet else 0)
        self.api.set_tracing(True)

    def sample(self) -> list[Copy]:
        copies = []
        for method, properties, body in self.channel.consume(self.queue, auto_ack=True, inactivity_timeout=0.02):
            if method is None or properties is None or body is None:
                break
            copies.append(read(method.routing_key, properties, body))
            if len(copies) >= _SAMPLE:
                break
        self.channel.cancel()
        self.channel.queue_purge(self.queue)
        return copies


def read(routing_key: str, properties: pika.BasicProperties, body: bytes) -> Copy:
    """What a copy tells."""
    headers = properties.headers or {}
    kind, _, name = routing_key.partition(".")
    published = kind == "publish"
    keys = headers.get("routing_keys") or [""]
    return Copy(
        published=published,
        exchange=_text(headers.get("exchange_name", "")),
        key=_text(keys[0]),
        queues=tuple(_text(queue) for queue in headers.get("routed_queues") or ()) if published else (name,),
        connection=_text(headers.get("connection", "")),
        user=_text(headers.get("user", "")),
        redelivered=bool(headers.get("redelivered")),
        properties=headers.get("properties") or {},
        body=body[:KEPT_BYTES],
        size=len(body),
        seen=time.time(),
    )


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
