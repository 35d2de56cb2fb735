"""Plays a step of a README in the terminals of a session.

More patient than the tour, which checks: the reader has a hand in it, may have killed a worker or started another.
A step that comes out otherwise than the README says is told, and the next one can be played all the same.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from playground.terminals import Terminal, ended
from tour.scenario import Block, Command, Exit, Output, Press
from tour.varying import Memory

_REAP = 15.0


class Stage(Protocol):
    """What a step needs of its session."""

    memory: Memory
    """What was seen in place of the README's examples."""

    def terminal(self, block: Block) -> Terminal:
        """The terminal in which it happens. Raises Busy."""

    def owner(self, pid: int) -> Terminal | None:
        """The terminal whose program has this process id."""

    async def launch(self, terminal: Terminal, command: str) -> None:
        """Run a README's command in it. Raises a Failure."""


Play = Callable[[Stage, Block], Awaitable[str]]


async def play(stage: Stage, block: Block) -> str:
    """Play one block; return what was otherwise than the README says, in a sentence, or nothing.

    Raises a Failure if a command cannot be run.
    """
    terminal = stage.terminal(block)
    pressed = False
    exited = False
    for action in block.actions:
        told = ""
        match action:
            case Command():
                if terminal.running and not await _returned(terminal, block.limit):
                    return f"terminal {terminal.title} is still busy; stop it, and play the step again"
                text = stage.memory.real(action.text)
                if any(stage.owner(int(pid)) is None for pid in replace(action, text=text).kills):
                    return f"{text} would kill nothing: the program has ended, or was started again"
                await stage.launch(terminal, text)
                pressed = exited = False
            case Output():
                told = await _expect(terminal, action, block.limit, stage.memory)
            case Press():
                pressed = True
                if terminal.running:
                    terminal.interrupt()
            case Exit(_, code):
                exited = True
                told = await _exit(terminal, code, block.limit)
        if told:
            return told
    if exited or block.stays:
        return ""
    return await _exit(terminal, None if pressed else 0, block.limit)


async def _expect(terminal: Terminal, output: Output, limit: float, memory: Memory) -> str:
    deadline = time.monotonic() + limit
    while True:
        while terminal.unread:
            if memory.accept(output.text, output.varies, terminal.unread.popleft()):
                return ""
        if not terminal.running:
            how = ended(terminal.code) if terminal.code is not None else "(nothing runs in it)"
            return f"terminal {terminal.title} ended {how} without the line: {output.text.strip()}"
        left = deadline - time.monotonic()
        if left <= 0:
            return f"terminal {terminal.title} did not print within {limit:g} s: {output.text.strip()}"
        await terminal.news(left)


async def _exit(terminal: Terminal, wanted: int | None, limit: float) -> str:
    """Wait until it has ended, and compare the exit code with the one ``wanted``, if that matters."""
    if not await _returned(terminal, limit):
        return f"terminal {terminal.title} did not end within {limit:g} s"
    if wanted is not None and terminal.code not in (wanted, None):
        return f"terminal {terminal.title} {ended(terminal.code)}, where the README has exit code {wanted}"
    return ""


async def _returned(terminal: Terminal, limit: float) -> bool:
    deadline = time.monotonic() + limit
    while terminal.running:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        await terminal.news(left)
    return True
