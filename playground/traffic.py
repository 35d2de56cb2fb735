"""From the firehose's copies to what the page draws: one move per edge that a message took, or rates where there are
too many to be told apart.

A move is a small JSON object: ``kind`` is "publish" (from ``node`` to the exchange, and from there to ``queues``),
"deliver" (from ``queue`` to ``node``) or "dead" (from ``queue`` to ``target``, by way of ``exchange``).
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from playground.firehose import Copy, Window
from playground.observer import Depth

Json = dict[str, Any]

MANY = 50
"""Messages a second, above which the page shows a flow with a rate instead of dots."""
KEPT_MOVES = 200
"""Moves that are kept for the replay and for a browser that joins late."""
SAMPLES = 8
"""Messages a second that the page is told of in a flow."""
_CALM = 2.5
_LONG = 300
_HELD = 6.0
REPLY_TO = "amq.rabbitmq.reply-to"
"""Direct reply-to: not a queue, but on the stage it looks like one. https://www.rabbitmq.com/docs/direct-reply-to."""


@dataclass(slots=True)
class Totals:
    """What has happened since the session began; ``sampled`` says that not all of it was counted one by one."""

    published: int = 0
    unroutable: int = 0
    routed: int = 0
    delivered: int = 0
    redelivered: int = 0
    dead: int = 0
    sampled: bool = False

    def json(self) -> Json:
        """For the page."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class _DeadQueue:
    """What is known of a queue that dead letters go to: what of its depth is explained by what was published to it."""

    base: int
    routed: int = 0
    told: int = 0
    before: int = 0
    credit: int = 0
    taken: float = 0.0


@dataclass(frozen=True, slots=True)
class DeadLetterRoute:
    """Dead letters of ``queue`` go to ``target`` by way of ``exchange``."""

    queue: str
    exchange: str
    target: str


@dataclass(slots=True)
class Rates:
    """Messages a second over the last second or window."""

    published: float = 0.0
    delivered: float = 0.0
    edges: dict[tuple[str, str], float] = field(default_factory=dict)


class Traffic:
    """All of it on one thread. ``node_of(user, connection)`` says which node of the stage a client is."""

    def __init__(self, node_of: Callable[[str, str], str]) -> None:
        self.node_of = node_of
        self.totals = Totals()
        self.kept: deque[Json] = deque(maxlen=KEPT_MOVES)
        self.publishers: OrderedDict[str, float] = OrderedDict()
        self.deliveries: dict[tuple[str, str], float] = {}
        self.users: OrderedDict[str, str] = OrderedDict()
        self.flow = False
        self.rates = Rates()
        self._moves: deque[Json] = deque(maxlen=2 * KEPT_MOVES)
        self._samples: deque[Json] = deque(maxlen=SAMPLES)
        self._recent: deque[tuple[float, bool, tuple[tuple[str, str], ...]]] = deque()
        self._window_until = 0.0
        self._busy_until = 0.0
        self._number = 0
        self._dead: dict[str, _DeadQueue] = {}
        self._routes: list[DeadLetterRoute] = []
        self._known_deaths: OrderedDict[str, None] = OrderedDict()
        self._last_from: dict[str, float] = {}
        self._asked: OrderedDict[str, str] = OrderedDict()

    # What comes in

    def copies(self, copies: Iterable[Copy]) -> None:
        """Events, all of them."""
        for copy in copies:
            node = self._client(copy)
            self._recent.append((time.monotonic(), copy.published, self._edges(copy, node)))
            self._count(copy, 1)
            self._add(self._moves_of(copy, node))
        self._trim()

    def window(self, window: Window) -> None:
        """Events of a moment, scaled up."""
        now = time.monotonic()
        self.totals.sampled = True
        self.flow = True
        self._window_until = now + 3.0
        self._busy_until = now + _CALM
        self._recent.clear()
        edges: Counter[tuple[str, str]] = Counter()
        published = 0
        for copy in window.copies:
            node = self._client(copy)
            published += copy.published
            edges.update(self._edges(copy, node))
            self._moves_of(copy, node)
        self._samples.extend(self._moves_of(copy, self._client(copy))[0] for copy in window.copies[:SAMPLES])
        seen = len(window.copies)
        each = window.count / seen / window.seconds if seen else 0.0
        self.rates = Rates(
            published * each, (seen - published) * each, {edge: count * each for edge, count in edges.items()}
        )
        scale = window.count / seen if seen else 0.0
        self.totals.published += round(published * scale)
        self.totals.delivered += round((seen - published) * scale)

    def looked(self, depths: dict[str, Depth], routes: list[DeadLetterRoute], unacked: dict[str, int]) -> None:
        """The depths of the queues now: a queue of dead letters that grows by itself has been given some.

        RabbitMQ moves dead letters by itself; the firehose does not tell of it.
        """
        self._routes = routes
        targets = {route.target for route in routes}
        for gone in set(self._dead) - targets:
            del self._dead[gone]
        for target in targets & set(depths):
            depth = depths[target]
            known = self._dead.setdefault(target, _DeadQueue(depth.ready))
            unexplained = depth.ready - known.base - known.routed - known.told
            consumed = depth.consumers or unacked.get(target) or known.taken > time.monotonic() - _HELD
            if consumed or unexplained < 0 or self.flow:
                # What is taken from it tells its own story; see _died.
                known.base, known.routed, known.told, known.before = depth.ready, 0, 0, 0
                continue
            # The copy of a publication may arrive after the depth: believe what is seen twice.
            new = min(unexplained, known.before)
            known.before = unexplained - new
            if new > 0:
                known.told += new
                known.credit += new
                self._add([self._dead_move(target, None) for _ in range(min(new, 20))])
                self.totals.dead += new

    # What goes out

    def taken(self) -> list[Json]:
        """The moves since the last call; none while there is a flow."""
        moves = list(self._moves)
        self._moves.clear()
        return [] if self.flow else moves

    def tick(self) -> bool:
        """Look at the rates; return whether there is a flow."""
        now = time.monotonic()
        self._trim()
        if now > self._window_until:
            edges: Counter[tuple[str, str]] = Counter()
            published = 0
            for _, was_published, taken in self._recent:
                published += was_published
                edges.update(taken)
            self.rates = Rates(published, len(self._recent) - published, {key: float(n) for key, n in edges.items()})
        if max(self.rates.published, self.rates.delivered) > MANY:
            self._busy_until = now + _CALM
        was = self.flow
        self.flow = now < self._busy_until
        if was and not self.flow:
            self._moves.clear()
        return self.flow

    def flow_state(self) -> Json:
        """The rates of the edges, and a few messages."""
        samples = list(self._samples)
        self._samples.clear()
        return {
            "edges": [[a, b, round(rate, 1)] for (a, b), rate in self.rates.edges.items()],
            "samples": samples,
            "published": round(self.rates.published, 1),
            "delivered": round(self.rates.delivered, 1),
        }

    # How it is done

    def _client(self, copy: Copy) -> str:
        self.users[copy.connection] = copy.user
        while len(self.users) > 200:
            self.users.popitem(last=False)
        node = self.node_of(copy.user, copy.connection)
        now = time.monotonic()
        if copy.published:
            self.publishers[node] = now
            self.publishers.move_to_end(node)
            while len(self.publishers) > 12:
                self.publishers.popitem(last=False)
        else:
            self.deliveries[copy.queues[0], node] = now
            self._last_from[copy.queues[0]] = now
            if len(self.deliveries) > 500:
                self.deliveries.clear()
        return node

    def _edges(self, copy: Copy, node: str) -> tuple[tuple[str, str], ...]:
        if copy.published:
            exchange = f"x:{copy.exchange}"
            return ((node, exchange), *((exchange, f"q:{queue}") for queue in copy.queues))
        return ((f"q:{copy.queues[0]}", node),)

    def _count(self, copy: Copy, each: int) -> None:
        if copy.published:
            self.totals.published += each
            self.totals.routed += each * len(copy.queues)
            self.totals.unroutable += 0 if copy.queues or copy.key.startswith(REPLY_TO) else each
        else:
            self.totals.delivered += each
            self.totals.redelivered += each if copy.redelivered else 0

    def _moves_of(self, copy: Copy, node: str) -> list[Json]:
        self._number += 1
        move: Json = {
            "kind": "publish" if copy.published else "deliver",
            "n": self._number,
            "id": fingerprint(copy),
            "node": node,
            "exchange": copy.exchange,
            "key": copy.key[:_LONG],
            "time": round(copy.seen, 3),
            "size": copy.size,
            "body": shown_body(copy),
            "properties": shown(copy.properties),
        }
        if copy.published:
            self._published(copy)
            reply = self._reply(copy, node)
            if reply:
                self.totals.routed += 1
                self.totals.delivered += 1
                # RabbitMQ hands a direct reply over without a queue, and the firehose tells only of its publication.
                return [{**move, "queues": [REPLY_TO]}, {**move, "kind": "deliver", "queue": REPLY_TO, "node": reply}]
            return [{**move, "queues": list(copy.queues)}]
        queue = copy.queues[0]
        dead = self._died(copy)
        return [*dead, {**move, "queue": queue, "redelivered": copy.redelivered}]

    def _reply(self, copy: Copy, node: str) -> str:
        """The node that a direct reply goes to; remembers who has asked."""
        correlation = str(copy.properties.get("correlation_id", ""))[:_LONG]
        if copy.properties.get("reply_to") and correlation:
            self._asked[correlation] = node
            while len(self._asked) > 1000:
                self._asked.popitem(last=False)
        direct = copy.exchange == "" and copy.key.startswith(REPLY_TO)
        return self._asked.pop(correlation, "") if direct and not copy.queues else ""

    def _published(self, copy: Copy) -> None:
        for queue in copy.queues:
            if queue in self._dead:
                self._dead[queue].routed += 1
        death = _death(copy)
        if death:
            # Somebody publishes a dead letter again: its story is not news when it is delivered.
            self._remember(death)

    def _died(self, copy: Copy) -> list[Json]:
        """The move of a dead letter that is seen only now, when it is delivered from where it went."""
        queue = copy.queues[0]
        known = self._dead.get(queue)
        if known:
            known.taken = time.monotonic()
        death = _death(copy)
        if not death or copy.redelivered or death in self._known_deaths:
            return []
        self._remember(death)
        if known and known.credit:
            known.credit -= 1
            return []
        self.totals.dead += 1
        return [self._dead_move(queue, copy)]

    def _dead_move(self, target: str, copy: Copy | None) -> Json:
        self._number += 1
        sources = [route for route in self._routes if route.target == target]
        # The one that something was taken from last: a rejection follows a delivery.
        sources.sort(key=lambda route: self._last_from.get(route.queue, 0.0))
        route = sources[-1] if sources else DeadLetterRoute("", "", target)
        move: Json = {
            "kind": "dead",
            "n": self._number,
            "id": "",
            "queue": route.queue,
            "exchange": route.exchange,
            "target": target,
            "time": round(time.time(), 3),
            "reason": "",
        }
        if copy:
            first = _deaths(copy)[0]
            move.update(
                id=fingerprint(copy),
                queue=str(first.get("queue", route.queue)),
                reason=str(first.get("reason", "")),
                key=copy.key[:_LONG],
                size=copy.size,
                body=shown_body(copy),
                properties=shown(copy.properties),
            )
        return move

    def _remember(self, death: str) -> None:
        self._known_deaths[death] = None
        while len(self._known_deaths) > 1000:
            self._known_deaths.popitem(last=False)

    def _add(self, moves: list[Json]) -> None:
        self.kept.extend(moves)
        self._moves.extend(moves)
        if self.flow:
            self._samples.extend(moves)

    def _trim(self) -> None:
        oldest = time.monotonic() - 1.0
        while self._recent and self._recent[0][0] < oldest:
            self._recent.popleft()


def fingerprint(copy: Copy) -> str:
    """What tells this message from others: its id, or a hash of what it is."""
    own = copy.properties.get("message_id")
    if own:
        return str(own)[:_LONG]
    text = repr((copy.properties.get("correlation_id"), copy.properties.get("timestamp"), copy.size)).encode()
    return hashlib.blake2b(text + copy.body, digest_size=8).hexdigest()


def shown_body(copy: Copy) -> str:
    """The beginning of a body as text; what is no UTF-8 is shown as U+FFFD."""
    text = copy.body.decode("utf-8", "replace")
    return text[:_LONG] + ("…" if copy.size > len(copy.body) or len(text) > _LONG else "")


def shown(value: Any, depth: int = 5) -> Any:
    """Properties and headers as JSON of a bounded size."""
    if isinstance(value, dict) and depth:
        return {str(key)[:_LONG]: shown(item, depth - 1) for key, item in list(value.items())[:30]}
    if isinstance(value, (list, tuple)) and depth:
        return [shown(item, depth - 1) for item in value[:30]]
    if value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text[:_LONG] + ("…" if len(text) > _LONG else "")


def _deaths(copy: Copy) -> list[dict[str, Any]]:
    headers = copy.properties.get("headers")
    deaths = headers.get("x-death") if isinstance(headers, dict) else None
    return [item for item in deaths if isinstance(item, dict)] if isinstance(deaths, list) else []


def _death(copy: Copy) -> str:
    """What tells one death of a message from another."""
    deaths = _deaths(copy)
    if not deaths:
        return ""
    return repr((fingerprint(copy), [(item.get("queue"), item.get("reason"), item.get("count")) for item in deaths]))
