"""What a README that is wrong looks like: the line, what was expected, what was seen, as a diff."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from common.errors import ExitCode, Failure
from tour.scenario import Action, Block, Command, Output, Press, as_written
from tour.terminal import Terminal
from tour.varying import Memory

_TAIL = 20


class Mismatch(Failure):
    """A README says one thing, the programs do another. ``str()`` is one line; ``report`` has the diff below it."""

    exit_code = ExitCode.DATA

    def __init__(
        self, where: str, what: str, terminal: Terminal, diff: Sequence[str], others: Sequence[Terminal]
    ) -> None:
        super().__init__(f"{where}: {terminal.name} {what}")
        parts = [str(self), *diff]
        if terminal.code is not None and terminal.lines:
            parts += [f"All that the command in {terminal.name} printed:", *_tail(terminal)]
        for other in others:
            if other.code is not None and not other.done and not other.stopped:
                # Often the cause, where the mismatch is only the effect.
                parts += [f"Before that, {other.name} ended by itself (exit code {other.code}); it printed:"]
                parts += _tail(other)
        self.report = "\n".join(parts)


def _tail(terminal: Terminal) -> list[str]:
    lines = terminal.lines[-_TAIL:]
    left_out = len(terminal.lines) - len(lines)
    return [*([f"    ({left_out} lines before)"] if left_out else []), *(f"    {line}" for line in lines)]


def diff(block: Block, played: int, terminal: Terminal, source: str, memory: Memory) -> list[str]:
    """A unified diff of what ``block`` says of its terminal against what was seen there.

    The first ``played`` actions were as they should be, the next was not.
    """
    told = [as_written(action) for action in block.actions[:played]]
    ahead = _same_breath(block.actions[played:])
    expected = told + [as_written(action) for action in ahead]
    seen = told + terminal.passed
    outputs = [action for action in ahead if isinstance(action, Output)]
    for line in terminal.unread:
        # A line that is expected further down is shown as the README writes it: it is not what is wrong.
        match = next((output for output in outputs if memory.fits(output.text, output.varies, line)), None)
        if match:
            del outputs[: outputs.index(match) + 1]
        seen.append(match.text if match else line)
    if terminal.code:
        seen.append(f"(exit code {terminal.code})")
    return list(
        difflib.unified_diff(
            expected, seen, f"{source}:{block.line} (expected)", f"{terminal.name} (seen)", lineterm="", n=1000
        )
    )


def _same_breath(actions: Sequence[Action]) -> list[Action]:
    """The lines up to the next that the reader has a hand in: what lies behind it cannot have happened yet."""
    hand = next((place for place, action in enumerate(actions) if isinstance(action, (Command, Press))), len(actions))
    return list(actions[:hand])
