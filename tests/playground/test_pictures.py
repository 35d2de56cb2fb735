"""The pictures of the README are made by the real page, and are those of the page as it is now."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from playground import pictures
from tests.playground.conftest import Playground
from tests.support.forked import ROOT

README = ROOT / "playground" / "README.md"


@pytest.mark.xdist_group("playground")
def test_they_can_be_made(browser: Any, playground: Playground, tmp_path: Path) -> None:
    made = pictures.make(browser, playground.url, tmp_path)
    for picture in made:
        with Image.open(picture) as image:
            assert image.size[0] >= 390
            assert len(image.convert("RGB").getcolors(1_000_000) or ()) > 8, f"{picture.name} is empty"
        assert picture.stat().st_size < 3_000_000
    with Image.open(made[0]) as film:
        assert getattr(film, "n_frames", 1) > 5
    assert {picture.name for picture in made} == set(re.findall(r"pictures/([\w.]+)", README.read_text("utf-8")))


@pytest.mark.parametrize("picture", sorted(pictures.PICTURES.iterdir()), ids=lambda path: path.name)
def test_they_are_current(picture: Path) -> None:
    told = f"playground/page has changed since {picture.name} was made; make it again: python -m playground.pictures"
    assert pictures.marked(picture) == pictures.mark(), told
