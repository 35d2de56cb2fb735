"""`make`: which tests it runs, how it installs, and that it stops what it started."""

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


# A Python that notes what it is asked, says what it is told to say, and has no package of ours.
PYTHON = """#!/bin/sh
echo "PIP_USER=$PIP_USER PIP_TARGET=$PIP_TARGET $*" >> asked
case "$*" in
  *"pip install"*) printf "$SAY"; exit ${INSTALL:-0} ;;
  *"pip show"*) exit ${SHOW:-0} ;;
esac
exit 1
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with the Makefile and a virtual environment whose Python is the one above."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.txt").touch()
    (tmp_path / "pyproject.toml").touch()
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "pip").touch()
    (programs / "python").write_text(PYTHON, encoding="utf-8")
    (programs / "python").chmod(0o755)
    return tmp_path


def make(folder: Path, target: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in {"MAKEFLAGS", "MAKELEVEL", "BROKER_DIRECTORY"} and not name.startswith("PIP_")
    }
    command = ["make", "-C", str(folder), "--no-print-directory", target]
    return subprocess.run(command, env=kept | environ, capture_output=True, text=True, timeout=60, check=False)


def test_pip_installs_into_the_virtual_environment_whatever_its_settings(copy: Path) -> None:
    done = make(copy, ".venv/.runtime", PIP_USER="1", PIP_TARGET="/elsewhere")
    assert done.returncode == 0, done.stderr
    first = (copy / "asked").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("PIP_USER=0 PIP_TARGET= -m pip install ")


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({"INSTALL": "1", "SAY": "ERROR: one\\nERROR: Can not perform it.\\n"}, "ERROR: Can not perform it."),
        ({"INSTALL": "1", "SAY": "WARNING: NewConnectionError\\nERROR: No matching\\n"}, "no network?"),
        # So it is if a file of pip's settings names another place.
        ({"SHOW": "1"}, "not into .venv; see pip config list"),
    ],
)
def test_what_cannot_be_installed_is_told_in_the_words_of_pip(copy: Path, environ: dict[str, str], why: str) -> None:
    done = make(copy, ".venv/.runtime", **environ)
    assert done.returncode != 0
    line = f"error: the requirements could not be installed ({why}); see .venv/pip.log"
    assert done.stderr.splitlines()[0] == line
    assert not (copy / ".venv" / ".runtime").exists()


def test_without_the_packages_there_is_nothing_to_stop(copy: Path) -> None:
    assert make(copy, "broker-down").stdout == "nothing to stop: no broker was started from here\n"
    done = make(copy, "clean")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (copy / ".venv").exists()


def test_the_data_of_a_broker_that_cannot_be_stopped_is_not_removed(copy: Path) -> None:
    (copy / ".broker").mkdir()
    (copy / ".broker" / "started.json").touch()
    done = make(copy, "clean")
    assert done.returncode != 0
    assert done.stderr.startswith("error: a broker was started here, but what stops it is not installed; first run: ")
    assert (copy / ".broker" / "started.json").exists()
