"""A run's figures as Markdown, and the README's tables from the files of results.

    python -m benchmarks --report

replaces, in benchmarks/README.md, the text between two lines such as

    <!-- publishing-quorum 3.10 -->
    <!-- /publishing-quorum -->

by the results of that RabbitMQ version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measure import Goal, Json, Row, Table, figure, goals_from, tables_from
from common.errors import ExitCode, Failure

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
README = HERE / "README.md"
BLOCK = re.compile(r"(<!-- ([\w.-]+) ([\d.]+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)


# The rungs of the README's ladder: the table and the row that have the figure, and what it costs.
LADDER = (
    ("start", "robust_pika.Publisher", "a new process, and so a new connection, for each message"),
    ("publishing-quorum", "pika, one confirm at a time", "your program waits for each message"),
    ("publishing-quorum", "pika, no confirms (may lose messages)", "you do not learn what was lost"),
    ("publishing-quorum", "aio-pika, 500 gathered", "asyncio everywhere; you have to keep the window yourself"),
    (
        "publishing-quorum",
        "robust_pika.Publisher",
        "you learn of a failure later, at the next flush; memory for the window",
    ),
    (
        "publishing-quorum",
        "C (librabbitmq), window 1,000",
        "another language; you write reconnecting and sending again yourself",
    ),
    (
        "publishing-stream",
        "robust_pika.Publisher",
        "a stream: a log that consumers read and nobody empties; no dead letters",
    ),
    (
        "publishing-stream",
        "rstream (stream protocol)",
        "a stream, and RabbitMQ's own stream protocol on another port",
    ),
)


class NoResults(Failure):
    """There are no figures for a block of the README."""

    exit_code = ExitCode.DATA


def spread(row: Row) -> str:
    """The median, and the smallest and the largest of the rounds."""
    if len(row.values) == 1:
        return figure(row.median)
    return f"{figure(row.median)} ({figure(min(row.values))} – {figure(max(row.values))})"


def table_lines(table: Table) -> Iterator[str]:
    """A table as Markdown."""
    if not table.axis:
        ours = ["ours ÷ it"] if table.ours else []
        yield from head(["", table.unit, *ours])
        for row in table.rows:
            ratio = table.ratio(row.name)
            cells = [row.name, spread(row)]
            if table.ours:
                cells.append("" if row.name == table.ours or ratio is None else f"× {ratio:.1f}")
            yield line(cells)
        return
    names = list(dict.fromkeys(row.name for row in table.rows))
    found = {(row.name, row.x): row for row in table.rows}
    yield from head([table.axis, *(f"{name}: {table.unit}" if len(names) > 1 else table.unit for name in names)])
    for x in sorted({row.x for row in table.rows if row.x is not None}):
        yield line(
            [
                f"{x:,g}" if x < 1e6 else f"{x:,.0f}",
                *(spread(found[name, x]) if (name, x) in found else "–" for name in names),
            ]
        )


def head(cells: Sequence[str]) -> Iterator[str]:
    yield line(cells)
    yield line(["---", *["---:"] * (len(cells) - 1)])


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def goal_lines(goals: Sequence[Goal]) -> Iterator[str]:
    """What was aimed at, and what was reached."""
    yield from head(["what", "aimed at", "measured", "reached"])
    for goal in goals:
        sign = "≤" if goal.below else "≥"
        measured = "–" if goal.measured is None else f"{goal.measured:.2f}"
        reached = {None: "not measured", True: "yes", False: "**no**"}[goal.met]
        yield line([goal.text, f"{sign} {goal.goal:g}", measured, reached])


def ladder_lines(tables: dict[str, Table]) -> Iterator[str]:
    """The ways to publish, the slowest first, and what each costs."""
    rungs = []
    for key, name, price in LADDER:
        found = [row for row in tables[key].rows if row.name == name] if key in tables else []
        for row in found:
            seconds = key == "start"
            rungs.append(
                (
                    1 / row.median if seconds else row.median,
                    "a script for each message" if seconds else name,
                    key,
                    price,
                )
            )
    yield line(["", "messages/s", "what it gives up, or costs"])
    yield line(["---", "---:", "---"])
    for rate, name, key, price in sorted(rungs):
        where = " to a stream" if key == "publishing-stream" and "stream" not in name else ""
        yield line([f"{name}{where}", figure(rate), price])


def document(data: Json, *, plotted: bool) -> str:
    """The whole run as one Markdown file, with its plots if they are there."""
    parts = [f"# RabbitMQ {data['versions']['RabbitMQ']}: what was measured", "", *about(data), ""]
    parts += ["## Aimed at", "", *goal_lines(goals_from(data)), ""]
    for table in tables_from(data):
        parts += [f"## {table.title}", "", *table_lines(table), ""]
        if plotted:
            parts += [f"![{table.title}]({plot_name(data, table)})", ""]
    if data["skipped"]:
        parts += ["## Not measured", "", *(f"- {why}" for why in data["skipped"]), ""]
    return "\n".join(parts)


def about(data: Json) -> Iterator[str]:
    """Where the figures come from."""
    yield f"- command: `{data['command']}`, {data['date']}, {data['rounds']} rounds, {data['minutes']} minutes"
    yield f"- machine: {'; '.join(f'{name}: {value}' for name, value in data['machine'].items())}"
    yield f"- versions: {', '.join(f'{name} {value}' for name, value in data['versions'].items())}"


def short(version: str) -> str:
    """3.10.8 → 3.10"""
    return ".".join(version.split(".")[:2])


def plot_name(data: Json, table: Table) -> str:
    """The file of a table's plot, beside the results."""
    return f"{short(data['versions']['RabbitMQ'])}-{table.key}.svg"


def filled(text: str, folder: Path = RESULTS) -> str:
    """The README with its blocks filled in again from the results. Raises NoResults if there are none for a block."""

    def block(match: re.Match[str]) -> str:
        key, version = match[2], match[3]
        path = folder / f"{version}.json"
        if not path.exists():
            raise NoResults(f"there are no results for RabbitMQ {version}: run python -m benchmarks on it first")
        data = json.loads(path.read_text(encoding="utf-8"))
        tables = {table.key: table for table in tables_from(data)}
        if key == "goals":
            lines = list(goal_lines(goals_from(data)))
        elif key == "about":
            lines = list(about(data))
        elif key == "ladder":
            lines = list(ladder_lines(tables))
        elif key in tables:
            lines = list(table_lines(tables[key]))
        else:
            raise NoResults(f"the results for RabbitMQ {version} have no table {key!r}: run all sections")
        return "\n".join([match[1], *lines, "", match[4]])

    return BLOCK.sub(block, text)
