"""The tables as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.measure import Table, figure
from benchmarks.report import plot_name

OURS, PEERS = "#d9480f", "#adb5bd"
COLOURS = (OURS, "#1971c2", "#2f9e44", "#868e96")


def draw(data: dict[str, object], tables: list[Table], folder: Path) -> None:
    """One SVG for each table: bars for contenders, lines for a sweep."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("svg")
    # The same figures make the same file.
    mpl.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 10})
    from matplotlib import pyplot  # noqa: PLC0415

    for table in tables:
        height = 1.2 + 0.38 * len(table.rows) if not table.axis else 3.6
        picture, axes = pyplot.subplots(figsize=(8, height), layout="constrained")
        (lines if table.axis else bars)(axes, table)
        axes.set_title(table.title, loc="left", fontsize=11)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        picture.savefig(folder / plot_name(data, table), metadata={"Date": None, "Creator": None})
        pyplot.close(picture)


def bars(axes: Any, table: Table) -> None:
    """A bar for each contender, the spread of the rounds as a whisker."""
    rows = sorted(table.rows, key=lambda row: row.median)
    medians = [row.median for row in rows]
    whiskers = [[row.median - min(row.values) for row in rows], [max(row.values) - row.median for row in rows]]
    colours = [OURS if row.name == table.ours else PEERS for row in rows]
    axes.barh([row.name for row in rows], medians, xerr=whiskers, color=colours, ecolor="#495057", capsize=3)
    widest = max(max(row.values) for row in rows)
    for index, row in enumerate(rows):
        axes.text(max(row.values) + widest * 0.01, index, f" {figure(row.median)}", va="center")
    axes.set_xlim(0, widest * 1.15)
    axes.set_xlabel(table.unit)


def lines(axes: Any, table: Table) -> None:
    """A line for each contender, the spread of the rounds as a band."""
    names = list(dict.fromkeys(row.name for row in table.rows))
    for name, colour in zip(names, COLOURS * len(names), strict=False):
        rows = sorted((row for row in table.rows if row.name == name), key=lambda row: row.x or 0)
        xs = [row.x for row in rows]
        axes.plot(xs, [row.median for row in rows], marker="o", color=colour, label=name)
        axes.fill_between(xs, [min(r.values) for r in rows], [max(r.values) for r in rows], color=colour, alpha=0.15)
    if table.axis != "seconds":
        axes.set_xscale("log")
        ticks = sorted({row.x for row in table.rows if row.x})
        axes.set_xticks(ticks, [f"{x:,.0f}" for x in ticks])
        axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel(table.axis)
    axes.set_ylabel(table.unit)
    if len(names) > 1:
        axes.legend(frameon=False)
