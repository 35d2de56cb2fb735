"""Which tests `make test` runs: those that do not take long, all of them, or those of the examples that are named."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.mark.parametrize(
    ("arguments", "only"),
    [
        ([], ""),
        (["LONG=1"], "--long"),
        (["EXAMPLE=all"], ""),
        (["EXAMPLE=work_queue"], "--long -k 'work_queue'"),
        (["EXAMPLE=reliability/retries/"], "--long -k 'retries'"),
        (["EXAMPLE=rpc  protocols/mqtt"], "--long -k 'rpc or mqtt'"),
    ],
    ids=str,
)
def test_the_tests_of_the_examples_that_are_named(arguments: list[str], only: str) -> None:
    environ = {
        name: value for name, value in os.environ.items() if name not in {"EXAMPLE", "LONG", "MAKEFLAGS", "MAKELEVEL"}
    }
    told = subprocess.run(
        ["make", "--dry-run", "test", *arguments], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    ).stdout
    [line] = [line for line in told.splitlines() if " -m pytest" in line]
    assert line.partition("loadgroup")[2].strip() == only
