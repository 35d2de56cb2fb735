"""Make the pictures of the README from the real page: python -m playground.pictures

It needs Chromium, and Playwright and Pillow (requirements-dev.txt). Each picture carries a mark of the page's files, by
which a test knows whether it is still current.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, PngImagePlugin
from playwright.sync_api import Browser, Page, sync_playwright

from common import console
from common.errors import Unsupported
from playground.app import PAGE

PICTURES = PAGE.parent / "pictures"
CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_PATIENCE = 120_000
_FRAMES = 120
_LONGEST = 90.0
_FRAME = 120
_COLOURS = 200


def chromium() -> str:
    """Where Chromium is. Raises Unsupported if there is none."""
    found = next((path for path in CHROMIUM if Path(path).is_file()), None) or shutil.which("chromium")
    if not found:
        raise Unsupported("no Chromium is installed (Debian, Ubuntu: apt-get install chromium)")
    return found


def mark() -> str:
    """What tells one state of the page's files from another."""
    digest = hashlib.sha256()
    for path in sorted(PAGE.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def marked(picture: Path) -> str:
    """The mark that a picture carries."""
    with Image.open(picture) as image:
        found = image.info.get("page") or image.info.get("comment") or ""
    return found.decode() if isinstance(found, bytes) else str(found)


def make(browser: Browser, url: str, folder: Path) -> list[Path]:
    """Take all pictures of the playground at ``url`` into ``folder``."""
    folder.mkdir(exist_ok=True)
    return [
        _film(browser, url, folder / "work_queue.gif"),
        _still(
            browser, url, folder / "dead_letters.png", example="reliability/dead_letters", steps=9, size=(1280, 800)
        ),
        _still(browser, url, folder / "dark.png", example="topics", steps=4, size=(1280, 800), projected=True),
        _still(browser, url, folder / "phone.png", example="publish_subscribe", steps=3, size=(390, 800)),
    ]


def _open(browser: Browser, url: str, example: str, size: tuple[int, int], dark: bool = False) -> Page:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light"
    )
    page = context.new_page()
    page.set_default_timeout(_PATIENCE)
    page.goto(f"{url}/?example={example}")
    page.wait_for_selector("body[data-connected=yes]")
    return page


def _play(page: Page, until: int) -> None:
    page.evaluate(f"document.querySelector('#step-{until - 1} button').click()")
    page.wait_for_selector(f"body[data-next='{until}'][data-playing=false]")


def _still(
    browser: Browser,
    url: str,
    target: Path,
    *,
    example: str,
    steps: int,
    size: tuple[int, int],
    projected: bool = False,
) -> Path:
    page = _open(browser, url, example, size, projected)
    if projected:
        page.click("#large")
    _play(page, steps - 1)
    page.click("#step")
    # While its dots are on their way.
    page.wait_for_selector("#stage .dot")
    page.wait_for_timeout(900)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    info = PngImagePlugin.PngInfo()
    info.add_text("page", mark())
    image.quantize(128).save(target, optimize=True, pnginfo=info)
    page.context.close()
    return target


def _film(browser: Browser, url: str, target: Path) -> Path:
    """The README's own experiment: a worker is killed in the middle of a task."""
    page = _open(browser, url, "work_queue", (900, 640))
    _play(page, 14)
    # The dots are held, and moved on from one picture to the next: a film does not depend on how busy the machine is.
    page.click("#freeze")
    page.evaluate("document.querySelector('#step-17 button').click()")
    frames: list[Image.Image] = []
    ends = time.monotonic() + _LONGEST
    while len(frames) < _FRAMES and time.monotonic() < ends:
        page.evaluate("passed => document.getElementById('stage').stage.tick(passed)", _FRAME)
        frames.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
        if page.get_attribute("#stage", "data-redelivered") == "1":
            break
    page.context.close()
    # One palette for all of them, from pictures of the beginning, the middle and the end.
    width, height = frames[0].size
    samples = Image.new("RGB", (width, height * 4))
    for part in range(4):
        samples.paste(frames[len(frames) * part // 4], (0, part * height))
    palette = samples.quantize(_COLOURS, method=Image.Quantize.MAXCOVERAGE)
    small = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    small[0].save(
        target,
        save_all=True,
        append_images=small[1:],
        duration=[90] * (len(small) - 1) + [2000],
        loop=0,
        optimize=True,
        comment=mark().encode(),
    )
    return target


@contextmanager
def _playground() -> Iterator[str]:
    """A server for the pictures; its address."""
    command = [sys.executable, "-m", "playground", "--port", "0", "--no-browser", "--linger", "1", "--pause", "0.2"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert server.stdout is not None
    try:
        found = None
        while found is None:
            line = server.stdout.readline()
            if not line:
                raise Unsupported("the playground did not start")
            found = re.search(r"http://[\d.]+:\d+", line)
        yield found[0]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def main() -> None:
    console.parser(__doc__).parse_args()
    path = chromium()
    with _playground() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        for picture in make(browser, url, PICTURES):
            console.say(f" [x] {picture.relative_to(Path.cwd())}, {picture.stat().st_size // 1024} KiB")
        browser.close()


if __name__ == "__main__":
    console.run(main)
