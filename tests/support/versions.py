"""A pytest plugin: the table of the root README that says which example runs on which RabbitMQ, from what was seen.

Its cells are the outcomes of tests/test_scenarios.py. A run fails where a cell says something else than what has just
happened on the broker at hand; ``--write-versions`` writes the broker's column instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
BEGIN = "<!-- versions: written by python -m pytest tests/test_scenarios.py --write-versions -->"
END = "<!-- end of versions -->"
YES = "✓"
PART = "in part"
UNKNOWN = "?"
Table = dict[str, dict[str, str]]
"""Example → version, such as 4.3 → cell."""


def cell(unsupported: str | None, *, in_part: bool = False) -> str:
    """What the table says of a scenario that was played, or of one that told in this line why it cannot be.

    ``in_part``: sections of it need a newer version.
    """
    if not unsupported:
        return PART if in_part else YES
    # The line may name other versions too, such as that of a protocol.
    needed = re.search(r"RabbitMQ (\d+\.\d+)", unsupported)
    return f"from {needed[1]}" if needed else "no"


def column(version: Sequence[int]) -> str:
    """(4, 3, 6) → 4.3"""
    return ".".join(map(str, version[:2]))


def parse(text: str) -> Table:
    """The table between the marks of ``text``. Raises ValueError if there is none."""
    if BEGIN not in text or END not in text:
        raise ValueError(f"no table between {BEGIN!r} and {END!r}")
    lines = text.split(BEGIN)[1].split(END, maxsplit=1)[0].strip().splitlines()
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
    versions = rows[0][1:] if rows else []
    return {
        re.sub(r"\[(.*)\]\(.*\)", r"\1", name): dict(zip(versions, cells, strict=True)) for name, *cells in rows[2:]
    }


def render(table: Table, examples: Sequence[str]) -> str:
    """The table as Markdown, a row for each of ``examples`` in their order; what is not known is a question mark."""
    versions = sorted(
        {version for cells in table.values() for version in cells},
        key=lambda text: [int(part) for part in text.split(".")],
    )
    rows = [["Example", *versions], ["---", *[":---:"] * len(versions)]]
    for example in examples:
        cells = table.get(example, {})
        rows.append([f"[{example}]({example}/)", *[cells.get(version, UNKNOWN) for version in versions]])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write(path: Path, outcomes: Mapping[str, str], version: str, examples: Sequence[str]) -> None:
    """Enter ``outcomes`` (example → cell) of ``version`` in the table of the file at ``path``; the rest stays."""
    text = path.read_text(encoding="utf-8")
    table = parse(text)
    for example, outcome in outcomes.items():
        table.setdefault(example, {})[version] = outcome
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n\n{render(table, examples)}\n\n{END}{after}", encoding="utf-8")


PROPERTY = "version table"


class _Writer:
    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.version = ""
        self.examples: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "teardown":
            return
        for name, value in report.user_properties:
            if name == PROPERTY and isinstance(value, (list, tuple)):
                example, self.version, outcome, self.examples = value
                self.outcomes[example] = outcome

    def pytest_sessionfinish(self) -> None:
        if self.outcomes:
            write(README, self.outcomes, self.version, self.examples)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-versions", action="store_true", help="enter what this broker can do in the table of the README"
    )


def pytest_configure(config: pytest.Config) -> None:
    # The workers of xdist report to the process that started them, and that one writes.
    if config.getoption("--write-versions") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Writer(), "version-table")
