"""Which examples are found, in which order, and how they are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from tour.examples import Example, UnknownExample, choose, examples

SCENARIO = "# {}\n\nA sentence. Another.\n\n```console\n# Terminal 1\n$ true\n```\n"
MAP = """\
# The course

Read [two](two/) before all.

## The map

| Example | Shows |
| --- | --- |
| [three](three/README.md#top) | 3 |
| [one](one) | 1 |
| [one](one/) again | 1 |
| [elsewhere](https://example.org/two/) | - |
| [gone](gone/) | - |

### More

- [deep](shelf/deep/)

## Afterwards

- [two](two/)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("one", "two", "three", "shelf/deep", "shelf/lost", ".hidden/x", "build"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "README.md").write_text(SCENARIO.format(name), encoding="utf-8")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "README.md").write_text("# Plain\n\n```sh\n$ true\n```\n", encoding="utf-8")
    (tmp_path / "README.md").write_text(MAP, encoding="utf-8")
    return tmp_path


def names(found: list[Example]) -> list[str]:
    return [example.name for example in found]


def test_the_map_first_and_then_the_others(root: Path) -> None:
    found = examples(root)
    assert [(example.name, example.mapped) for example in found] == [
        ("three", True),
        ("one", True),
        ("shelf/deep", True),
        ("shelf/lost", False),
        ("two", False),
    ]
    assert found[0].scenario.source == "three/README.md"
    assert found[0].scenario.sentence == "A sentence."


def test_a_readme_that_cannot_be_played_does_not_hide_the_others(root: Path) -> None:
    (root / "one" / "README.md").write_text("# one\n\n```console\n$ true\n```\n", encoding="utf-8")
    found = examples(root)
    assert names(found) == ["three", "one", "shelf/deep", "shelf/lost", "two"]
    assert [example.name for example in found if example.error] == ["one"]
    assert found[1].error.startswith("one/README.md:3: the block does not name its terminal")
    assert (found[1].mapped, found[1].scenario.blocks) == (True, ())


def test_without_a_map_all_links_count(root: Path) -> None:
    (root / "README.md").write_text("# T\n\n[two](two/) and [one](one/)\n", encoding="utf-8")
    assert names(examples(root))[:2] == ["two", "one"]
    (root / "README.md").unlink()
    assert names(examples(root)) == ["one", "shelf/deep", "shelf/lost", "three", "two"]


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ([], ["three", "one", "shelf/deep", "shelf/lost", "two"]),
        (["two", "one"], ["two", "one"]),
        (["./one/"], ["one"]),
        (["shelf/deep/README.md"], ["shelf/deep"]),
        (["deep"], ["shelf/deep"]),
    ],
)
def test_how_they_are_called(root: Path, asked: list[str], chosen: list[str]) -> None:
    assert names(choose(examples(root), asked)) == chosen


def test_one_that_is_not_there(root: Path) -> None:
    with pytest.raises(UnknownExample) as caught:
        choose(examples(root), ["plain"])
    assert str(caught.value) == ("there is no example 'plain'; there are: three, one, shelf/deep, shelf/lost, two")


def test_a_name_that_means_two(root: Path) -> None:
    (root / "other" / "deep").mkdir(parents=True)
    (root / "other" / "deep" / "README.md").write_text(SCENARIO.format("x"), encoding="utf-8")
    with pytest.raises(UnknownExample):
        choose(examples(root), ["deep"])
