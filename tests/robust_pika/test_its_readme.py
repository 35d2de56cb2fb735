"""What the library's README shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

from common.config import Settings
from tests.support.process import ROOT, Script
from tour.vhost import environment

README = ROOT / "robust_pika" / "README.md"


def test_the_program_that_it_shows(settings: Settings, tmp_path: Path) -> None:
    [program] = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    address = settings.addresses[0]
    url = f"amqp://{settings.user}:{settings.password}@{address}/{settings.vhost}"
    program = program.replace("amqp://guest:guest@localhost/", url)
    path = tmp_path / "program.py"
    path.write_text(program, encoding="utf-8")
    with Script(str(path), environ=environment(settings)) as script:
        for number in range(10):
            script.expect(f"order {number}")
        script.interrupt()
        assert script.wait() == 0


def test_it_names_every_module() -> None:
    named = set(re.findall(r"\]\(([\w/]+)\.py\)", README.read_text(encoding="utf-8")))
    modules = {path.relative_to(README.parent).with_suffix("").as_posix() for path in README.parent.rglob("*.py")}
    private = {"_io/grace"}
    assert modules - named - private == {"__init__", "_io/__init__", "explaining", "messages", "outcomes"}
    assert named <= modules
