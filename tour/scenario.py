"""Reads the scenario in a README: its ``console`` blocks.

A block is a fence whose first word is ``console``. The words after it:

- a name: the terminal in which the block happens. A later block of the same name goes on in it. A block without a
  name is a fresh terminal: each command must return, with exit code 0, and print exactly the lines below it;
- ``within=90``: seconds to wait for each expected line, and for a command to return (30 if it is not said);
- ``own-broker``: the block stops or restarts RabbitMQ. Its whole section, from the heading above to the next heading
  of any level, is played only where that disturbs nobody;
- ``needs=3.11``: the block shows what RabbitMQ can do since this version. Its whole section is skipped on an older one;
- ``not-played``: only to be read.

A line of a block is one of:

- ``$ command``: typed. One that ends with a backslash goes on in the next line;
- ``^C``, ``^\\``: the key, pressed. The first asks the program to stop, the second ends it at once;
- ``…``: any number of lines, none included; inside a line it stands for anything, nothing included;
- ``(exit code 69)``: the command before has returned with this code rather than 0;
- anything else: the next line that is printed. Blanks at its end and blank lines do not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from markdown_it import MarkdownIt
from markdown_it.token import Token

from common.errors import ExitCode, Failure

ANYTHING = "…"
DEFAULT_LIMIT = 30.0


class ScenarioError(Failure):
    """A scenario that cannot be played as it is written; the text names the line."""

    exit_code = ExitCode.CONFIG


class Key(Enum):
    """A key that a reader presses together with Ctrl."""

    INTERRUPT = "^C"
    QUIT = "^\\"


@dataclass(frozen=True, slots=True)
class Command:
    """A typed line; ``number`` is its line in the README, from 1."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Output:
    """A line that must appear."""

    number: int
    text: str

    def matches(self, seen: str) -> bool:
        """Whether ``seen`` is this line."""
        parts = (re.escape(part) for part in self.text.split(ANYTHING))
        return re.fullmatch(".*".join(parts), seen.rstrip(), re.DOTALL) is not None


@dataclass(frozen=True, slots=True)
class AnyLines:
    """Lines that do not matter."""

    number: int


@dataclass(frozen=True, slots=True)
class Press:
    """A pressed key."""

    number: int
    key: Key


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of the command before, with its code."""

    number: int
    code: int


Action = Command | Output | AnyLines | Press | Exit


def as_written(action: Action) -> str:
    """The line of the README."""
    match action:
        case Command(_, text):
            return f"$ {text}"
        case Output(_, text):
            return text
        case AnyLines():
            return ANYTHING
        case Press(_, key):
            return key.value
        case Exit(_, code):
            return f"(exit code {code})"


@dataclass(frozen=True, slots=True)
class Block:
    """One ``console`` block: what happens in one terminal without a look at another.

    ``line`` is that of its fence, from 1; ``terminal`` is None for a fresh one; ``limit`` is in seconds;
    ``text`` is what stands in it, as it is; ``needs`` is the first version of RabbitMQ that can do it.
    """

    line: int
    heading: str
    terminal: str | None
    actions: tuple[Action, ...]
    text: str
    limit: float = DEFAULT_LIMIT
    own_broker: bool = False
    played: bool = True
    needs: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """What to call its terminal."""
        return self.terminal or "terminal"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A README: its title, its first sentence, and its ``console`` blocks in order. ``source`` names it in errors."""

    source: str
    title: str
    sentence: str
    blocks: tuple[Block, ...] = field(repr=False)

    @property
    def played(self) -> tuple[Block, ...]:
        """The blocks that are not only to be read."""
        return tuple(block for block in self.blocks if block.played)

    @property
    def restarts(self) -> tuple[Block, ...]:
        """Those of them whose section stops or restarts RabbitMQ."""
        return tuple(block for block in self.played if block.own_broker)


def parse(markdown: str, source: str = "README.md") -> Scenario:
    """Read a README. Raises ScenarioError, naming ``source`` and the line, for a block that cannot be played."""
    title, sentence, heading = "", "", ""
    sections: list[list[Block]] = [[]]
    for token, content in _walk(markdown):
        if token.type == "heading_open":
            heading = content
            title = title or content
            sections.append([])
        elif token.type == "paragraph_open" and title and not sentence and token.level == 0:
            sentence = _first_sentence(content)
        elif token.type == "fence" and token.info.split()[:1] == ["console"]:
            sections[-1].append(_BlockReader(source, token).read(heading))
    blocks = tuple(block for section in sections for block in _spread(section))
    _check_terminals(source, blocks)
    return Scenario(source, title, sentence, blocks)


def _walk(markdown: str) -> Iterator[tuple[Token, str]]:
    """The tokens, each with the plain text of what it opens."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    for position, token in enumerate(tokens):
        follower = tokens[position + 1] if position + 1 < len(tokens) else None
        yield token, plain(follower.children or []) if follower and follower.type == "inline" else ""


def plain(children: Sequence[Token]) -> str:
    """The text of inline Markdown without its marks and pictures, in one line."""
    texts = (" " if "break" in child.type else child.content for child in children if child.type != "image")
    words = "".join(texts).split()
    return " ".join(words)


def _first_sentence(text: str) -> str:
    match = re.match(r".+?[.!?](?=\s+[^a-z]|$)", text)
    return match[0] if match else text


def _spread(section: list[Block]) -> Iterator[Block]:
    """What one block of a section needs, all of it need: the terminals would be in no known state otherwise."""
    own_broker = any(block.own_broker for block in section)
    needs = max((block.needs for block in section), default=())
    for block in section:
        yield replace(block, own_broker=own_broker, needs=needs)


class _BlockReader:
    def __init__(self, source: str, fence: Token) -> None:
        self.source = source
        self.line = (fence.map or [0])[0] + 1
        self.words = fence.info.split()[1:]
        self.text = fence.content

    def read(self, heading: str) -> Block:
        terminal: str | None = None
        limit, own_broker, played = DEFAULT_LIMIT, False, True
        needs: tuple[int, ...] = ()
        for word in self.words:
            if word == "own-broker":
                own_broker = True
            elif word == "not-played":
                played = False
            elif word.startswith("within="):
                limit = self.seconds(word)
            elif word.startswith("needs="):
                needs = self.version(word)
            elif terminal is None and re.fullmatch(r"[\w.-]+", word):
                terminal = word
            else:
                raise self.error(self.line, f"{word!r} after 'console' is not understood")
        actions = tuple(self.actions()) if played else ()
        if played and not actions:
            raise self.error(self.line, "the block is empty")
        return Block(self.line, heading, terminal, actions, self.text, limit, own_broker, played, needs)

    def seconds(self, word: str) -> float:
        try:
            value = float(word.removeprefix("within="))
        except ValueError:
            value = 0.0
        if not 0 < value <= 3600:
            raise self.error(self.line, f"{word!r} is not a number of seconds")
        return value

    def version(self, word: str) -> tuple[int, ...]:
        text = word.removeprefix("needs=")
        if not re.fullmatch(r"\d+(\.\d+)*", text):
            raise self.error(self.line, f"{word!r} is not a version of RabbitMQ")
        return tuple(map(int, text.split(".")))

    def actions(self) -> Iterator[Action]:
        lines = enumerate(self.text.splitlines(), self.line + 1)
        for number, raw in lines:
            text = raw.rstrip()
            if text == "$":
                raise self.error(number, "nothing is typed")
            if text.startswith("$ "):
                command = text[2:]
                while command.endswith("\\"):
                    _, more = next(lines, (number, ""))
                    rest = re.sub("^ *>? *", "", more).rstrip()
                    command = f"{command[:-1].rstrip()} {rest}".rstrip()
                yield Command(number, command)
            elif text in ("^C", "^\\"):
                yield Press(number, Key(text))
            elif text.strip() == ANYTHING:
                yield AnyLines(number)
            elif match := re.fullmatch(r"\(exit code (\d+)\)", text):
                yield Exit(number, int(match[1]))
            elif text:
                yield Output(number, text)

    def error(self, number: int, text: str) -> ScenarioError:
        return ScenarioError(f"{self.source}:{number}: {text}")


def _check_terminals(source: str, blocks: Sequence[Block]) -> None:
    """Whether something runs whenever something is expected of a terminal."""
    running: dict[str, bool] = {}
    for block in blocks:
        if not block.played:
            continue
        busy = running.get(block.terminal, False) if block.terminal else False
        for action in block.actions:
            if isinstance(action, Command):
                busy = True
            elif not busy:
                where = f"{source}:{action.number}"
                raise ScenarioError(f"{where}: nothing runs in {block.label}; type a '$ command' first")
            elif isinstance(action, Exit):
                busy = False
        if block.terminal:
            running[block.terminal] = busy
