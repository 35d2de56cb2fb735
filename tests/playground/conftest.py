"""A real server of the playground on a free port, and a real Chromium to look at it, where there is one."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psutil
import pytest
from playwright.sync_api import sync_playwright
from websockets import Origin
from websockets.sync.client import ClientConnection, connect

from common.config import Settings
from common.errors import Unsupported
from extras.management import Management
from playground import pictures
from playground.identity import MARK, Identity
from playground.leftovers import marked
from tests.support.process import Script, wait_until

LIMIT = 60.0


class Playground:
    """A running server: its address, what belongs to it, and a WebSocket client that speaks as the page does."""

    def __init__(self, script: Script, url: str, configured: Settings) -> None:
        self.script, self.url, self.configured = script, url, configured
        process = psutil.Process(script.pid)
        self.name = str(Identity(Identity.own().host, script.pid, round(process.create_time() * 1000)))

    @property
    def host(self) -> str:
        """Its address without the scheme."""
        return self.url.removeprefix("http://")

    def vhosts(self) -> list[str]:
        """The virtual hosts that its sessions have made."""
        with Management(self.configured) as api:
            return [item.name for item in api.vhosts() if item.name.startswith(f"{self.name}.")]

    def tracing(self) -> bool:
        """Whether the firehose of any of them is on."""
        with Management(self.configured) as api:
            return any(item.tracing for item in api.vhosts() if item.name.startswith(f"{self.name}."))

    def users(self) -> list[str]:
        """The users that its sessions have made."""
        with Management(self.configured) as api:
            return [item["name"] for item in api.request("GET", "users") if item["name"].startswith(f"{self.name}.")]

    def children(self) -> list[int]:
        """The processes that its sessions have started."""
        return [process.pid for process in marked(MARK, lambda value: value == self.name)]

    def left(self) -> tuple[list[str], list[str], list[int]]:
        """All that is to be gone when it has ended."""
        return self.vhosts(), self.users(), self.children()

    def open(self, example: str) -> str:
        """A new session's name."""
        answer = httpx.post(
            f"{self.url}/api/sessions", json={"example": example}, headers={"Origin": self.url}, timeout=LIMIT
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["session"])

    @contextmanager
    def look(self, session: str) -> Iterator[Page]:
        """Look at a session, as a page does."""
        with connect(
            f"ws://{self.host}/ws?session={session}",
            origin=Origin(self.url),
            max_size=None,
            open_timeout=LIMIT,
            # A busy machine may take its time to answer.
            ping_interval=None,
        ) as socket:
            yield Page(socket)


class Page:
    """The other end of a page's WebSocket, without the page."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def send(self, **request: Any) -> None:
        """Ask for something."""
        self.socket.send(json.dumps(request))

    def until(self, condition: Callable[[dict[str, Any]], bool], limit: float = 150) -> dict[str, Any]:
        """The next message that fulfils ``condition``; it must come within ``limit`` seconds."""
        deadline = time.monotonic() + limit
        lines: deque[str] = deque(maxlen=10)
        while True:
            try:
                message: dict[str, Any] = json.loads(self.socket.recv(max(0.0, deadline - time.monotonic())))
            except TimeoutError:
                raise AssertionError(
                    "\n".join([f"no such message in {limit:g} s; the terminals' last:", *lines])
                ) from None
            if condition(message):
                return message
            lines.extend(line[:100] for line in message.get("more", ()))

    def notice(self) -> str:
        """The next refusal."""
        return str(self.until(lambda message: message["type"] == "notice")["text"])


@contextmanager
def serving(
    configured: Settings, *options: str, environ: dict[str, str] | None = None, may_restart: bool = False
) -> Iterator[Playground]:
    """A server, stopped at the end as Ctrl-C does; whatever it leaves behind then is an error.

    The broker may be one that `make` has started, and serves other tests as well: unless the test says that its pages
    ``may_restart`` it, they must not.
    """
    environ = {**os.environ, **(environ or {})}
    options = ("--port", "0", "--no-browser", *(() if may_restart else ("--no-own-broker",)), *options)
    with Script("-m", "playground", *options, environ=environ) as script:
        url = script.expect(r"http://127\.0\.0\.1:\d+", LIMIT)[0]
        playground = Playground(script, url, configured)
        try:
            yield playground
        finally:
            if script.code is None:
                script.interrupt()
                assert script.wait(LIMIT) == 0, script.lines
            wait_until(lambda: playground.left() == ([], [], []), LIMIT)


@pytest.fixture(scope="module")
def playground(configured: Settings, reachable: tuple[int, int, int] | str) -> Iterator[Playground]:
    """A server for the tests of one file."""
    if isinstance(reachable, str):
        pytest.fail(reachable, pytrace=False)
    with serving(configured, "--linger", "2", "--pause", "0.05") as server:
        yield server


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where Chromium is; without it, the test is skipped."""
    try:
        return pictures.chromium()
    except Unsupported as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """A real Chromium, driven by Playwright."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=pictures.ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """A page of the browser. An error of its scripts, or a refusal of its content policy, fails the test."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.set_default_timeout(LIMIT * 1000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if "Policy" in message.text else None)
    yield page
    context.close()
    assert errors == []
