"""What the README of common shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

from common.config import Settings
from tests.support.process import ROOT, Script
from tour.vhost import environment

README = ROOT / "common" / "README.md"


def test_the_program_that_it_shows(settings: Settings, tmp_path: Path) -> None:
    [program] = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    path = tmp_path / "program.py"
    path.write_text(program, encoding="utf-8")
    with Script(str(path), environ=environment(settings)) as script:
        script.expect(re.escape("{'id': 7}"))
        script.interrupt()
        assert script.wait() == 0


def test_it_names_every_module() -> None:
    named = set(re.findall(r"\]\((\w+)\.py\)", README.read_text(encoding="utf-8")))
    assert named == {path.stem for path in README.parent.glob("*.py") if path.stem != "__init__"}
