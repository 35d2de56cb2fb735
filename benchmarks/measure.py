"""Tables of figures: in each of several rounds, the contenders take turns."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common import console
from common.config import Settings
from common.connection import connect
from common.errors import Failure
from robust_pika import ConnectionFailure, RobustPikaError
from tour.vhost import environment

ROOT = Path(__file__).resolve().parents[1]
MOST = 400_000
"""Most messages in one turn."""

Json = dict[str, Any]


@dataclass
class Row:
    """One contender's figures, one for each round; in a sweep, at the setting ``x``."""

    name: str
    values: list[float] = field(default_factory=list)
    x: float | None = None

    @property
    def median(self) -> float:
        """The middle one of the rounds."""
        return statistics.median(self.values)


@dataclass
class Table:
    """What the report shows as one table and one plot. ``axis`` names the setting that a sweep changes."""

    key: str
    title: str
    unit: str
    rows: list[Row] = field(default_factory=list)
    ours: str = ""
    axis: str = ""

    def row(self, name: str, x: float | None = None) -> Row:
        """That row, new if it is not there."""
        for row in self.rows:
            if (row.name, row.x) == (name, x):
                return row
        self.rows.append(Row(name, [], x))
        return self.rows[-1]

    def ratio(self, name: str, x: float | None = None) -> float | None:
        """The median of the rounds' ratios of ours to this one; None if one of them was not measured."""
        mine = next((row for row in self.rows if (row.name, row.x) == (self.ours, x)), None)
        other = next((row for row in self.rows if (row.name, row.x) == (name, x)), None)
        if mine is None or other is None or not mine.values or not all(other.values):
            return None
        return statistics.median(a / b for a, b in zip(mine.values, other.values, strict=False))


@dataclass
class Goal:
    """``measured`` should be at least ``goal`` (or at most, if ``below``)."""

    text: str
    goal: float
    measured: float | None
    below: bool = False

    @property
    def met(self) -> bool | None:
        """Whether it was reached; None if it was not measured."""
        if self.measured is None:
            return None
        return self.measured <= self.goal if self.below else self.measured >= self.goal


@dataclass
class Contender:
    """``run(count)`` sends or takes so many messages and returns the seconds; ``needs`` is the module it is made of.

    ``pace``, in messages per second, is what it reaches even on a slow machine. With too few
    messages, only the first and the last round trip of a large window would be measured.
    """

    name: str
    run: Callable[[int], float]
    needs: str = ""
    x: float | None = None
    pace: float = 300


class Child:
    """A process that does one thing: it prints "ready", waits for a line, and prints lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def line(self, expected: str = "") -> str:
        """The next line it says. Raises ConnectionFailure if it is another than expected, or there is none."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().rstrip("\n")
        if not line or (expected and line != expected):
            raise ConnectionFailure("a process of the benchmark failed")
        return line

    def tell(self, line: str) -> None:
        """Say a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def end(self) -> str:
        """What else it says until it ends by itself. Raises ConnectionFailure if it fails."""
        said, _ = self._process.communicate(timeout=900)
        if self._process.returncode:
            raise ConnectionFailure("a process of the benchmark failed")
        return said


@dataclass
class Lab:
    """A broker, a virtual host of our own on it, and how long to measure: ``seconds`` for each turn of a round."""

    settings: Settings
    version: str
    rounds: int
    seconds: float
    quick: bool
    steady: float
    tables: list[Table] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    made: int = 0

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a child process that is to use the same virtual host."""
        return environment(self.settings)

    def table(self, key: str, title: str, unit: str, ours: str = "", axis: str = "") -> Table:
        """A new table of this run."""
        console.say(f"{title} ({unit})")
        self.tables.append(Table(key, title, unit, [], ours, axis))
        return self.tables[-1]

    def skip(self, why: str) -> None:
        """Something is not measured: say so, once."""
        if why not in self.skipped:
            self.skipped.append(why)
            console.say(f"  skipped: {why}")

    def has(self, module: str) -> bool:
        """Whether a peer is installed; says so if it is not."""
        # kombu and celery, once imported, hide from find_spec.
        if not module or module in sys.modules or find_spec(module):
            return True
        self.skip(f"{module} is not installed: pip install -r benchmarks/requirements.txt")
        return False

    @contextmanager
    def child(self, *arguments: str) -> Iterator[Child]:
        """A process of benchmarks.child with these arguments; it is ended, if it has not ended by itself."""
        with subprocess.Popen(
            [sys.executable, "-m", "benchmarks.child", *arguments],
            cwd=ROOT,
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield Child(process)
            finally:
                process.terminate()

    def name(self) -> str:
        """A new name for a queue."""
        self.made += 1
        return f"benchmarks.{self.made}"

    @contextmanager
    def queue(self, kind: str = "quorum") -> Iterator[str]:
        """A new queue of this type, deleted afterwards."""
        name = self.name()
        with connect("benchmarks", self.settings) as connection:
            connection.channel().queue_declare(name, durable=True, arguments={"x-queue-type": kind})
        try:
            yield name
        finally:
            with connect("benchmarks", self.settings) as connection:
                connection.channel().queue_delete(name)

    def contest(self, table: Table, contenders: Sequence[Contender], *, part: float = 1.0) -> None:
        """Let each have its turn in each round, with as many messages as it does in ``part * seconds``.

        A first, short round is not counted: it finds out how many these are.
        """
        present = [contender for contender in contenders if self.has(contender.needs)]
        span = self.seconds * part
        counts: dict[int, int] = {}
        for index, contender in enumerate(present):
            count = whole(contender.pace * span)
            if rate := self.rate(contender, count):
                counts[index] = whole(max(rate, contender.pace) * span)
        for number in range(1, self.rounds + 1):
            for index, count in list(counts.items()):
                if rate := self.rate(present[index], count):
                    table.row(present[index].name, present[index].x).values.append(rate)
                else:
                    del counts[index]
            self.tell(table, number)

    def rate(self, contender: Contender, count: int) -> float | None:
        """Messages per second; None if a peer failed, which is printed. A failure of ours ends the run."""
        try:
            return count / contender.run(count)
        except (Failure, RobustPikaError):
            raise
        except Exception as error:  # each library has its own
            self.skip(f"{contender.name}: it failed with {type(error).__name__}: {error}")
            return None

    def tell(self, table: Table, number: int) -> None:
        """Show the figures of the last round in one line."""
        several = len({row.name for row in table.rows}) > 1
        parts = []
        for row in table.rows:
            label = "" if row.x is None else f"{row.x:,.10g}"
            if several or not label:
                label = f"{row.name} {label}".strip()
            parts.append(f"{label}: {figure(row.values[-1])}")
        console.say(f"  round {number} of {self.rounds}: {'; '.join(parts)}")


def figure(value: float) -> str:
    """With three significant digits, or as a whole number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def whole(count: float) -> int:
    """A whole number of messages within reason."""
    return max(1, min(MOST, round(count)))


def to_json(tables: Sequence[Table], goals: Sequence[Goal]) -> Json:
    """For the file of results."""
    return {
        "tables": [asdict(table) for table in tables],
        "goals": [{**asdict(goal), "met": goal.met} for goal in goals],
    }


def tables_from(data: Json) -> list[Table]:
    """What to_json wrote."""
    return [Table(**{**table, "rows": [Row(**row) for row in table["rows"]]}) for table in data["tables"]]


def goals_from(data: Json) -> list[Goal]:
    """What to_json wrote."""
    return [Goal(**{key: value for key, value in goal.items() if key != "met"}) for goal in data["goals"]]
