"""What differs from run to run: which text a README shows for it, and what was seen in its place.

A comment directly before a block, ``<!-- varies: 4711 ~ \\d+ -->``, says that ``4711`` in the block's output is an
example: any text that the regular expression matches may stand there. Memory keeps what did, so that a command typed
later (``kill -9 4711``) gets the real one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

ANYTHING = "…"


@dataclass(frozen=True, slots=True)
class Varying:
    """An example text, and the regular expression that the real one matches."""

    text: str
    pattern: str


class Memory:
    """What was seen in one run of a README in place of its example texts."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def fits(self, text: str, varies: Sequence[Varying], line: str) -> bool:
        """Whether ``line`` is what the README shows as ``text``."""
        return self._match(text, varies, line) is not None

    def accept(self, text: str, varies: Sequence[Varying], line: str) -> bool:
        """The same, and remember what stands in ``line`` for the example texts."""
        seen = self._match(text, varies, line)
        self._seen.update(seen or {})
        return seen is not None

    def real(self, command: str) -> str:
        """``command`` with the texts that were seen in place of the examples."""
        if not self._seen:
            return command
        return re.sub(_any_word_of(self._seen), lambda found: self._seen[found[0]], command)

    def _match(self, text: str, varies: Sequence[Varying], line: str) -> dict[str, str] | None:
        pattern, examples = line_pattern(text, varies, self._seen)
        found = re.fullmatch(pattern, line.rstrip(), re.DOTALL)
        return {example: found[name] for name, example in examples.items()} if found else None


def line_pattern(
    text: str, varies: Sequence[Varying], seen: dict[str, str] | None = None
) -> tuple[str, dict[str, str]]:
    """The regular expression for a line of a README, and the example text that each of its groups stands for.

    ``seen`` is what was seen for the examples of earlier blocks: it may stand in their place here, too.
    """
    patterns = {example: f"{re.escape(real)}|{re.escape(example)}" for example, real in (seen or {}).items()}
    patterns.update({one.text: one.pattern for one in varies})
    declared = {one.text for one in varies}
    parts: list[str] = []
    groups: dict[str, str] = {}
    for piece, is_example in _pieces(text, declared, patterns.keys() - declared):
        if not is_example:
            parts.append(".*".join(map(re.escape, piece.split(ANYTHING))))
        elif piece in declared:
            name = f"example_{len(groups)}"
            groups[name] = piece
            parts.append(f"(?P<{name}>{patterns[piece]})")
        else:
            parts.append(f"(?:{patterns[piece]})")
    return "".join(parts), groups


def _pieces(text: str, declared: Iterable[str], remembered: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """``text`` in pieces, each with whether it is an example: a declared one anywhere, a remembered one as a word."""
    choices = [_any_of(declared), _any_word_of(remembered)]
    place = 0
    for found in re.finditer("|".join(filter(None, choices)) or r"(?!)", text):
        yield text[place : found.start()], False
        yield found[0], True
        place = found.end()
    yield text[place:], False


def _any_of(examples: Iterable[str]) -> str:
    return "|".join(re.escape(example) for example in sorted(examples, key=len, reverse=True))


def _any_word_of(examples: Iterable[str]) -> str:
    """A pattern for the examples where they are no part of a longer word or number."""
    words = _any_of(examples)
    return rf"(?<![\w.])(?:{words})(?!\w|\.\w)" if words else ""
