"""A Python that would not find an example's modules, or would find another project's: one line says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 60
SAFE = pytest.mark.skipif(sys.version_info < (3, 11), reason="this Python has no -P")


def run(*arguments: str, folder: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    # --help: no broker is asked for anything.
    return subprocess.run(
        [sys.executable, *arguments, "--help"],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@SAFE
@pytest.mark.parametrize("folder", [ROOT, ROOT / "work_queue"])
def test_a_python_that_does_not_look_beside_the_script(folder: Path) -> None:
    script = os.path.relpath(ROOT / "work_queue" / "new_task.py", folder)
    told = "error: Python does not look for modules beside the script (PYTHONSAFEPATH, -P or -I); start it without\n"
    for done in (run(script, folder=folder, PYTHONSAFEPATH="1"), run("-P", script, folder=folder)):
        assert (done.returncode, done.stdout, done.stderr) == (78, "", told)


@SAFE
def test_what_needs_nothing_beside_it_goes_on() -> None:
    for arguments in (["send_and_receive/send.py"], ["-m", "broker"]):
        done = run(*arguments, PYTHONSAFEPATH="1")
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("package", ["common", "robust_pika", "extras"])
@pytest.mark.parametrize("script", ["send_and_receive/send.py", "work_queue/new_task.py"])
def test_a_package_of_another_project_with_a_name_of_ours(tmp_path: Path, package: str, script: str) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    done = run(script, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == (
        f"error: the package {package!r} would be another project's, {tmp_path / package / '__init__.py'}; "
        "take that out of PYTHONPATH\n"
    )


def test_a_folder_of_that_name_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    assert run("work_queue/new_task.py", PYTHONPATH=str(tmp_path)).returncode == 0
