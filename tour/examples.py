"""Which examples there are, and in which order a reader meets them: the map in the root README."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from common.errors import ExitCode, Failure
from tour.player import load
from tour.scenario import Scenario, ScenarioError

# Folders that no example lies in.
_NOT_EXAMPLES = frozenset(("build", "dist", "node_modules", "venv", "__pycache__"))


class UnknownExample(Failure):
    """No example of this name; the text lists those that there are."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True, slots=True)
class Example:
    """A folder whose README has a scenario. ``name`` is its path below the root; ``mapped``: the map leads to it.

    ``error`` says why its README cannot be played, if so; the scenario is then empty.
    """

    name: str
    scenario: Scenario
    mapped: bool = True
    error: str = ""


def examples(root: Path) -> list[Example]:
    """All examples below ``root``: those of the map in its order, then the others by name."""
    order = mapped_folders(root)
    others = [folder for folder in sorted(_folders(root)) if folder not in order]
    found = [_example(folder, root, folder in order) for folder in (*order, *others)]
    return [example for example in found if example.scenario.played or example.error]


def _example(folder: Path, root: Path, mapped: bool) -> Example:
    name = folder.relative_to(root).as_posix()
    try:
        return Example(name, load(folder / "README.md", root), mapped)
    except ScenarioError as error:
        # One README that cannot be played must not keep the others from it.
        return Example(name, Scenario(f"{name}/README.md", name, str(error), ()), mapped, str(error))


def choose(available: Sequence[Example], names: Sequence[str]) -> list[Example]:
    """The examples called ``names`` (all of them if there are none). Raises UnknownExample.

    A name is a path below the root, with or without a slash or README.md at its end, or the last part of one.
    """
    return [_find(available, name) for name in names] or list(available)


def _find(available: Sequence[Example], name: str) -> Example:
    path = name.removeprefix("./").removesuffix("README.md").rstrip("/")
    exact = [example for example in available if example.name == path]
    last = [example for example in available if example.name.rpartition("/")[2] == path]
    if len(exact or last) != 1:
        known = ", ".join(example.name for example in available) or "none"
        raise UnknownExample(f"there is no example {name!r}; there are: {known}")
    return (exact or last)[0]


def mapped_folders(root: Path) -> list[Path]:
    """The folders that the map of the root README links to, in its order.

    The map is the section whose heading has the word "map" or "examples"; a link leads to a folder or to its README.
    """
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    folders: list[Path] = []
    for target in _links(_map_section(MarkdownIt("commonmark").enable("table").parse(text))):
        if re.match(r"[a-z]+:|#|/", target):
            continue
        folder = (root / target.partition("#")[0].removesuffix("README.md")).resolve()
        if folder not in folders and folder != root and (folder / "README.md").is_file():
            folders.append(folder)
    return folders


def _map_section(tokens: Sequence[Token]) -> Sequence[Token]:
    headings = [place for place, token in enumerate(tokens) if token.type == "heading_open"]
    for place in headings:
        if re.search(r"\b(map|examples)\b", tokens[place + 1].content, re.IGNORECASE):
            ends = (other for other in headings if other > place and tokens[other].tag <= tokens[place].tag)
            return tokens[place : next(ends, len(tokens))]
    return tokens


def _links(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        for child in token.children or ():
            if child.type == "link_open":
                yield str(child.attrs.get("href", ""))


def _folders(root: Path) -> Iterator[Path]:
    for pattern in ("*/README.md", "*/*/README.md"):
        for readme in root.glob(pattern):
            parts = readme.relative_to(root).parts[:-1]
            if not any(part.startswith(".") or part in _NOT_EXAMPLES for part in parts):
                yield readme.parent
