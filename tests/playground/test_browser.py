"""Opening the page: whatever this machine has for a browser, the playground serves, and ends when it is told to."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.process import Script, wait_until

LIMIT = 60.0
# As one of a terminal does: it stays in the foreground, reads the keyboard, and Ctrl-C is nothing to it.
BROWSER = """#!/bin/sh
trap '' INT TERM
echo "$$ $1" > "$0.opened.new"
mv "$0.opened.new" "$0.opened"
if [ -t 0 ] || [ -t 1 ] || : < /dev/tty; then touch "$0.has-a-terminal"; fi
exec sleep 300
"""


@pytest.mark.usefixtures("broker_version")
@pytest.mark.parametrize("stop", [Script.interrupt, Script.terminate])
def test_a_browser_of_the_terminal_is_in_nobodys_way(tmp_path: Path, stop: Callable[[Script], None]) -> None:
    browser = tmp_path / "browser"
    browser.write_text(BROWSER, encoding="utf-8")
    browser.chmod(0o755)
    opened = Path(f"{browser}.opened")
    environ = {**os.environ, "BROWSER": str(browser)}
    try:
        with Script("-m", "playground", "--port", "0", "--no-own-broker", environ=environ) as script:
            url = script.expect(r"http://127\.0\.0\.1:\d+", LIMIT)[0]
            assert httpx.get(url, timeout=LIMIT).status_code == 200
            wait_until(opened.exists, LIMIT)
            assert opened.read_text(encoding="utf-8").split()[1] == url
            stop(script)
            assert script.wait(LIMIT) == 0, script.lines
        assert not Path(f"{browser}.has-a-terminal").exists()
    finally:
        if opened.exists():
            # It ends with the playground; if it does not, it must not be left behind.
            with suppress(psutil.NoSuchProcess):
                psutil.Process(int(opened.read_text(encoding="utf-8").split()[0])).kill()
