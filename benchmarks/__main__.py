"""How fast RabbitMQ is from Python: robust_pika and its peers in turn, on the broker of the settings.

    python -m benchmarks [SECTION ...] [--quick]

Sections: publishing, consuming, frames, latency, rpc, scale, cost; all of them by default, which takes about seven
minutes, or about one with --quick. Everything happens in a virtual host of its own, which is deleted afterwards. The
figures go to benchmarks/results/, in files that are named after RabbitMQ's version; those of a run that is not complete
(--quick, or some sections) go to benchmarks/results/partial/. --report measures nothing: it makes the reports, the
plots and the tables of benchmarks/README.md again from the figures that are there.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path

from benchmarks import calls, consuming, cost, frames, latency, publishing, report, scale
from benchmarks.machine import machine, versions
from benchmarks.measure import Goal, Json, Lab, goals_from, tables_from, to_json
from common import console
from common.config import Settings
from common.connection import connect, server_version
from tour.vhost import fresh_vhost

SECTIONS: dict[str, Callable[[Lab], list[Goal]]] = {
    "publishing": publishing.run,
    "consuming": consuming.run,
    "frames": frames.run,
    "latency": latency.run,
    "rpc": calls.run,
    "scale": scale.run,
    "cost": cost.run,
}


def measure(settings: Settings, sections: list[str], command: str, lab: Lab) -> Iterator[Json]:
    """Run the sections in a virtual host of their own; after each, what was found so far."""
    began = time.monotonic()
    conditions = {"machine": machine(), "versions": versions(lab.version)}
    goals: list[Goal] = []
    with fresh_vhost(settings, "benchmarks") as own:
        lab.settings = own
        for name in sections:
            console.say(f"== {name}")
            goals += SECTIONS[name](lab)
            yield {
                "command": command,
                "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
                "minutes": round((time.monotonic() - began) / 60, 1),
                "rounds": lab.rounds,
                **conditions,
                **to_json(lab.tables, goals),
                "skipped": lab.skipped,
            }


def save(data: Json, folder: Path, *, plotted: bool = True) -> None:
    """Write the figures, the report and, if matplotlib is installed, the plots."""
    version = report.short(data["versions"]["RabbitMQ"])
    plotted = plotted and find_spec("matplotlib") is not None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{version}.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (folder / f"{version}.md").write_text(report.document(data, plotted=plotted), encoding="utf-8")
    if plotted:
        from benchmarks import plots  # noqa: PLC0415

        plots.draw(data, tables_from(data), folder)


def show(data: Json) -> None:
    """The tables and the goals, for the terminal."""
    for table in tables_from(data):
        console.say("")
        console.say(table.title)
        for line in report.table_lines(table):
            console.say(line)
    console.say("")
    for line in report.goal_lines(goals_from(data)):
        console.say(line)
    for why in data["skipped"]:
        console.say(f"skipped: {why}")


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="fewer figures, less sure ones")
    parser.add_argument("--rounds", type=console.whole(1, 100), help="how often each has its turn (default: 3)")
    parser.add_argument("--seconds", type=console.seconds, help="how long a turn takes (default: 0.5; quick: 0.1)")
    parser.add_argument("--steady", type=console.seconds, help="how long the steady load lasts (default: 30; quick: 3)")
    parser.add_argument("--results", type=Path, help="the folder for the results (default: benchmarks/results)")
    parser.add_argument("--report", action="store_true", help="make reports, plots and the README's tables again")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"there is no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    if arguments.report:
        for path in sorted(report.RESULTS.glob("*.json")):
            save(json.loads(path.read_text(encoding="utf-8")), report.RESULTS)
        text = report.README.read_text(encoding="utf-8")
        report.README.write_text(report.filled(text), encoding="utf-8")
        return
    quick = arguments.quick
    settings = Settings.load()
    with connect("benchmarks", settings) as connection:
        version = ".".join(map(str, server_version(connection)))
    # What the libraries log while connections come and go is not for the reader.
    logging.disable(logging.ERROR)
    rounds = arguments.rounds or (2 if quick else 3)
    seconds = arguments.seconds or (0.1 if quick else 0.5)
    steady = arguments.steady or (3.0 if quick else 30.0)
    sections = [name for name in SECTIONS if not arguments.sections or name in arguments.sections]
    command = " ".join(["python -m benchmarks", *arguments.sections, *(["--quick"] if quick else [])])
    whole = not quick and sections == list(SECTIONS)
    partial = arguments.results or report.RESULTS / "partial"
    data: Json = {}
    lab = Lab(settings, version, rounds, seconds, quick, steady)
    lab.has("matplotlib")  # says that there will be no plots
    for data in measure(settings, sections, command, lab):
        save(data, partial, plotted=False)  # what follows may fail
    show(data)
    folder = report.RESULTS if whole and not arguments.results else partial
    save(data, folder)
    console.say(f"written to {folder}")


if __name__ == "__main__":
    console.run(main)
