"""Play the examples: type what their READMEs say, and compare what happens.

Without a name, all examples are played in reading order. Each has a virtual host of its own, which is deleted
afterwards: your own queues are neither seen nor touched. The exit code is 0 if everything was as the READMEs say.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.text import Text

from common import console
from common.config import Settings
from tour.examples import Example, choose, examples
from tour.player import (
    OWN_BROKER,
    ROOT,
    Ended,
    Event,
    Pressed,
    Printed,
    Result,
    Section,
    Skipped,
    Typed,
    play,
)
from tour.scenario import CTRL_C, Scenario

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red", "bright_cyan", "bright_magenta")


class Screen:
    """Shows events as they happen, each line with its terminal before it: the number and what runs there."""

    def __init__(self, out: Console, scenario: Scenario) -> None:
        self.out = out
        self.width = max((len(block.label) for block in scenario.played), default=0)

    def show(self, event: Event) -> None:
        """Print one event."""
        match event:
            case Section(heading):
                self.line(Text(f"\n## {heading}", "bold"))
            case Typed(terminal, command):
                self.labelled(terminal, Text(f"$ {command}", "bold"))
            case Printed(terminal, line):
                self.labelled(terminal, Text(console.printable(line)))
            case Pressed(terminal):
                self.labelled(terminal, Text(CTRL_C, "bold"))
            case Ended(terminal, code) if code:
                self.labelled(terminal, Text(f"(exit code {code})", "dim"))
            case Skipped(reason):
                self.line(Text(f"skipped: {reason}", "dim"))

    def labelled(self, terminal: str, text: Text) -> None:
        number = int(terminal.partition(" ")[0])
        style = _COLOURS[(number - 1) % len(_COLOURS)]
        self.line(Text.assemble((terminal.ljust(self.width), style), (" │ ", "dim"), text))

    def line(self, text: Text) -> None:
        # A reader copies commands from here: long lines are the terminal's business.
        self.out.print(text, soft_wrap=True)


def main() -> None:
    parser = console.parser(__doc__)
    parser.prog = "python -m tour"
    parser.add_argument("examples", nargs="*", metavar="EXAMPLE", help="such as work_queue; all of them by default")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--list", action="store_true", help="only list the examples, in reading order")
    mode.add_argument("--check", action="store_true", help="only compare: one line for each example")
    parser.add_argument(
        "--own-broker",
        action="store_true",
        default=os.environ.get(OWN_BROKER, "") not in ("", "0"),
        help=f"play what restarts RabbitMQ too ({OWN_BROKER}=1); it must be one that `python -m broker up` has started",
    )
    arguments = parser.parse_args()
    out = Console(highlight=False)
    chosen = choose(examples(ROOT), arguments.examples)
    if arguments.list:
        _list(out, chosen)
        return
    _stop_on_signals()
    settings = Settings.load()
    failed = [item.name for item in chosen if not _play(out, item, settings, arguments.own_broker, arguments.check)]
    if failed:
        sys.exit(f"error: not as the README says: {', '.join(failed)}")


def _list(out: Console, chosen: Sequence[Example]) -> None:
    for place, example in enumerate(chosen, 1):
        out.print(Text.assemble(f"{place:2}. ", (example.name, "bold")), soft_wrap=True)
        out.print(Text(f"    {example.scenario.sentence}"), soft_wrap=True)
    for example in chosen:
        if not example.mapped:
            console.warn(f"{example.name} is not in the map of the root README")


def _play(out: Console, example: Example, settings: Settings, own_broker: bool, only_check: bool) -> bool:
    """Play one example and tell how it went; return whether all was as it should be."""
    screen = Screen(out, example.scenario)
    if example.error:
        _tell(screen, example, Result(example.name, failure=example.error), only_check)
        return False
    if not only_check:
        screen.line(Text(f"\n# {example.scenario.title}", "bold"))
        screen.line(
            Text(f"{example.scenario.sentence}\n{example.scenario.source}, in a virtual host of its own", "dim")
        )
    result = play(example.scenario, settings, own_broker=own_broker, on_event=None if only_check else screen.show)
    _tell(screen, example, result, only_check)
    return not result.failure


def _tell(screen: Screen, example: Example, result: Result, only_check: bool) -> None:
    blocks = len(example.scenario.played)
    part = f"{blocks}" if result.blocks == blocks else f"{result.blocks} of {blocks}"
    took = f"{part} blocks, {result.seconds:.1f} s"
    if not only_check:
        screen.line(Text())
    if result.failure:
        screen.line(Text.assemble(("FAILED ", "bold red"), f"{example.name} ({took})"))
        for line in result.failure.splitlines():
            style = {"-": "red", "+": "green", "@": "dim"}.get(line[:1], "")
            screen.line(Text(console.printable(line), style))
    elif result.unsupported:
        screen.line(Text.assemble(("skipped", "yellow"), f" {example.name}: {result.unsupported}"))
    else:
        screen.line(Text.assemble(("ok", "green"), f" {example.name} ({took})"))
    if only_check:
        for reason in result.skipped:
            screen.line(Text(f"   skipped: {reason}", "dim"))


def _stop_on_signals() -> None:
    """SIGINT, SIGTERM and SIGHUP unwind the stack, so that no process and no virtual host is left behind."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Tidying up takes a moment; a second signal must not break it off.
            signal.signal(other, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


if __name__ == "__main__":
    console.run(main)
