"""The table of versions: read, written and read again; what stands around it stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import versions
from tour.examples import examples

TEXT = f"""before
{versions.BEGIN}

| Example | 3.10 | 4.3 |
| --- | :---: | :---: |
| [work_queue](work_queue/) | ✓ | ✓ |
| [streams](streams/) | from 3.13 | ✓ |

{versions.END}
after
"""


def test_a_column_is_entered_between_the_others(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(TEXT, encoding="utf-8")
    versions.write(file, {"streams": "✓", "new": "✓"}, "4.0", ["work_queue", "new", "streams"])
    text = file.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert versions.parse(text) == {
        "work_queue": {"3.10": "✓", "4.0": "?", "4.3": "✓"},
        "new": {"3.10": "?", "4.0": "✓", "4.3": "?"},
        "streams": {"3.10": "from 3.13", "4.0": "✓", "4.3": "✓"},
    }
    versions.write(file, {}, "4.0", ["work_queue", "new", "streams"])
    assert file.read_text(encoding="utf-8") == text


def test_sections_that_need_more() -> None:
    assert versions.cell("", in_part=True) == "in part"
    assert versions.cell("it needs RabbitMQ 4.0 or later", in_part=True) == "from 4.0"


def test_a_file_without_a_table() -> None:
    with pytest.raises(ValueError, match="no table"):
        versions.parse("# README")


@pytest.mark.parametrize(
    ("told", "cell"),
    [
        ("", "✓"),
        (None, "✓"),
        ("classic priorities need RabbitMQ 4.0 or later; this is 3.10.8", "from 4.0"),
        ("the plugin is off", "no"),
    ],
)
def test_what_is_told_of_a_broker(told: str | None, cell: str) -> None:
    assert versions.cell(told) == cell


def test_the_readme_knows_every_example_on_every_version() -> None:
    table = versions.parse(versions.README.read_text(encoding="utf-8"))
    assert list(table) == [example.name for example in examples(versions.README.parent)]
    assert [name for name, cells in table.items() if versions.UNKNOWN in cells.values()] == []
