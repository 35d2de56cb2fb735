"""One visitor's session: a virtual host, the terminals of one example, and the browsers that look at it.

All of it happens on the event loop's thread; what waits for the broker or for a process is done on others.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import Settings
from common.errors import ExitCode, Failure
from playground import by_hand, steps
from playground.broker_side import BrokerSide
from playground.firehose import Copy, Firehose, Window
from playground.identity import MARK, Identity
from playground.lesson import Lesson
from playground.observer import Observed, Observer
from playground.stage import Stage
from playground.terminals import Terminal, pause
from playground.traffic import Traffic
from tour.scenario import Block, Command
from tour.varying import Memory
from tour.vhost import environment

Json = dict[str, Any]

_TICK = 0.08
_CHART = 1.0
_CHART_KEPT = 300
_MOST_QUEUES = 12


class Busy(Failure):
    """There is as much as there may be; the text says of what, and what to do."""

    exit_code = ExitCode.UNAVAILABLE


class BadRequest(Failure):
    """The page asked for what is not there."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True, slots=True)
class Limits:
    """How much there may be, and for how long.

    ``linger``: seconds that a session is kept when nobody looks; ``pause``: seconds between the steps of "play all".
    """

    sessions: int = 6
    running: int = 12
    terminals: int = 24
    viewers: int = 8
    linger: float = 60.0
    pause: float = 0.7


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all sessions have in common. ``own_broker``: steps and readers may restart RabbitMQ."""

    settings: Settings
    root: Path
    database: Path
    limits: Limits = Limits()
    own_broker: bool = False


class Viewer:
    """One browser that looks; ``queue`` is what it is to be sent. It is dropped if it does not keep up."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str | None] = asyncio.Queue(maxsize=400)
        self.late = False

    def send(self, message: str) -> None:
        """Put it in the queue, or drop the viewer."""
        try:
            self.queue.put_nowait(message)
        except asyncio.QueueFull:
            self.late = True
            while not self.queue.empty():
                self.queue.get_nowait()
            self.queue.put_nowait(None)


class Session:
    """Make it with open(), end it with close()."""

    def __init__(self, ident: str, lesson: Lesson, surroundings: Surroundings) -> None:
        self.id, self.lesson, self.surroundings = ident, lesson, surroundings
        self.server = Identity.own()
        self.viewers: set[Viewer] = set()
        self.unwatched_since = time.monotonic()
        self.closed = False
        self.broker = self._broker(0)
        self.database = surroundings.database / f"{secrets.token_hex(6)}.sqlite"
        self.terminals: dict[str, Terminal] = {}
        self.memory = Memory()
        self.next = 0
        self.playing = False
        self.play_until = 0
        self.remark = ""
        self.trouble = {"firehose": "", "observer": ""}
        self.traffic = Traffic(self.node_of)
        self.stage = Stage(self.traffic, self.node_of)
        self.chart: deque[Json] = deque(maxlen=_CHART_KEPT)
        self._round = 0
        self._generation = 0
        self._dirty: set[Terminal] = set()
        self._firehose: Firehose | None = None
        self._observer: Observer | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._player: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._watching = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._last_stage = ""
        self._last_state = ""
        self._last_chart = 0.0
        self._was_flow = False

    def _broker(self, number: int) -> BrokerSide:
        name = f"{self.server}.{self.id[:8]}"
        return BrokerSide(self.surroundings.settings, f"{name}.{number}" if number else name)

    # Its life

    async def open(self) -> None:
        """Make the virtual host. Raises a ManagementFailure."""
        try:
            await asyncio.to_thread(self.broker.open)
        except Failure:
            await asyncio.to_thread(self.broker.discard)
            raise
        self._ticking = asyncio.create_task(self._tick())

    async def close(self) -> Failure | None:
        """End everything: processes, browsers, the virtual host. What the broker refuses is returned."""
        self.closed = True
        for task in (self._player, self._ticking):
            if task:
                task.cancel()
                with suppress(asyncio.CancelledError, Failure):
                    await task
        for viewer in self.viewers:
            viewer.queue.put_nowait(None) if not viewer.queue.full() else viewer.send("")
        # Who left last may be turning the firehose off still, which would make a deleted virtual host anew.
        async with self._watching:
            await asyncio.to_thread(self._end)
        failure = await asyncio.to_thread(self.broker.discard)
        self.database.unlink(missing_ok=True)
        return failure

    def _end(self) -> None:
        """Stop the threads and kill the processes; waits for them."""
        threads = [thread for thread in (self._firehose, self._observer) if thread]
        self._firehose = self._observer = None
        for thread in threads:
            thread.stop()
        for terminal in list(self.terminals.values()):
            terminal.kill()
        for thread in threads:
            thread.join(10)

    async def _start_over(self) -> None:
        if self._player:
            self._player.cancel()
            with suppress(asyncio.CancelledError):
                await self._player
        async with self._turn, self._watching:
            old = self.broker
            self._generation += 1
            await asyncio.to_thread(self._end)
            self.terminals.clear()
            self._dirty.clear()
            self._round += 1
            fresh = self._broker(self._round)
            await asyncio.to_thread(fresh.open)
            self.broker = fresh
            self.database.unlink(missing_ok=True)
            await asyncio.to_thread(old.discard)
            self.next, self.playing, self.remark = 0, False, ""
            self.traffic = Traffic(self.node_of)
            self.stage = Stage(self.traffic, self.node_of)
            self.chart.clear()
            self.memory = Memory()
            self._last_stage = self._last_state = ""
            self._listen()
            self.broadcast(self.snapshot())

    # Who looks

    async def join(self, viewer: Viewer) -> None:
        """A browser begins to look. Raises Busy."""
        if len(self.viewers) >= self.surroundings.limits.viewers:
            raise Busy(f"{len(self.viewers)} browsers look at this session already; close one of them")
        self.viewers.add(viewer)
        viewer.send(json.dumps(self.snapshot()))
        await self._watch()

    async def leave(self, viewer: Viewer) -> None:
        """It has gone. When nobody looks, the firehose is turned off."""
        self.viewers.discard(viewer)
        if not self.viewers:
            self.unwatched_since = time.monotonic()
        await self._watch()

    async def _watch(self) -> None:
        async with self._watching:
            if self.closed:
                return
            if self.viewers and self._firehose is None:
                self._listen()
            elif not self.viewers and self._firehose is not None:
                threads = (self._firehose, self._observer)
                self._firehose = self._observer = None
                for thread in threads:
                    if thread:
                        thread.stop()
                        await asyncio.to_thread(thread.join, 10)

    def _listen(self) -> None:
        if not self.viewers:
            return
        traffic, stage = self.traffic, self.stage
        self._firehose = Firehose(
            self.broker.settings,
            self._on_loop(traffic.copies),
            self._on_loop(traffic.window),
            self._on_loop(lambda text: self.trouble.update(firehose=text)),
        )
        self._observer = Observer(
            self.broker.settings,
            self._on_loop(stage.look),
            self._on_loop(lambda text: self.trouble.update(observer=text)),
            lambda: traffic.flow,
        )
        self._firehose.start()
        self._observer.start()

    def _on_loop(self, function: Callable[[Any], Any]) -> Callable[[list[Copy] | Window | Observed | str], None]:
        def call(value: Any) -> None:
            # The loop is closed while the server ends.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function, value)

        return call

    def node_of(self, user: str, connection: str) -> str:
        """The node of the stage that a client is: a terminal, a script, the reader, or a stranger by its connection.

        Where commands come and go, one node stands for all terminals that run the same script.
        """
        name = self.broker.terminal_of(user)
        if name is None:
            return f"c:{connection}"
        terminal = self.terminals.get(name)
        return "you" if name == by_hand.USER else self.node(terminal) if terminal else f"t:{name}"

    def node(self, terminal: Terminal) -> str:
        """The node of a terminal."""
        return f"t:{terminal.id}" if terminal.lasting else f"s:{terminal.script}"

    def label(self, node: str) -> str:
        """What the page calls a node."""
        kind, _, name = node.partition(":")
        if kind == "t":
            terminal = self.terminals.get(name)
            return terminal.title if terminal else name
        if kind == "c":
            return self.stage.observed.labels.get(name) or name or "somebody"
        return name or node

    def _drawn(self) -> Json:
        alive: dict[str, bool] = {}
        scripts = {}
        for terminal in self.terminals.values():
            node = self.node(terminal)
            alive[node] = terminal.running or alive.get(node, False)
            scripts[node] = terminal.script if terminal.lasting else ""
        return self.stage.json(alive, lambda node: {"label": self.label(node), "script": scripts.get(node, "")})

    # What is sent

    def broadcast(self, message: Json) -> None:
        """To all browsers."""
        if self.viewers:
            text = json.dumps(message)
            for viewer in list(self.viewers):
                viewer.send(text)

    def state(self) -> Json:
        """Where the session is."""
        return {
            "type": "state",
            "next": self.next,
            "playing": self.playing,
            "remark": self.remark,
            "trouble": self.trouble["observer"] or self.trouble["firehose"],
            "ownBroker": self.surroundings.own_broker,
            "totals": self.traffic.totals.json(),
            "flow": self.traffic.flow,
        }

    def snapshot(self) -> Json:
        """All that a browser needs that has just come."""
        return {
            **self.state(),
            "type": "snapshot",
            "session": self.id,
            "example": self.lesson.name,
            "stage": self._drawn(),
            "terminals": [{**terminal.state(), "lines": list(terminal.lines)} for terminal in self.terminals.values()],
            "moves": list(self.traffic.kept),
            "labels": self._labels(list(self.traffic.kept)),
            "chart": list(self.chart),
        }

    async def _tick(self) -> None:
        count = 0
        while True:
            await asyncio.sleep(_TICK)
            count += 1
            flow = self.traffic.tick()
            for terminal in list(self._dirty):
                self._dirty.discard(terminal)
                lines, skipped = terminal.sent()
                self.broadcast({"type": "terminal", **terminal.state(), "more": lines, "skipped": skipped})
            moves = self.traffic.taken()
            if moves:
                self.broadcast({"type": "moves", "moves": moves, "labels": self._labels(moves)})
            if flow and count % 8 == 0:
                self.broadcast({"type": "flow", **self.traffic.flow_state()})
            if count % (12 if flow else 3) == 0 or moves:
                self._send_changes()
            if time.monotonic() - self._last_chart >= _CHART:
                self._last_chart = time.monotonic()
                self._sample()

    def _labels(self, moves: list[Json]) -> Json:
        return {move["node"]: self.label(move["node"]) for move in moves if "node" in move}

    def _send_changes(self) -> None:
        if not self.viewers:
            return
        stage = json.dumps({"type": "stage", "stage": self._drawn()})
        state = json.dumps(self.state())
        for text, attribute in ((stage, "_last_stage"), (state, "_last_state")):
            if text != getattr(self, attribute):
                setattr(self, attribute, text)
                for viewer in list(self.viewers):
                    viewer.send(text)

    def _sample(self) -> None:
        depths = {
            queue.name: (
                self.stage.observed.depths[queue.name].ready if queue.name in self.stage.observed.depths else 0
            )
            for queue in self.stage.observed.queues[:_MOST_QUEUES]
        }
        rates = self.traffic.rates
        sample = {
            "time": round(time.time()),
            "published": round(rates.published, 1),
            "delivered": round(rates.delivered, 1),
            "depths": depths,
        }
        self.chart.append(sample)
        self.broadcast({"type": "chart", "sample": sample})

    # Terminals

    def terminal(self, block: Block) -> Terminal:
        """The README's terminal in which ``block`` happens. Raises Busy."""
        terminal = self.terminals.get(f"{block.terminal}") or self._new_terminal(block.terminal)
        if not block.goes_on:
            terminal.role, terminal.lasting = block.role, block.stays or bool(block.role)
        return terminal

    def owner(self, pid: int) -> Terminal | None:
        """The terminal whose program has this process id."""
        return next((item for item in self.terminals.values() if item.process and item.process.owns(pid)), None)

    def _free_number(self) -> int:
        """One that neither the README nor the page uses."""
        numbers = [step.terminal for step in self.lesson.steps] + [item.number for item in self.terminals.values()]
        return max(numbers, default=0) + 1

    def _new_terminal(self, number: int, role: str = "", lasting: bool = False) -> Terminal:
        limits = self.surroundings.limits
        if sum(terminal.busy for terminal in self.terminals.values()) >= limits.running:
            raise Busy(f"{limits.running} processes run already; stop one of them first")
        while len(self.terminals) >= limits.terminals:
            ended = next((item for item in self.terminals.values() if not item.busy and not item.lasting), None)
            if ended is None:
                raise Busy(f"there are {limits.terminals} terminals already; start over, or stop some")
            del self.terminals[ended.id]
            self.broadcast({"type": "gone", "id": ended.id})
        terminal = Terminal(number, role, lasting, self._dirty.add)
        self.terminals[terminal.id] = terminal
        return terminal

    async def launch(self, terminal: Terminal, command: str) -> None:
        """Run a README's command. Raises a Failure."""
        terminal.prepare(command)
        mark = f"{self.broker.vhost}/{terminal.id}"
        broker, generation = self.broker, self._generation

        def start() -> None:
            own = broker.settings_for(terminal.id)
            environ = environment(own)
            if own.database_url == Settings().database_url:
                environ["DATABASE_URL"] = f"sqlite:///{self.database}"
            environ[MARK] = str(self.server)
            terminal.start(command, environ, self.surroundings.root, mark)
            if self.closed or generation != self._generation:
                # The session ended while this was on its way.
                terminal.kill()

        try:
            await asyncio.to_thread(start)
        except Failure as failure:
            terminal.failed(str(failure))
            raise

    # What a reader does

    async def do(self, request: Json) -> None:
        """Do what the page asks for. Raises a Failure that says why not."""
        action = request.get("do")
        actions: dict[str, Callable[[Json], Coroutine[Any, Any, None]]] = {
            "step": self._do_step,
            "play": self._do_play,
            "hold": self._do_hold,
            "over": self._do_over,
            "interrupt": self._do_interrupt,
            "kill": self._do_kill,
            "restart": self._do_restart,
            "another": self._do_another,
            "pause": self._do_pause,
            "publish": self._do_publish,
            "fill": self._do_fill,
            "cut": self._do_cut,
            "broker": self._do_broker,
        }
        if not isinstance(action, str) or action not in actions:
            raise BadRequest("the page asked for something that the playground does not do")
        await actions[action](request)

    async def _do_step(self, _request: Json) -> None:
        self._start_playing(self.next + 1)

    async def _do_play(self, request: Json) -> None:
        until = request.get("until", len(self.lesson.steps))
        if not isinstance(until, int) or not 0 <= until <= len(self.lesson.steps):
            raise BadRequest("there is no such step")
        self._start_playing(until)

    def _start_playing(self, until: int) -> None:
        if self.playing:
            self.play_until = max(self.play_until, until)
            return
        if self._turn.locked():
            return
        self.playing, self.play_until = True, min(until, len(self.lesson.steps))
        self._player = asyncio.create_task(self._play())

    async def _play(self) -> None:
        try:
            async with self._turn:
                while self.next < self.play_until and not self.closed:
                    self._send_changes()
                    block = self.lesson.steps[self.next]
                    if self._skipped(block):
                        self.next += 1
                        self.remark = self._why_skipped(block)
                        continue
                    self.remark = await steps.play(self, block)
                    self.next += 1
                    if self.remark and self.next < self.play_until:
                        break
                    if self.next < self.play_until:
                        await asyncio.sleep(self.surroundings.limits.pause)
        except Failure as failure:
            self.remark = str(failure)
        finally:
            self.playing = False

    def _skipped(self, block: Block) -> bool:
        return block.own_broker and not self.surroundings.own_broker

    def _why_skipped(self, block: Block) -> str:
        return f"“{block.heading}” is left out: it restarts RabbitMQ, which only --own-broker allows"

    async def _do_hold(self, _request: Json) -> None:
        self.play_until = self.next

    async def _do_over(self, _request: Json) -> None:
        await self._start_over()

    def _chosen(self, request: Json) -> Terminal:
        terminal = self.terminals.get(str(request.get("terminal")))
        if terminal is None:
            raise BadRequest("this terminal is not there any more")
        return terminal

    async def _do_interrupt(self, request: Json) -> None:
        terminal = self._chosen(request)
        if terminal.paused:
            await self._resume(terminal)
        terminal.interrupt()

    async def _do_kill(self, request: Json) -> None:
        terminal = self._chosen(request)
        terminal.killed = True
        await asyncio.to_thread(terminal.kill)

    async def _do_restart(self, request: Json) -> None:
        terminal = self._chosen(request)
        if terminal.running:
            await asyncio.to_thread(terminal.kill)
        if not self._known(terminal.command):
            raise BadRequest("only commands of this README are run")
        await self.launch(terminal, terminal.command)

    async def _do_another(self, request: Json) -> None:
        like = self._chosen(request)
        if not self._known(like.command):
            raise BadRequest("only commands of this README are run")
        extra = self._new_terminal(self._free_number(), like.role, lasting=True)
        await self.launch(extra, like.command)

    def _known(self, command: str) -> bool:
        return any(
            isinstance(action, Command) and action.text == command
            for step in self.lesson.steps
            for action in step.actions
        )

    async def _do_pause(self, request: Json) -> None:
        terminal = self._chosen(request)
        if not terminal.running:
            return
        if terminal.paused:
            await self._resume(terminal)
            return
        terminal.paused = True
        await asyncio.to_thread(pause, f"{self.broker.vhost}/{terminal.id}", True)
        terminal.note("(paused: it holds what it has, and answers nothing)")

    async def _resume(self, terminal: Terminal) -> None:
        terminal.paused = False
        await asyncio.to_thread(pause, f"{self.broker.vhost}/{terminal.id}", False)
        terminal.note("(goes on)")

    async def _do_publish(self, request: Json) -> None:
        message = by_hand.message(request)
        await asyncio.to_thread(lambda: by_hand.publish(self.broker.settings_for(by_hand.USER), message))

    async def _do_fill(self, request: Json) -> None:
        name, count = request.get("queue"), request.get("count")
        messages = by_hand.filling(str(name), count)
        if name not in {queue.name for queue in self.stage.observed.queues}:
            raise BadRequest("there is no such queue")
        await asyncio.to_thread(lambda: by_hand.publish(self.broker.settings_for(by_hand.USER), *messages))

    async def _do_cut(self, request: Json) -> None:
        terminal = self._chosen(request)
        broker = self.broker
        cut = await asyncio.to_thread(by_hand.cut, broker.api, lambda user: broker.terminal_of(user) == terminal.id)
        if not cut:
            raise BadRequest(
                f"terminal {terminal.title} has no connection that RabbitMQ's management API knows; "
                "it learns of one after some seconds"
            )
        terminal.note(f"(RabbitMQ has closed its connection{'s' if cut > 1 else ''})")

    async def _do_broker(self, _request: Json) -> None:
        if not self.surroundings.own_broker:
            raise BadRequest(
                "this RabbitMQ may serve others: `make broker` has not started it, so it is not restarted here"
            )
        terminal = self._new_terminal(self._free_number(), "broker")
        await self.launch(terminal, by_hand.RESTART)
