"""Reads the scenario in a README: its ``console`` blocks.

The first line of a block names its terminal, visibly: ``# Terminal 1`` or ``# Terminal 1: worker``. The number is its
identity: a later block of the same number goes on in it. The words after ``console`` in the fence line are hidden:

- ``within=90``: seconds to wait for each expected line, and for a command to return (30 if it is not said);
- ``own-broker``: the block stops or restarts RabbitMQ. Its whole section, from the heading above to the next heading
  of any level, is played only where that disturbs nobody;
- ``needs=3.11``: the block shows what RabbitMQ can do since this version. Its whole section is skipped on an older one;
- ``not-played``: only to be read.

A line of a block is one of:

- ``$ command``: typed. One that ends with a backslash goes on in the next line;
- ``^C``: Ctrl-C is pressed, which asks the program to stop;
- ``…``: any number of lines, none included; inside a line it stands for anything, nothing included;
- ``(exit code 69)``: the command before has returned with this code rather than 0;
- anything else: the next line that is printed. Blanks at its end and blank lines do not count.

A command must have returned when its block ends, unless the next block of the terminal begins with something else than
a ``$ command`` (it then goes on there), or a later block of another terminal kills it.

What differs from run to run is an example, with its pattern in a comment directly before the fence:
``<!-- varies: 4711 ~ \\d+ -->``. Several are allowed, one per line. What was seen in its place is remembered, and
typed in later commands: ``$ kill -9 4711`` kills the program that showed this number. (Some shells then print
``Killed`` in the program's terminal. No README shows that: the line is the shell's, and each has its own.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from markdown_it import MarkdownIt
from markdown_it.token import Token

from common.errors import ExitCode, Failure
from tour.varying import ANYTHING, Varying, line_pattern

CTRL_C = "^C"
DEFAULT_LIMIT = 30.0


class ScenarioError(Failure):
    """A scenario that cannot be played as it is written; the text names the line."""

    exit_code = ExitCode.CONFIG


@dataclass(frozen=True, slots=True)
class Command:
    """A typed line; ``number`` is its line in the README, from 1.

    ``victims`` are the terminals whose program it kills.
    """

    number: int
    text: str
    victims: tuple[int, ...] = ()

    @property
    def kills(self) -> tuple[str, ...]:
        """The process ids to which it sends a signal, as they are written."""
        found = re.fullmatch(r"kill(?: -\w+)?((?: \d+)+)", self.text)
        return tuple(found[1].split()) if found else ()

    @property
    def merciless(self) -> bool:
        """Whether that signal leaves the process no time to do anything."""
        return bool(self.kills) and re.search(r" -(9|KILL|SIGKILL) ", self.text) is not None


@dataclass(frozen=True, slots=True)
class Output:
    """A line that must appear; ``varies`` are the examples in it. Memory says whether a printed line is it."""

    number: int
    text: str
    varies: tuple[Varying, ...] = ()


@dataclass(frozen=True, slots=True)
class AnyLines:
    """Lines that do not matter."""

    number: int


@dataclass(frozen=True, slots=True)
class Press:
    """Ctrl-C is pressed."""

    number: int


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of the command before, with its code."""

    number: int
    code: int


Action = Command | Output | AnyLines | Press | Exit


def as_written(action: Action) -> str:
    """The line of the README."""
    match action:
        case Command(_, text, _):
            return f"$ {text}"
        case Output(_, text, _):
            return text
        case AnyLines():
            return ANYTHING
        case Press():
            return CTRL_C
        case Exit(_, code):
            return f"(exit code {code})"


@dataclass(frozen=True, slots=True)
class Block:
    """One ``console`` block: what happens in one terminal without a look at another.

    ``line`` is that of its fence, from 1; ``terminal`` is a number, ``role`` what runs there; ``limit`` is in seconds;
    ``text`` is what stands in it, as it is; ``needs`` is the first version of RabbitMQ that can do it.
    ``stays`` says that its last command may still run when it ends: a later block goes on with it, or kills it.
    """

    line: int
    heading: str
    terminal: int
    role: str
    actions: tuple[Action, ...]
    text: str
    limit: float = DEFAULT_LIMIT
    own_broker: bool = False
    played: bool = True
    needs: tuple[int, ...] = ()
    stays: bool = False

    @property
    def label(self) -> str:
        """What to call its terminal: ``1 worker``."""
        return f"{self.terminal} {self.role}".rstrip()

    @property
    def goes_on(self) -> bool:
        """Whether it goes on with what a block before has begun."""
        return self.played and not isinstance(self.actions[0], Command)


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
    comments = _Comments(source)
    for token, content in _walk(markdown):
        if token.type == "html_block":
            comments.read(token)
        elif token.type == "fence" and token.info.split()[:1] == ["console"]:
            sections[-1].append(_BlockReader(source, token, comments.before(token)).read(heading))
        elif token.type == "heading_open":
            heading = content
            title = title or content
            sections.append([])
        elif token.type == "paragraph_open" and title and not sentence and token.level == 0:
            sentence = _first_sentence(content)
    comments.check()
    blocks = tuple(block for section in sections for block in _spread(section))
    return Scenario(source, title, sentence, tuple(_Chain(source).linked(blocks)))


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


class _Comments:
    """The ``varies`` comments of a README, each of which belongs to the block directly below it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._waiting: list[tuple[int, int, list[Varying]]] = []

    def read(self, token: Token) -> None:
        first, behind = token.map or (0, 0)
        found = [
            self._varying(first + 1, text) for text in re.findall(r"<!--\s*varies:(.*?)-->", token.content, re.DOTALL)
        ]
        if found:
            self._waiting.append((first, behind, found))

    def before(self, fence: Token) -> tuple[Varying, ...]:
        """Those directly before ``fence``."""
        above: list[Varying] = []
        line = (fence.map or (0, 0))[0]
        while self._waiting and self._waiting[-1][1] == line:
            line, _, found = self._waiting.pop()
            above[:0] = found
        self.check()
        return tuple(above)

    def check(self) -> None:
        """Raise ScenarioError if one is left over."""
        for first, _, _ in self._waiting:
            raise ScenarioError(f"{self.source}:{first + 1}: no console block begins directly below this comment")

    def _varying(self, line: int, text: str) -> Varying:
        example, tilde, pattern = (part.strip() for part in text.partition(" ~ "))
        where = f"{self.source}:{line}"
        if not (example and tilde and pattern):
            raise ScenarioError(f"{where}: it must be <!-- varies: TEXT ~ REGULAR EXPRESSION -->")
        try:
            fits = re.fullmatch(pattern, example)
            # As a part of a longer one it must work, too.
            re.compile(line_pattern(example, [Varying(example, pattern)])[0])
        except re.error as error:
            raise ScenarioError(f"{where}: {pattern!r} is no regular expression: {error}") from None
        if not fits:
            raise ScenarioError(f"{where}: {example!r} does not match its own pattern {pattern!r}")
        return Varying(example, pattern)


_FIRST_LINE = "its first line must be '# Terminal N' or '# Terminal N: role'"


class _BlockReader:
    def __init__(self, source: str, fence: Token, varies: tuple[Varying, ...]) -> None:
        self.source = source
        self.line = (fence.map or [0])[0] + 1
        self.words = fence.info.split()[1:]
        self.text = fence.content
        self.varies = varies

    def read(self, heading: str) -> Block:
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
            else:
                raise self.error(self.line, f"{word!r} after 'console' is not understood")
        named = re.fullmatch(r"# Terminal ([1-9]\d*)(?:: (\S.*?))?\s*", self.text.partition("\n")[0])
        if not named:
            raise self.error(self.line, f"the block does not name its terminal; {_FIRST_LINE}")
        actions = tuple(self.actions()) if played else ()
        if played and not actions:
            raise self.error(self.line, "the block is empty")
        outputs = [action.text for action in actions if isinstance(action, Output)]
        for one in self.varies:
            if not any(one.text in text for text in outputs):
                raise self.error(self.line, f"{one.text!r}, which varies, is nowhere in the output of this block")
        return Block(
            self.line, heading, int(named[1]), named[2] or "", actions, self.text, limit, own_broker, played, needs
        )

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
        next(lines)  # It names the terminal.
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
            elif text == CTRL_C:
                yield Press(number)
            elif re.fullmatch(r"\^.", text):
                raise self.error(number, f"{text} is no key of a scenario: {CTRL_C} stops a program, kill -9 ends it")
            elif text.strip() == ANYTHING:
                yield AnyLines(number)
            elif match := re.fullmatch(r"\(exit code (\d+)\)", text):
                yield Exit(number, int(match[1]))
            elif text:
                yield Output(number, text, tuple(one for one in self.varies if one.text in text))

    def error(self, number: int, text: str) -> ScenarioError:
        return ScenarioError(f"{self.source}:{number}: {text}")


class _Chain:
    """Follows what runs in each terminal from block to block."""

    def __init__(self, source: str) -> None:
        self.source = source
        # Of each terminal in which something runs: the block that goes on there, and the examples that were shown.
        self.running: dict[int, Block] = {}
        self.shown: dict[int, set[str]] = {}

    def linked(self, blocks: Sequence[Block]) -> Iterator[Block]:
        """The blocks with roles, victims and ``stays``. Raises ScenarioError where something is expected of nothing."""
        followed = [self.follow(block) if block.played else block for block in blocks]
        for place, block in enumerate(followed):
            yield replace(block, stays=block.played and self.stays(block, followed[place + 1 :]))

    def follow(self, block: Block) -> Block:
        before = self.running.get(block.terminal)
        if block.goes_on and before:
            self.check_together(block, before)
            if block.role not in ("", before.role):
                where = f"{self.source}:{block.line}"
                raise ScenarioError(
                    f"{where}: terminal {block.terminal} is {before.role or 'without a role'!r} in line {before.line}"
                )
            block = replace(block, role=before.role)
        return replace(block, actions=tuple(self.action(action, block) for action in block.actions))

    def action(self, action: Action, block: Block) -> Action:
        if isinstance(action, Command):
            return self.typed(action, block)
        if block.terminal not in self.running:
            where = f"{self.source}:{action.number}"
            raise ScenarioError(f"{where}: nothing runs in terminal {block.terminal}; type a '$ command' first")
        if isinstance(action, Exit):
            del self.running[block.terminal]
        elif isinstance(action, Output):
            self.shown[block.terminal].update(one.text for one in action.varies)
        return action

    def typed(self, command: Command, block: Block) -> Command:
        victims = []
        for process in command.kills:
            found = [number for number in self.running if process in self.shown[number]]
            if not found:
                where = f"{self.source}:{command.number}"
                raise ScenarioError(
                    f"{where}: no block has shown {process} of a program that runs; "
                    rf"above the one that does, write <!-- varies: {process} ~ \d+ -->"
                )
            for number in found:
                self.check_together(block, self.running[number])
            victims += found
        self.running[block.terminal] = block
        self.shown[block.terminal] = set()
        return replace(command, victims=tuple(victims))

    def check_together(self, block: Block, before: Block) -> None:
        """Where one of the two is skipped, the other must be, too."""
        if (block.own_broker, block.needs) != (before.own_broker, before.needs):
            raise ScenarioError(
                f"{self.source}:{block.line}: this needs the program of line {before.line}, "
                "which is in a section that is played elsewhere"
            )

    @staticmethod
    def stays(block: Block, later: Sequence[Block]) -> bool:
        for other in later:
            if other.played and other.terminal == block.terminal:
                return other.goes_on
            if any(isinstance(action, Command) and block.terminal in action.victims for action in other.actions):
                return True
        return False
