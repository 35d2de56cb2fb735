"""The stage: who publishes to which exchange, what is bound to what, who consumes what; from what was seen."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from playground.observer import Observed
from playground.traffic import DeadLetterRoute, Traffic

Json = dict[str, Any]

_BUILT_IN = re.compile(r"amq\.")
_MOST = 60
_REMEMBERED = 20.0


class Stage:
    """Draws up what the page shows. ``node_of(user, connection)`` says which node a client is."""

    def __init__(self, traffic: Traffic, node_of: Callable[[str, str], str]) -> None:
        self.traffic = traffic
        self.node_of = node_of
        self.observed = Observed()
        self.guesses: dict[str, str] = {}

    def look(self, observed: Observed) -> None:
        """Take in a new look."""
        self.observed = observed
        unacked = {queue.name: queue.unacknowledged for queue in observed.queues}
        self.traffic.looked(observed.depths, self.dead_letter_routes(), unacked)

    def dead_letter_routes(self) -> list[DeadLetterRoute]:
        """Where the dead letters of each queue go."""
        routes = []
        names = {queue.name for queue in self.observed.queues}
        for queue in self.observed.queues:
            exchange, key = dead_letters(queue.arguments, queue.details)
            if exchange is None:
                continue
            if exchange == "":
                targets = [key] if key in names else []
            else:
                targets = [
                    binding.destination
                    for binding in self.observed.bindings
                    if binding.source == exchange
                    and binding.destination_type == "queue"
                    and (key is None or binding.routing_key in ("", "#", key))
                ]
            routes += [DeadLetterRoute(queue.name, exchange, target) for target in targets if target != queue.name]
        return routes

    def json(self, alive: dict[str, bool], names: Callable[[str], Json]) -> Json:
        """For the page. ``alive`` are the nodes of our processes, in the order of their start, and whether they run;
        ``names`` tells how a node is called.
        """
        consumers = self._consumers(alive)
        routes = self.dead_letter_routes()
        exchanges = self._exchanges(routes)
        recently = time.monotonic() - _REMEMBERED
        return {
            "producers": [
                {"node": node, **names(node), "alive": alive.get(node, node.startswith(("c:", "you")))}
                for node, published in self.traffic.publishers.items()
                if alive.get(node, node.startswith(("c:", "you"))) or published > recently
            ],
            "exchanges": exchanges[:_MOST],
            "queues": [self._queue(queue) for queue in self.observed.queues[:_MOST]],
            "bindings": [
                {
                    "from": f"x:{binding.source}",
                    "to": f"{'q' if binding.destination_type == 'queue' else 'x'}:{binding.destination}",
                    "key": binding.routing_key,
                    "arguments": {key: str(value)[:80] for key, value in binding.arguments.items()},
                }
                for binding in self.observed.bindings
                if binding.source and not _BUILT_IN.match(binding.source)
            ][: 4 * _MOST],
            "dead": [{"from": f"q:{r.queue}", "exchange": f"x:{r.exchange}", "to": f"q:{r.target}"} for r in routes],
            "consumers": [{**consumer, **names(str(consumer["node"]))} for consumer in consumers[:_MOST]],
        }

    def _queue(self, queue: Any) -> Json:
        depth = self.observed.depths.get(queue.name)
        limits = {
            name: queue.arguments[f"x-{name}"]
            for name in ("message-ttl", "expires", "max-length", "max-priority", "delivery-limit")
            if f"x-{name}" in queue.arguments
        }
        return {
            "name": queue.name,
            "type": queue.type,
            "ready": depth.ready if depth else queue.ready,
            "unacked": queue.unacknowledged,
            "exclusive": queue.exclusive,
            "durable": queue.durable,
            "limits": limits,
        }

    def _exchanges(self, routes: list[DeadLetterRoute]) -> list[Json]:
        bound = {binding.source for binding in self.observed.bindings}
        bound |= {binding.destination for binding in self.observed.bindings if binding.destination_type == "exchange"}
        bound |= {route.exchange for route in routes if route.exchange}
        return [
            {"name": exchange.name, "type": exchange.type, "internal": exchange.internal}
            for exchange in self.observed.exchanges
            if exchange.name and (not _BUILT_IN.match(exchange.name) or exchange.name in bound)
        ]

    def _consumers(self, alive: dict[str, bool]) -> list[Json]:
        """Those that the API knows, and those it does not know yet: it learns of a consumer after some seconds."""
        observed = self.observed
        found: dict[tuple[str, str], Json] = {}
        for item in observed.consumers:
            user = observed.users.get(item.connection) or self.traffic.users.get(item.connection, "")
            node = self.node_of(user, item.connection)
            if not user:
                # Not known yet; or RabbitMQ itself, which consumes where dead letters must not be lost.
                continue
            # The API goes on telling of those who have gone for some seconds, too.
            if alive.get(node, True):
                entry: Json = {
                    "node": node,
                    "queue": item.queue,
                    "prefetch": item.prefetch,
                    "unacked": observed.unacked.get(item.connection, 0),
                }
                found[item.queue, node] = entry
        queues = {queue.name for queue in observed.queues}
        for queue, node in self.traffic.deliveries:
            # What got something from a queue, or still does.
            if queue in queues and alive.get(node, False) and (queue, node) not in found:
                found[queue, node] = {"node": node, "queue": queue, "prefetch": None, "unacked": None}
        self._guess(alive, found)
        return [found[key] for key in sorted(found)]

    def _guess(self, alive: dict[str, bool], found: dict[tuple[str, str], Json]) -> None:
        """A queue has more consumers than are known: the terminals that were started last are likely to be them."""
        known = {node for _, node in found}
        published = set(self.traffic.publishers)
        free = [node for node, running in alive.items() if running and node not in known and node not in published]
        self.guesses = {node: queue for node, queue in self.guesses.items() if node in free}
        for name, depth in self.observed.depths.items():
            missing = depth.consumers - sum(queue == name for queue, _ in found)
            kept = [node for node, queue in self.guesses.items() if queue == name]
            for node in kept[max(0, missing) :]:
                del self.guesses[node]
            for _ in range(missing - len(kept)):
                candidates = [node for node in free if node not in self.guesses]
                if not candidates:
                    break
                self.guesses[candidates[-1]] = name
        for node, queue in self.guesses.items():
            found[queue, node] = {"node": node, "queue": queue, "prefetch": None, "unacked": None}


def dead_letters(arguments: Json, details: Json) -> tuple[str | None, str | None]:
    """The exchange (None: there is none) and the key (None: each message's own) of a queue's dead letters."""
    policy = details.get("effective_policy_definition") or {}
    exchange = arguments.get("x-dead-letter-exchange", policy.get("dead-letter-exchange"))
    key = arguments.get("x-dead-letter-routing-key", policy.get("dead-letter-routing-key"))
    return exchange, key
