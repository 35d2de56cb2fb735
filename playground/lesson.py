"""An example as the page shows it: its README as HTML, each ``console`` block a step, and the files it links to."""

from __future__ import annotations

import html
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from tour.examples import Example
from tour.scenario import CTRL_C, Block, Command


@dataclass(frozen=True, slots=True)
class Lesson:
    """One example. ``steps`` are the blocks that are played; ``html`` has an element ``step-N`` for each."""

    name: str
    title: str
    sentence: str
    steps: tuple[Block, ...]
    html: str

    def listed(self) -> dict[str, Any]:
        """What the page's list of examples says of it."""
        return {"name": self.name, "title": self.title, "sentence": self.sentence, "steps": len(self.steps)}

    def outline(self) -> list[dict[str, Any]]:
        """The steps, in a few words each."""
        return [
            {
                "number": number,
                "heading": step.heading,
                "terminal": step.label,
                "commands": [action.text for action in step.actions if isinstance(action, Command)],
                "ownBroker": step.own_broker,
            }
            for number, step in enumerate(self.steps)
        ]


def sources(root: Path, examples: Sequence[Example]) -> dict[str, Path]:
    """The files that the page can show, by their path below ``root``: the examples' own, and those they stand on."""
    shared = ("common", "extras", "robust_pika", "robust_pika/_io")
    folders = [root / name for name in (*(example.name for example in examples), *shared)]
    return {path.relative_to(root).as_posix(): path for folder in folders for path in sorted(folder.glob("*.py"))}


def lesson(example: Example, root: Path, examples: Sequence[Example], files: dict[str, Path]) -> Lesson:
    """Read the README of ``example``. Links to other examples and to ``files`` stay within the page."""
    text = (root / example.name / "README.md").read_text(encoding="utf-8")
    markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = markdown.parse(text)
    known = {other.name for other in examples}
    steps = {block.line: number for number, block in enumerate(example.scenario.played)}
    _mark(tokens, steps, example.scenario.played)
    for token in tokens:
        if token.type in ("th_open", "td_open"):
            # The page's policy allows no inline styles.
            token.attrs.pop("style", None)
        for child in token.children or ():
            if child.type == "link_open":
                _relink(child, example.name, known, files)
    return Lesson(
        example.name,
        example.scenario.title,
        example.scenario.sentence,
        example.scenario.played,
        RendererHTML().render(_shown(tokens), markdown.options, {}),
    )


def _shown(tokens: Sequence[Token]) -> list[Token]:
    """What the page shows: no pictures (the stage is one), no comments, and HTML as text, whoever wrote it."""
    shown = []
    for token in tokens:
        if token.type == "html_block" and "data-step" not in token.meta:
            text = _uncommented(token.content)
            if not text:
                continue
            token.content = f"<p>{html.escape(text)}</p>\n"
        for child in token.children or ():
            if child.type == "html_inline":
                child.type, child.content = "text", _uncommented(child.content)
        if not (token.type == "fence" and token.info.split()[:1] == ["mermaid"]):
            shown.append(token)
    return shown


def _uncommented(text: str) -> str:
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).strip()


def _mark(tokens: Sequence[Token], steps: dict[int, int], blocks: Sequence[Block]) -> None:
    for token in tokens:
        if token.type != "fence" or token.info.split()[:1] != ["console"] or token.map is None:
            continue
        number = steps.get(token.map[0] + 1)
        if number is not None:
            block = blocks[number]
            label = html.escape(f"Terminal {block.label}")
            note = " · restarts RabbitMQ" if block.own_broker else ""
            token.type = "html_block"
            token.meta["data-step"] = number
            token.content = (
                f'<figure class="step" id="step-{number}" data-step="{number}">'
                f"<figcaption>{number + 1}. {label}{note}</figcaption>"
                f"<pre><code>{_typed(block.text.partition(chr(10))[2])}</code></pre></figure>\n"
            )


def _typed(text: str) -> str:
    lines = []
    for line in text.splitlines():
        safe = html.escape(line)
        lines.append(f"<b>{safe}</b>" if line.startswith("$ ") or line == CTRL_C else safe)
    return "\n".join(lines)


def _relink(link: Token, name: str, known: set[str], files: dict[str, Path]) -> None:
    target = str(link.attrs.get("href", ""))
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        link.attrs.update({"target": "_blank", "rel": "noopener noreferrer"})
        return
    path = posixpath.normpath(posixpath.join(name, unquote(parts.path))) if parts.path else name
    path = path.removesuffix("/README.md")
    if path in files:
        link.attrs.update({"href": f"/source?file={quote(path)}", "data-source": path})
    elif path in known and parts.path:
        link.attrs["href"] = f"/?example={quote(path)}"
    else:
        # It leads to a place that the page does not have.
        link.attrs.pop("href", None)
