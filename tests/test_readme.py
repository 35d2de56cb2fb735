"""What the Markdown files promise: links that lead somewhere, commands that exist, sections in their order."""

from __future__ import annotations

import os
import posixpath
import re
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tour.examples import examples

ROOT = Path(__file__).resolve().parents[1]
NOT_OURS = {"build", "dist", "node_modules", "venv"}


def markdown_files(folder: Path = ROOT) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            hidden = path.name.startswith((".", "_")) and path.name != ".github"
            if not (hidden or path.name.endswith(".egg-info") or path.name in NOT_OURS):
                yield from markdown_files(path)
        elif path.suffix == ".md":
            yield path


FILES = list(markdown_files())
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
EXAMPLE_NAMES = [example.name for example in examples(ROOT)]
EXAMPLE_READMES = [ROOT / name / "README.md" for name in EXAMPLE_NAMES]


def tokens(path: Path) -> list[Token]:
    return MarkdownIt("gfm-like", {"linkify": False}).parse(path.read_text(encoding="utf-8"))


def plain(token: Token) -> str:
    """The text of an inline token, without its marks."""
    return "".join(
        "\n" if child.type in ("softbreak", "hardbreak") else child.content
        for child in token.children or []
        if child.type != "html_inline"
    )


def links(path: Path) -> list[str]:
    found = []
    for token in tokens(path):
        for child in token.children or []:
            target = child.attrs.get("href", child.attrs.get("src"))
            if target is not None:
                found.append(str(target))
    return found


def headings(path: Path) -> list[tuple[int, str]]:
    """Level and text of every heading."""
    stream = tokens(path)
    return [(int(token.tag[1]), plain(after)) for token, after in pairwise(stream) if token.type == "heading_open"]


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes from the headings."""
    found: set[str] = set()
    for _, text in headings(path):
        base = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        anchor, number = base, 0
        while anchor in found:
            number += 1
            anchor = f"{base}-{number}"
        found.add(anchor)
    return found


def section(path: Path, title: str) -> list[Token]:
    """What stands under a heading, up to the next one of its level or a higher one."""
    found: list[Token] = []
    level = 0
    stream = tokens(path)
    for token, after in zip(stream, [*stream[1:], stream[-1]], strict=True):
        if token.type == "heading_open":
            depth = int(token.tag[1])
            if level and depth <= level:
                break
            if not level and plain(after) == title:
                level = depth
        if level:
            found.append(token)
    assert found, f"{path.relative_to(ROOT)} has no section {title!r}"
    return found


def commands(path: Path) -> list[str]:
    """The lines that a reader is told to type, and the code within sentences."""
    found: list[str] = []
    for token in tokens(path):
        if token.type == "fence":
            lines = token.content.splitlines()
            kind = token.info.split()[:1]
            if kind in (["sh"], ["bash"], ["shell"]):
                found.extend(lines)
            else:
                found.extend(line.removeprefix("$ ") for line in lines if line.startswith("$ "))
        found.extend(child.content for child in token.children or [] if child.type == "code_inline")
    return found


def fences(stream: list[Token], kind: str) -> list[Token]:
    return [token for token in stream if token.type == "fence" and token.info.split()[:1] == [kind]]


def test_there_is_something_to_check() -> None:
    assert "README.md" in NAMES
    assert len(EXAMPLE_NAMES) >= 3


def test_the_map_names_every_example_and_nothing_else() -> None:
    in_map = [
        str(child.attrs["href"])
        for token in section(ROOT / "README.md", "The examples")
        for child in token.children or []
        if child.type == "link_open"
    ]
    assert in_map == [f"{name}/" for name in EXAMPLE_NAMES]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_link_and_anchor_is_alive(path: Path) -> None:
    dead = []
    for target in links(path):
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme in ("http", "https"), target
            continue
        other = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        # Of another letter case, it would be alive on a Mac and dead on GitHub.
        alive = other.exists() and other.name in os.listdir(other.parent) and other.is_relative_to(ROOT)
        if alive and parts.fragment:
            page = other / "README.md" if other.is_dir() else other
            alive = page.suffix == ".md" and parts.fragment in anchors(page)
        if not alive:
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_command_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    missing: list[str] = []
    for command in commands(path):
        for words in re.findall(r"(?:^|[|&;:] *)make\b((?: +[\w=./-]+)*)", command):
            goals = [word for word in words.split() if "=" not in word and not word.startswith("-")]
            missing.extend(f"make {goal}" for goal in goals if goal not in targets)
        for module in re.findall(r"\bpython3? -m (\w+)", command):
            if module not in ("venv", "pip", "pytest") and not (ROOT / module / "__main__.py").is_file():
                missing.append(f"python -m {module}")
        for script in re.findall(r"\bpython3? ([\w./-]+\.py)\b", command):
            if not ((ROOT / script).is_file() or (path.parent / script).is_file()):
                missing.append(f"python {script}")
    assert missing == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_file_has_one_title_and_no_heading_is_skipped(path: Path) -> None:
    levels = [level for level, _ in headings(path)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    for before, after in pairwise(levels):
        assert after <= before + 1


def test_the_root_has_the_commands_and_a_picture_of_the_model() -> None:
    readme = ROOT / "README.md"
    assert {"make demo", "make test"} <= set(commands(readme))
    assert fences(section(readme, "How RabbitMQ works"), "mermaid")


def test_every_setting_is_in_the_example_file_and_no_other_is_named() -> None:
    def settings(text: str) -> set[str]:
        return set(re.findall(r"\b(?:RABBITMQ_[A-Z_]+|AMQP_URL)\b", text))

    known = settings((ROOT / ".env.example").read_text(encoding="utf-8"))
    # What Compose is given (${NAME:-default}), not what it sets in the container.
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    used = settings(" ".join(re.findall(r"\$\{(\w+)", compose)))
    used |= settings((ROOT / "common" / "config.py").read_text(encoding="utf-8"))
    assert used == known
    for path in FILES:
        assert settings(path.read_text(encoding="utf-8")) <= known, path


def test_every_feature_and_use_points_at_what_shows_it() -> None:
    rows: list[bool] = []
    for token in section(ROOT / "README.md", "What RabbitMQ is good for"):
        if token.type == "tr_open":
            rows.append(False)
        if any(child.type == "link_open" for child in token.children or []) and rows:
            rows[-1] = True
    # Two tables, with a row of titles each.
    assert rows.count(False) == 2
    assert rows.count(True) >= 13


@pytest.mark.parametrize("path", EXAMPLE_READMES, ids=EXAMPLE_NAMES)
def test_the_readme_of_an_example_has_its_parts_in_order(path: Path) -> None:
    stream = tokens(path)
    titles = [(level, text) for level, text in headings(path) if level <= 2]
    assert [text for _, text in titles[-3:]] == ["Break it", "What to remember", "In production"]
    # Title, one sentence, and the picture before the first section.
    assert [token.type for token in stream[:4]] == ["heading_open", "inline", "heading_close", "paragraph_open"]
    opening = " ".join(plain(stream[4]).split())
    assert re.fullmatch(r"[^.?!]+(?:[.?!][^\s][^.?!]*)*[.?!]", opening), f"not one sentence: {opening!r}"
    second = next(index for index, token in enumerate(stream) if token.type == "heading_open" and token.tag == "h2")
    assert fences(stream[:second], "mermaid"), "no Mermaid picture before the first section"
    walk = next(index for index, token in enumerate(stream) if token.type == "inline" and plain(token) == "Break it")
    assert fences(stream[:walk], "console"), "no walk-through"
    assert fences(section(path, "Break it"), "console"), "nothing is broken"


@pytest.mark.parametrize("path", EXAMPLE_READMES, ids=EXAMPLE_NAMES)
def test_what_to_remember_is_three_lines_with_links_to_the_guides(path: Path) -> None:
    part = section(path, "What to remember")
    assert sum(token.type == "list_item_open" for token in part) == 3
    targets = [str(child.attrs.get("href")) for token in part for child in token.children or []]
    assert any(target.startswith("https://www.rabbitmq.com/") for target in targets)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_console_block_names_its_terminal_visibly(path: Path) -> None:
    first = {fence.content.partition("\n")[0] for fence in fences(tokens(path), "console")}
    assert [line for line in first if not re.fullmatch(r"# Terminal \d+(: \S.*)?", line)] == []


# The end of a lesson: the lessons before and after it, and how to start over


def navigation(name: str, names: list[str]) -> str:
    """The last line of the README of ``name``; ``names`` are all lessons in reading order."""
    place = names.index(name)
    parts = [f"[← {lesson(other)}]({way(name, other)})" for other in names[max(0, place - 1) : place]]
    parts += [f"[{lesson(other)} →]({way(name, other)})" for other in names[place + 1 : place + 2]]
    return " · ".join([*parts, f"start over: `python -m broker reset {lesson(name)}`"])


def lesson(name: str) -> str:
    return name.rpartition("/")[2]


def way(name: str, other: str) -> str:
    """The link from one lesson to another."""
    return posixpath.relpath(other, name) + "/"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a", "[b →](../b/) · start over: `python -m broker reset a`"),
        ("b", "[← a](../a/) · [c →](../shelf/c/) · start over: `python -m broker reset b`"),
        ("shelf/c", "[← b](../../b/) · [d →](../d/) · start over: `python -m broker reset c`"),
        ("shelf/d", "[← c](../c/) · start over: `python -m broker reset d`"),
    ],
)
def test_where_a_lesson_leads(name: str, line: str) -> None:
    assert navigation(name, ["a", "b", "shelf/c", "shelf/d"]) == line


@pytest.mark.parametrize("path", EXAMPLE_READMES, ids=EXAMPLE_NAMES)
def test_a_lesson_ends_with_the_next_and_the_previous_one(path: Path) -> None:
    stream = tokens(path)
    assert [token.type for token in stream[-4:]] == ["hr", "paragraph_open", "inline", "paragraph_close"]
    assert stream[-2].content == navigation(path.parent.relative_to(ROOT).as_posix(), EXAMPLE_NAMES)


# Quoted code: a fence whose words are "python FILE"

LEFT_OUT = "# …"


def misquoted(quote: str, text: str) -> str:
    """The first line of ``quote`` that does not stand in ``text`` where it should; empty if all do.

    The lines must follow each other, with the indentation that they have in ``text`` or less, but the same less of all
    of them. A line ``# …`` stands for lines that are left out.
    """
    pieces = _pieces(textwrap.dedent(quote).splitlines())
    lines = [line.rstrip() for line in text.splitlines()]
    best, wrong = -1, "it quotes nothing"
    for indent in {len(line) - len(line.lstrip()) for line in lines}:
        place = 0
        found = 0
        for piece in pieces:
            wanted = [(" " * indent + line).rstrip() for line in piece]
            starts = range(place, len(lines))
            count, begin = max(((_common(wanted, lines[start:]), -start) for start in starts), default=(0, 0))
            found += count
            if count < len(wanted):
                if found > best:
                    best, wrong = found, piece[count]
                break
            # What is left out is a line at least.
            place = -begin + count + 1
        else:
            if pieces:
                return ""
    return wrong


def _pieces(lines: list[str]) -> list[list[str]]:
    pieces: list[list[str]] = [[]]
    for line in lines:
        if line.strip() == LEFT_OUT:
            pieces.append([])
        else:
            pieces[-1].append(line)
    return [piece for piece in pieces if any(piece)]


def _common(wanted: list[str], lines: list[str]) -> int:
    """How many lines the two begin with in common."""
    same = (a == b for a, b in zip(wanted, lines, strict=False))
    return next((place for place, fits in enumerate(same) if not fits), min(len(wanted), len(lines)))


SCRIPT = """\
import os

def work(channel, body):
    print(body)
    # Only now.
    channel.basic_ack(1)

def main():
    with connect() as connection:
        print("ready")
        connection.start()
    print(body)
"""


@pytest.mark.parametrize(
    "quote",
    [
        "import os",
        "def work(channel, body):\n    print(body)",
        "# Only now.\nchannel.basic_ack(1)",
        "    # Only now.\n    channel.basic_ack(1)",
        "import os\n\ndef work(channel, body):",
        "def work(channel, body):\n    # …\n    channel.basic_ack(1)",
        "# …\nconnection.start()\n# …",
        "print(body)\n# …\nprint(body)",
    ],
)
def test_a_true_quote(quote: str) -> None:
    assert misquoted(quote, SCRIPT) == ""


@pytest.mark.parametrize(
    ("quote", "wrong"),
    [
        ("", "it quotes nothing"),
        ("# …", "it quotes nothing"),
        ("import sys", "import sys"),
        ("print(body)\nchannel.basic_ack(1)", "channel.basic_ack(1)"),
        ("# Only now.\nchannel.basic_ack(2)", "channel.basic_ack(2)"),
        ("# Only now\nchannel.basic_ack(1)", "# Only now"),
        ("basic_ack(1)", "basic_ack(1)"),
        ("def work(channel, body):\n  print(body)", "  print(body)"),
        ("channel.basic_ack(1)\n# …\nprint(body)\n# …\nprint(body)", "print(body)"),
        ("print(body)\n# …\n# Only now.", "# Only now."),
        ("with connect() as connection:\nconnection.start()", "connection.start()"),
    ],
)
def test_a_wrong_quote_is_told_with_its_line(quote: str, wrong: str) -> None:
    assert misquoted(quote, SCRIPT) == wrong


def quotes(path: Path) -> Iterator[tuple[Token, str, list[str]]]:
    """The Python fences of a README, with the file that each names, and the links in the paragraph before it."""
    before: list[str] = []
    for token in tokens(path):
        if token.type == "inline":
            before = [str(child.attrs.get("href", "")) for child in token.children or []]
        elif token.type == "fence" and token.info.split()[:1] == ["python"]:
            yield token, token.info.removeprefix("python").strip(), before


def test_which_quotes_are_found(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("See [a](a.py) and [b](b.py):\n\n```python a.py\nx\n```\n\nNo.\n\n```python\ny\n```\n", "utf-8")
    assert [(name, [link for link in before if link]) for _, name, before in quotes(readme)] == [
        ("a.py", ["a.py", "b.py"]),
        ("", []),
    ]


@pytest.mark.parametrize("path", EXAMPLE_READMES, ids=EXAMPLE_NAMES)
def test_code_is_quoted_as_it_is(path: Path) -> None:
    for token, name, before in quotes(path):
        where = f"{path.relative_to(ROOT)}:{(token.map or [0])[0] + 1}"
        assert name, f"{where}: the fence does not say which file it quotes: ```python FILE"
        assert name in before, f"{where}: the sentence before does not link {name}"
        file = path.parent / name
        assert file.is_file(), f"{where}: there is no {name}"
        wrong = misquoted(token.content, file.read_text(encoding="utf-8"))
        assert not wrong, f"{where}: {name} does not have this line here: {wrong}"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_mermaid_pictures_begin_with_their_kind(path: Path) -> None:
    for fence in fences(tokens(path), "mermaid"):
        assert re.match(r"(flowchart|graph|sequenceDiagram|stateDiagram-v2)\b", fence.content), fence.content
