"""What is in a session's virtual host, asked again and again: from the management API, and depths over AMQP.

The API's counts lag by some seconds; declaring a queue passively tells its depth and its consumers as they are now.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPChannelError, AMQPError

from common.config import Settings
from common.connection import connect
from common.errors import Failure, RobustPikaError
from extras.management import BindingInfo, ConsumerInfo, ExchangeInfo, Management, QueueInfo
from playground.broker_side import what_is_wrong
from playground.firehose import OWN

_EVERY = 0.4
_EVERY_BUSY = 1.5
_SLOWER = 1.5


@dataclass(frozen=True, slots=True)
class Depth:
    """Messages that are ready in a queue, and its consumers, now."""

    ready: int
    consumers: int


@dataclass(frozen=True, slots=True)
class Observed:
    """One look at the virtual host; ``users`` and ``labels`` are by the name of the connection, ``unacked`` too."""

    queues: list[QueueInfo] = field(default_factory=list)
    exchanges: list[ExchangeInfo] = field(default_factory=list)
    bindings: list[BindingInfo] = field(default_factory=list)
    consumers: list[ConsumerInfo] = field(default_factory=list)
    depths: dict[str, Depth] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    unacked: dict[str, int] = field(default_factory=dict)


class Observer(threading.Thread):
    """Looks until stop(). The callbacks are called on this thread.

    ``on_state`` gets one line that says why nothing can be seen, and an empty one when it can be. While it is ``busy``,
    the broker has other things to do than to answer: it is asked less often.
    """

    def __init__(
        self,
        settings: Settings,
        on_look: Callable[[Observed], None],
        on_state: Callable[[str], None],
        busy: Callable[[], bool],
    ) -> None:
        super().__init__(name="observer", daemon=True)
        self.settings = settings
        self._on_look, self._on_state, self._busy = on_look, on_state, busy
        self._ending = threading.Event()

    def stop(self) -> None:
        """Let it end."""
        self._ending.set()

    def run(self) -> None:
        logging.getLogger("pika").setLevel(logging.CRITICAL)
        with Management(self.settings) as api:
            while not self._ending.is_set():
                try:
                    with connect("playground: depths", self.settings, deadline=1.0) as connection:
                        looker = _Looker(api, connection)
                        while not self._ending.wait(_EVERY_BUSY if self._busy() else _EVERY):
                            self._on_look(looker.look())
                            self._on_state("")
                except (Failure, RobustPikaError, AMQPError, OSError) as error:
                    self._on_state(what_is_wrong(error, self.settings))
                    self._ending.wait(0.5)


class _Looker:
    def __init__(self, api: Management, connection: pika.BlockingConnection) -> None:
        self.api = api
        self.connection = connection
        self.channel: BlockingChannel = connection.channel()
        self.clients: tuple[dict[str, str], dict[str, str], dict[str, int]] = ({}, {}, {})
        self.next = 0.0

    def look(self) -> Observed:
        queues = [queue for queue in self.api.queues() if not queue.name.startswith(OWN)]
        if time.monotonic() > self.next:
            self.next = time.monotonic() + _SLOWER
            self.clients = self.connected()
        users, labels, unacked = self.clients
        return Observed(
            queues,
            self.api.exchanges(),
            [item for item in self.api.bindings() if not item.destination.startswith(OWN)],
            [item for item in self.api.consumers() if not item.queue.startswith(OWN)],
            self.depths(queues),
            users,
            labels,
            unacked,
        )

    def depths(self, queues: list[QueueInfo]) -> dict[str, Depth]:
        found = {}
        exclusive = [queue.name for queue in queues if queue.exclusive]
        for queue in queues:
            if not queue.exclusive:
                with suppress(AMQPChannelError):
                    if not self.channel.is_open:
                        self.channel = self.connection.channel()
                    # It may have been deleted since.
                    method = self.channel.queue_declare(queue.name, passive=True).method
                    found[queue.name] = Depth(method.message_count, method.consumer_count)
        if exclusive:
            # Nobody but its owner may ask for one of these over AMQP.
            vhost = self.api.vhost
            totals = self.api.request("GET", "queues", vhost, disable_stats="true", enable_queue_totals="true")
            for item in totals:
                if item["name"] in exclusive:
                    found[item["name"]] = Depth(item.get("messages_ready", 0), 1)
        self.connection.process_data_events(time_limit=0)
        return found

    def connected(self) -> tuple[dict[str, str], dict[str, str], dict[str, int]]:
        connections = self.api.connections()
        unacked: dict[str, int] = {}
        for channel in self.api.channels():
            unacked[channel.connection] = unacked.get(channel.connection, 0) + channel.unacknowledged
        return {item.name: item.user for item in connections}, {item.name: item.label for item in connections}, unacked
