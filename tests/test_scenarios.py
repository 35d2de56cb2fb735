"""Every README's scenario is played against the broker, and must happen as it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from common.config import Settings
from tests.support import versions
from tests.support.own_broker import OwnBroker
from tests.support.report import Report
from tour.examples import Example, examples
from tour.player import Result, load, play
from tour.scenario import parse

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = examples(ROOT)
RESTARTING = [example for example in EXAMPLES if example.scenario.restarts]


def judge(result: Result, blocks: int, report: Report, where: str) -> None:
    """Fail unless ``blocks`` blocks went as they are written; tell it in the summary either way."""
    outcome = "NOT as it is written" if result.failure else result.unsupported or "as it is written"
    report.add("Scenarios", f"{result.name:<40} {result.blocks:>3} blocks on {where}: {outcome}")
    if result.failure:
        pytest.fail(result.failure, pytrace=False)
    if result.unsupported:
        pytest.skip(result.unsupported)
    assert result.blocks == blocks


@pytest.mark.timeout(600)
@pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])
def test_it_happens_as_it_is_written(
    request: pytest.FixtureRequest,
    example: Example,
    configured: Settings,
    broker_version: tuple[int, int, int],
    report: Report,
) -> None:
    scenario = example.scenario
    assert not example.error, example.error
    result = play(scenario, configured)
    if "is not installed" in result.unsupported:
        pytest.skip(result.unsupported)  # It says nothing about this broker.
    newer = sum(block.needs > broker_version for block in scenario.played if not block.own_broker)
    version, outcome = versions.column(broker_version), versions.cell(result.unsupported, in_part=newer > 0)
    if request.config.getoption("--write-versions") and not result.failure:
        names = [known.name for known in EXAMPLES]
        request.node.user_properties.append((versions.PROPERTY, (example.name, version, outcome, names)))
    elif not result.failure:
        table = versions.parse(versions.README.read_text(encoding="utf-8"))
        told = table.get(example.name, {}).get(version)
        if any(version in cells for cells in table.values()):
            assert told == outcome, f"the README says {told!r} for {version}; to mend it: {versions.BEGIN[15:-4]}"
    blocks = len(scenario.played) - len(scenario.restarts) - newer
    judge(result, blocks, report, ".".join(map(str, broker_version)))


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "example",
    [
        # A restart is mostly waiting: two brokers take turns.
        pytest.param(example, id=example.name, marks=pytest.mark.xdist_group(f"own broker {place % 2}"))
        for place, example in enumerate(RESTARTING)
    ],
)
def test_it_happens_as_it_is_written_when_the_broker_restarts(
    example: Example, own_broker: OwnBroker, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BROKER_DIRECTORY", "COMPOSE_PROJECT_NAME"):
        monkeypatch.setenv(name, own_broker.environ[name])
    scenario = replace(example.scenario, blocks=example.scenario.restarts)
    result = play(scenario, own_broker.settings, own_broker=True)
    version = own_broker.run("status").out.split(" answers")[0]
    judge(result, len(scenario.blocks), report, f"a {version} that restarts")


def test_the_example_for_contributors_happens_as_it_is_written(configured: Settings, report: Report) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (shown,) = (found for found in re.findall(r"^````markdown\n(.*?)^````$", text, re.M | re.S) if "console" in found)
    scenario = parse(shown, "CONTRIBUTING.md")
    judge(play(scenario, configured), len(scenario.blocks), report, "the broker of the tests")


def test_no_other_text_promises_what_is_not_played() -> None:
    played = {ROOT / example.scenario.source for example in EXAMPLES}
    texts = [path for path in (*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/**/*.md")) if path not in played]
    assert ROOT / "README.md" in texts
    assert [block for path in texts for block in load(path).blocks] == []


def test_every_readme_can_be_played() -> None:
    assert [example.error for example in EXAMPLES if example.error] == []


def test_examples_hide_nothing_from_the_scenario() -> None:
    left_out = [
        f"{example.scenario.source}:{block.line}"
        for example in EXAMPLES
        for block in example.scenario.blocks
        if not block.played
    ]
    assert left_out == []


def test_every_example_is_in_the_map() -> None:
    assert EXAMPLES
    assert [example.name for example in EXAMPLES if not example.mapped] == []


def test_the_list_is_the_map_with_its_sentences() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "tour", "--list"], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True
    )
    assert listed.stdout.splitlines() == [
        line
        for place, example in enumerate(EXAMPLES, 1)
        for line in (f"{place:2}. {example.name}", f"    {example.scenario.sentence}")
    ]
