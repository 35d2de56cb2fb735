"""Every README's scenario is played against the broker, and must happen as it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import Settings
from tests.support.report import Report
from tour.examples import Example, examples
from tour.player import load, play

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = examples(ROOT)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])
def test_it_happens_as_it_is_written(
    example: Example, configured: Settings, broker_version: tuple[int, int, int], report: Report
) -> None:
    result = play(example.readme, configured)
    version = ".".join(map(str, broker_version))
    outcome = "differs" if result.failure else "as it is written"
    report.add("Scenarios", f"{result.name:<40} {result.blocks:>3} blocks  {outcome}  on {version}")
    if result.failure:
        pytest.fail(result.failure, pytrace=False)
    if result.unsupported:
        pytest.skip(result.unsupported)
    skipped = [block for block in example.scenario.played if block.own_broker]
    assert result.blocks == len(example.scenario.played) - len(skipped)


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


def test_the_root_readme_can_be_read() -> None:
    scenario = load(ROOT / "README.md")
    assert scenario.title
    assert scenario.sentence
