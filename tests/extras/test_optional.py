"""Packages that may be missing: what a script says then, and what it does not swallow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import ExitCode
from extras.optional import packages_for

SCRIPT = """
from extras.optional import packages_for

with packages_for(__file__):
    import {module}

print("imported")
"""
TIMEOUT = 60


def run(folder: Path, module: str, here: Path) -> tuple[int, str, str]:
    script = folder / "script.py"
    script.write_text(SCRIPT.format(module=module))
    done = subprocess.run(
        [sys.executable, script], cwd=here, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shelf" / "example"
    folder.mkdir(parents=True)
    (folder / "requirements.txt").write_text("no-such-package\n")
    return folder


def test_what_is_installed_is_imported(folder: Path) -> None:
    assert run(folder, "pika", folder) == (0, "imported\n", "")


def test_what_is_missing_is_told_in_one_line_that_can_be_typed_there(folder: Path, tmp_path: Path) -> None:
    text = "error: the package 'no_such_package' is not installed: pip install -r {}\n"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for here, path in [
        (tmp_path, "shelf/example/requirements.txt"),
        (folder, "requirements.txt"),
        (elsewhere, str(folder / "requirements.txt")),
    ]:
        told = run(folder, "no_such_package.sub.module", here)
        assert told == (ExitCode.NOT_INSTALLED, "", text.format(path))


def test_another_error_is_raised(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), packages_for(str(folder / "script.py")):
        _ = 1 / 0
    (folder / "requirements.txt").unlink()
    with pytest.raises(ModuleNotFoundError), packages_for(str(folder / "script.py")):
        import no_such_package  # type: ignore[import-not-found] # noqa: F401, PLC0415
