"""The screen of protocols/stomp in a real browser: Chromium, driven by Playwright."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from common.config import Address, Settings
from common.errors import ExitCode, Unsupported
from extras.management import Management
from tests.support.process import Script, run_script, wait_until
from tests.support.proxy import Proxy
from tour.vhost import environment

pytest.importorskip("stomp", reason="stomp.py is not installed: protocols/stomp/requirements.txt")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ORDER = "protocols/stomp/order.py"
COOK = "protocols/stomp/cook.py"
SCREEN = "protocols/stomp/show_screen.py"
PASSWORD = "not-for-your-eyes"
LIMIT_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: requirements-dev.txt")
    pictures = pytest.importorskip("playground.pictures", reason="playground/requirements.txt is not installed")
    try:
        chromium = pictures.chromium()
    except Unsupported as reason:
        pytest.skip(str(reason))
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=pictures.ARGUMENTS, timeout=LIMIT_MS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of this test's own; what goes wrong in its scripts fails the test."""
    errors: list[str] = []
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(LIMIT_MS)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


@pytest.fixture
def user(settings: Settings) -> Iterator[Settings]:
    """The virtual host of this test, as a user whose password can be told from everything else."""
    name = f"user.{settings.vhost}"
    with Management(settings, timeout=60) as management:
        management.create_user(name, PASSWORD)
        management.set_permissions(name, settings.vhost)
        yield replace(settings, user=name, password=PASSWORD)
        management.delete_user(name)


def address_of(screen: Script) -> str:
    return screen.expect(r"http://localhost:\d+/")[0]


def log_in(page: Page, address: str, password: str) -> None:
    page.goto(address)
    # The settings have come when the user's name is there.
    wait_until(lambda: page.input_value("#user"))
    page.fill("#password", password)
    page.click("button")


def state(page: Page, text: str) -> None:
    """Wait until what the page says begins so. (As a text, Playwright would find it anywhere, in any case.)"""
    page.locator("#state", has_text=re.compile(f"^{re.escape(text)}")).wait_for()


def test_what_is_cooked_appears_on_the_screen(user: Settings, page: Page) -> None:
    environ = environment(user)
    with Script(SCREEN, environ=environ) as screen, Script(COOK, "--seconds", "0", environ=environ) as cook:
        log_in(page, address_of(screen), PASSWORD)
        state(page, "Connected")
        cook.expect("Waiting")
        for dish in ("Pizza", "Crème brûlée", "<img src=x onerror=alert(1)>: a\nb"):
            assert run_script(ORDER, "--table", "7", dish, environ=environ).code == 0
            page.locator("#ready li", has_text=f"{dish.splitlines()[0]}").first.wait_for()
        # In the order of the newest first, and as text.
        shown = page.locator("#ready li").all_text_contents()
        assert shown[1:] == ["Crème brûlée for table 7 is ready", "Pizza for table 7 is ready"]
        assert shown[0].startswith("<img src=x onerror=alert(1)>: a")
        assert page.locator("#ready img").count() == 0
        assert not page.locator("#login").is_visible()
        assert page.input_value("#password") == ""
        assert PASSWORD not in page.content() + page.url
        screen.interrupt()
        assert screen.wait() == 0


def test_a_wrong_password_is_told_and_can_be_mended(user: Settings, page: Page) -> None:
    with Script(SCREEN, environ=environment(user)) as screen:
        log_in(page, address_of(screen), "wrong")
        state(page, "RabbitMQ says: Bad CONNECT: Access refused")
        page.fill("#password", PASSWORD)
        page.click("button")
        state(page, "Connected")


def test_a_screen_whose_connection_is_cut_comes_back(user: Settings, page: Page) -> None:
    environ = environment(user)
    with Proxy(Address("127.0.0.1", user.web_stomp_port)) as proxy:
        through = environ | {"RABBITMQ_WEB_STOMP_PORT": str(proxy.address.port)}
        with Script(SCREEN, environ=through) as screen, Script(COOK, "--seconds", "0", environ=environ) as cook:
            log_in(page, address_of(screen), PASSWORD)
            state(page, "Connected")
            proxy.refuse()
            proxy.cut()
            state(page, "No connection to")
            proxy.accept()
            state(page, "Connected")
            cook.expect("Waiting")
            assert run_script(ORDER, "Pizza", environ=environ).code == 0
            page.locator("#ready li", has_text="Pizza for table 1 is ready").wait_for()


def test_the_page_is_for_this_machine_alone_and_has_no_secret(user: Settings) -> None:
    with Script(SCREEN, environ=environment(user)) as screen:
        port = int(address_of(screen).rstrip("/").rpartition(":")[2])

        def get(path: str, host: str) -> tuple[int, str, str]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            told = answer.status, answer.read().decode(), answer.headers.get("Content-Security-Policy", "")
            connection.close()
            return told

        for path in ("/", "/screen.js", "/screen.css", "/settings.json"):
            status, body, policy = get(path, f"localhost:{port}")
            assert status == 200
            assert PASSWORD not in body
            assert re.match(r"default-src 'none'; script-src 'self'; .* ws://[^ ]+:\d+$", policy)
            assert get(path, "rebound.example")[0] == 421
        for path in ("/../client.py", "/client.py", "//etc/passwd", "/screen.js?x=1"):
            assert get(path, f"localhost:{port}")[0] == 404
        assert screen.lines[1:] == []


def test_a_port_that_is_taken_is_told(environ: dict[str, str]) -> None:
    with Script(SCREEN, environ=environ) as screen:
        port = address_of(screen).rstrip("/").rpartition(":")[2]
        result = run_script(SCREEN, "--port", port, environ=environ)
    assert (result.code, result.out, result.err.count("\n")) == (ExitCode.CONFIG, "", 1)
    assert f"port {port}" in result.err
