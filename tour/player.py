"""Plays a scenario with real processes, and compares what they print with what the README says.

``Player`` is a generator of events, for a front end that goes step by step; ``play`` plays all of a README in a
virtual host of its own and returns a Result.
"""

from __future__ import annotations

import queue
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

from common.config import Settings
from common.errors import ExitCode, Failure
from extras.management import Management
from tour.report import Mismatch, diff
from tour.scenario import CTRL_C, Action, AnyLines, Block, Command, Exit, Output, Press, Scenario, parse
from tour.terminal import CommandError, Process, Terminal
from tour.varying import Memory
from tour.vhost import environment, fresh_vhost

ROOT = Path(__file__).resolve().parent.parent
OWN_BROKER = "TOUR_OWN_BROKER"
# After a mismatch: seconds to wait for the lines that follow, so that the diff shows them.
_AFTERMATH = 1.0


@dataclass(frozen=True, slots=True)
class Section:
    """The blocks that follow stand under this heading."""

    heading: str


@dataclass(frozen=True, slots=True)
class Typed:
    """A command was typed."""

    terminal: str
    command: str


@dataclass(frozen=True, slots=True)
class Printed:
    """A line came out of a terminal; other terminals' lines come as they happen."""

    terminal: str
    line: str


@dataclass(frozen=True, slots=True)
class Pressed:
    """Ctrl-C was pressed."""

    terminal: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A command has returned, with this exit code."""

    terminal: str
    code: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A part that is not played, and why."""

    reason: str


Event = Section | Typed | Printed | Pressed | Ended | Skipped


class NotHere(Failure):
    """The scenario needs more than there is: one of its programs said so in this line.

    Either this broker cannot do it (exit code 79), or a package is not installed (72).
    """

    exit_code = ExitCode.UNSUPPORTED


class Player:
    """Plays the blocks of one scenario. Use it with ``with``, or close() it: no process is left behind.

    ``folder`` is where the commands run, ``environ`` their environment. ``own_broker`` says whether they may restart
    RabbitMQ; the parts that do are skipped otherwise. ``version`` is that of RabbitMQ, such as (3, 10, 8): parts that
    need a newer one are skipped. Without it all is played.
    """

    def __init__(
        self,
        scenario: Scenario,
        environ: Mapping[str, str],
        *,
        folder: Path = ROOT,
        own_broker: bool = False,
        version: tuple[int, ...] | None = None,
    ) -> None:
        self.scenario = scenario
        self.environ = dict(environ)
        self.folder = folder
        self.own_broker = own_broker
        self.version = version
        self.memory = Memory()
        self._terminals: dict[int, Terminal] = {}
        self._processes: list[Process] = []
        self._happenings: queue.SimpleQueue[tuple[Terminal, str | int]] = queue.SimpleQueue()
        self.blocks = 0
        self._heading = ""
        self._skipped = ""

    def __enter__(self) -> Player:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill what still runs."""
        for process in self._processes:
            process.kill()

    def events(self) -> Iterator[Event]:
        """Play all blocks, and end. Raises Mismatch, NotHere, CommandError."""
        for block in self.scenario.played:
            yield from self.play(block)
        yield from self.finish()

    def play(self, block: Block) -> Iterator[Event]:
        """Play one block; it is done when the generator is. Raises Mismatch, NotHere, CommandError.

        Blocks are to be played in their order, each to its end.
        """
        if block.heading != self._heading:
            self._heading = block.heading
            yield Section(block.heading)
        if reason := self._not_here(block):
            if self._skipped != block.heading:
                self._skipped = block.heading
                yield Skipped(f"{self.scenario.source}:{block.line}: {block.heading!r} {reason}")
            return
        terminal = self._terminals.setdefault(block.terminal, Terminal(block.terminal))
        yield from _Turn(self, block, terminal).play()
        self.blocks += 1

    def _not_here(self, block: Block) -> str:
        """Why the block cannot be played here; empty if it can."""
        if block.own_broker and not self.own_broker:
            return f"restarts RabbitMQ; it is played only where that disturbs nobody ({OWN_BROKER}=1)"
        if self.version is not None and self.version < block.needs:
            needed, found = (".".join(map(str, numbers)) for numbers in (block.needs, self.version))
            return f"needs RabbitMQ {needed} or later; this broker is {found}"
        return ""

    def finish(self) -> Iterator[Event]:
        """Wait for the end of what was killed. Raises Mismatch."""
        for terminal in self._terminals.values():
            if terminal.last is not None:
                yield from _Turn(self, terminal.last, terminal).finish()

    # What a turn does with its terminal

    def start(self, terminal: Terminal, command: str) -> None:
        """Run ``command`` in ``terminal``. Raises CommandError."""

        def on_line(text: str) -> None:
            self._happenings.put((terminal, text))

        def on_exit(code: int) -> None:
            self._happenings.put((terminal, code))

        terminal.process = Process(command, self.environ, self.folder, on_line, on_exit)
        self._processes.append(terminal.process)

    def pump(self, seconds: float) -> Iterator[Event]:
        """What happens next in any terminal, if it does within ``seconds``, and what has happened meanwhile."""
        try:
            happening = self._happenings.get(timeout=max(0.0, seconds))
            while True:
                yield self._note(*happening)
                happening = self._happenings.get_nowait()
        except queue.Empty:
            return

    def _note(self, terminal: Terminal, what: str | int) -> Event:
        if isinstance(what, int):
            terminal.code = what
            return Ended(terminal.label, what)
        terminal.printed(what)
        return Printed(terminal.label, what)

    def owner(self, pid: int, command: Command) -> Terminal | None:
        """The terminal among the victims of ``command`` whose program has this process id."""
        victims = [self._terminals[number] for number in command.victims]
        return next((victim for victim in victims if victim.process and victim.process.owns(pid)), None)

    def others(self, than: Terminal) -> list[Terminal]:
        """The other terminals of the scenario."""
        return [terminal for terminal in self._terminals.values() if terminal is not than]


class _Turn:
    """One block's turn in its terminal."""

    def __init__(self, player: Player, block: Block, terminal: Terminal) -> None:
        self.player = player
        self.block = block
        self.terminal = terminal
        self.done = 0

    def play(self) -> Iterator[Event]:
        terminal = self.terminal
        terminal.last = self.block
        if not self.block.goes_on:
            yield from self.prompt()
        terminal.role = self.block.role
        for action in self.block.actions:
            match action:
                case Command():
                    yield from self.type(action)
                case Output():
                    yield from self.expect(action)
                case AnyLines():
                    terminal.anything = True
                case Press():
                    yield from self.press()
                case Exit():
                    yield from self.ended(action)
            self.done += 1
        if not terminal.done and not self.block.stays:
            yield from self.ended(None)

    def finish(self) -> Iterator[Event]:
        """The end of the scenario in this terminal."""
        terminal = self.terminal
        self.done = len(self.block.actions)
        if not terminal.done:
            yield from self.ended(None)

    def type(self, command: Command) -> Iterator[Event]:
        terminal = self.terminal
        yield from self.prompt()
        text = self.player.memory.real(command.text)
        yield Typed(terminal.label, text)
        terminal.started()
        yield from self.player.pump(0)
        self.kill(command, text)
        try:
            self.player.start(terminal, text)
        except CommandError as error:
            raise CommandError(f"{self.where(command)}: {error}") from None

    def prompt(self) -> Iterator[Event]:
        """The prompt must be back before anything can be typed."""
        if self.terminal.process is not None and not self.terminal.done:
            yield from self.ended(None)

    def kill(self, command: Command, text: str) -> None:
        """Note whose program ``command`` is about to kill, and see to it that it is one that was started here."""
        for pid in replace(command, text=text).kills:
            victim = self.player.owner(int(pid), command)
            if victim is None:
                raise self.mismatch(f"cannot do this: {text} (the program has ended)")
            victim.stopped, victim.killed = text, command.merciless

    def press(self) -> Iterator[Event]:
        terminal = self.terminal
        yield from self.player.pump(0)
        if terminal.code is not None:
            raise self.mismatch(f"ended (exit code {terminal.code}) before {CTRL_C}")
        terminal.stopped = CTRL_C
        yield Pressed(terminal.label)
        assert terminal.process is not None
        terminal.process.interrupt()

    def expect(self, output: Output) -> Iterator[Event]:
        terminal = self.terminal
        deadline = time.monotonic() + self.block.limit
        while True:
            while terminal.unread:
                if self.player.memory.accept(output.text, output.varies, terminal.unread[0]):
                    terminal.read()
                    return
                if not terminal.anything:
                    yield from self.aftermath()
                    self.check_support()
                    raise self.mismatch("printed another line", output)
                terminal.pass_over()
            if terminal.code is not None:
                self.check_support()
                raise self.mismatch(f"ended (exit code {terminal.code}) without this line", output)
            left = deadline - time.monotonic()
            if left <= 0:
                raise self.mismatch(f"did not print this within {self.block.limit:g} s", output)
            yield from self.player.pump(left)

    def ended(self, told: Exit | None) -> Iterator[Event]:
        """Wait until the command has returned as the README has ``told``, or as it should if it does not say."""
        terminal = self.terminal
        deadline = time.monotonic() + self.block.limit
        while terminal.code is None and not terminal.excess:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self.mismatch(f"did not return within {self.block.limit:g} s{self.advice()}")
            yield from self.player.pump(left)
        yield from self.aftermath()
        wanted = told.code if told else 0
        fits = terminal.code == wanted or (told is None and terminal.killed)
        if not fits:
            self.check_support()
        if terminal.excess:
            raise self.mismatch("printed more than the README says")
        if not fits:
            raise self.mismatch(f"ended with exit code {terminal.code}, not {wanted}", told)
        terminal.unread.clear()
        terminal.done = True

    def advice(self) -> str:
        """What to do about a program that does not end."""
        if self.terminal.stopped:
            return f" after {self.terminal.stopped}"
        return ": end it with ^C in its last block, or with kill in another terminal"

    def aftermath(self) -> Iterator[Event]:
        """Let the lines arrive that belong to the one that is wrong."""
        deadline = time.monotonic() + _AFTERMATH
        while self.terminal.code is None and (left := deadline - time.monotonic()) > 0:
            yield from self.player.pump(left)

    def check_support(self) -> None:
        terminal = self.terminal
        if terminal.code in (ExitCode.UNSUPPORTED, ExitCode.NOT_INSTALLED) and terminal.lines:
            raise NotHere(f"{self.where(None)}: {terminal.lines[-1].removeprefix('error: ')}")

    def where(self, action: Action | None) -> str:
        """The place in the README: that of ``action``, or the last one that was played."""
        number = action.number if action else self.block.actions[max(0, self.done - 1)].number
        return f"{self.player.scenario.source}:{number}"

    def mismatch(self, what: str, action: Output | Exit | None = None) -> Mismatch:
        source = self.player.scenario.source
        return Mismatch(
            self.where(action),
            f"{what}: {action.text}" if isinstance(action, Output) else what,
            self.terminal,
            diff(self.block, self.done, self.terminal, source, self.player.memory),
            self.player.others(self.terminal),
        )


@dataclass(slots=True)
class Result:
    """How a scenario went.

    ``blocks`` is the number of blocks that were played to their end. ``failure`` is a text of several lines, empty if
    all was as the README says. ``skipped`` are the reasons of the parts that were not played; ``unsupported`` is why
    the scenario broke off, empty if it can all be done here.
    """

    name: str
    blocks: int = 0
    failure: str = ""
    skipped: list[str] = field(default_factory=list)
    unsupported: str = ""
    seconds: float = 0.0


def play(
    scenario: Scenario,
    settings: Settings,
    *,
    folder: Path = ROOT,
    own_broker: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> Result:
    """Play a scenario in a fresh virtual host of the broker of ``settings``; its commands run in ``folder``.

    ``on_event`` is called with each event as it happens. What the README tells wrongly is in the Result, never an
    exception. Raises a ManagementFailure if the virtual host cannot be made.
    """
    result = Result(scenario.source)
    begin = time.monotonic()
    with (
        fresh_vhost(settings, f"tour.{scenario.source}") as own,
        Player(scenario, environment(own), folder=folder, own_broker=own_broker, version=_version(own)) as player,
    ):
        try:
            for event in player.events():
                if isinstance(event, Skipped):
                    result.skipped.append(event.reason)
                if on_event:
                    on_event(event)
        except Mismatch as mismatch:
            result.failure = mismatch.report
        except CommandError as error:
            result.failure = str(error)
        except NotHere as reason:
            result.unsupported = str(reason)
        result.blocks = player.blocks
    result.seconds = time.monotonic() - begin
    return result


def _version(settings: Settings) -> tuple[int, ...]:
    with Management(settings) as api:
        return tuple(int(digits) for digits in re.findall(r"\d+", api.version())[:3])


def load(readme: Path, root: Path = ROOT) -> Scenario:
    """The scenario of a README, named by its path below ``root``. Raises ScenarioError if it cannot be played."""
    source = readme.resolve().relative_to(root.resolve()).as_posix()
    return parse(readme.read_text(encoding="utf-8"), source)
