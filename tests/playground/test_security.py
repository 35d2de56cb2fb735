"""What must not get in: other sites, other names, commands, paths, HTML; and what must not grow without limit."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import replace
from typing import Any

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from common.config import Settings
from common.connection import connect as connect_to_broker
from robust_pika import Publisher
from tests.playground.conftest import LIMIT, Page, Playground, serving
from tests.support.process import wait_until

pytestmark = pytest.mark.xdist_group("playground")


def own_vhost(playground: Playground) -> Settings:
    """Settings of the only session's virtual host."""
    wait_until(lambda: len(playground.vhosts()) == 1, LIMIT)
    (vhost,) = playground.vhosts()
    return replace(playground.configured, vhost=vhost)


def ready(page: Page) -> dict[str, Any]:
    return page.until(lambda message: message["type"] == "snapshot")


def until_played(page: Page, step: int) -> None:
    page.send(do="play", until=step)
    page.until(lambda message: message["type"] == "state" and message["next"] == step and not message["playing"])


def test_it_listens_on_loopback_only(playground: Playground) -> None:
    port = int(playground.url.rpartition(":")[2])
    addresses = {
        connection.laddr.ip
        for connection in psutil.Process(playground.script.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }
    assert addresses == {"127.0.0.1"}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "localhost.:{port}"]
)
def test_another_name_is_refused(playground: Playground, host: str) -> None:
    """DNS rebinding: a page of another site, whose name now leads to this machine."""
    port = playground.url.rpartition(":")[2]
    answer = httpx.get(f"{playground.url}/api/examples", headers={"Host": host.format(port=port)})
    assert answer.status_code == 403
    assert "its own address" in answer.text
    assert httpx.get(f"http://localhost:{port}/api/examples").status_code == 200


@pytest.mark.parametrize(
    "origin", [None, "http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1"]
)
def test_another_site_is_refused(playground: Playground, origin: str | None) -> None:
    port = playground.url.rpartition(":")[2]
    headers = {"Origin": origin.format(port=port)} if origin else {}
    answer = httpx.post(f"{playground.url}/api/sessions", json={"example": "work_queue"}, headers=headers)
    assert answer.status_code == 403
    session = playground.open("work_queue")
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(
            f"ws://{playground.host}/ws?session={session}",
            origin=headers.get("Origin"),  # type: ignore[arg-type]
        ),
    ):
        pass
    assert refused.value.response.status_code == 403
    if origin:
        assert httpx.get(f"{playground.url}/api/examples", headers=headers).status_code == 403


def test_the_page_may_load_nothing_from_elsewhere_and_run_nothing_inline(playground: Playground) -> None:
    answer = httpx.get(playground.url)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    for name in ("/", "/page/main.js", "/page/stage.js", "/page/style.css"):
        assert "https://" not in httpx.get(f"{playground.url}{name}").text, name


@pytest.mark.parametrize(
    "path",
    ["/source?file=../../etc/passwd", "/source?file=/etc/passwd", "/source?file=.env", "/source?file=playground/app.py",
     "/source?file=work_queue/../.env", "/page/../app.py", "/page/%2e%2e/app.py", "/page/", "/page/nothing.js",
     "/api/lesson?example=../work_queue", "/api/lesson?example="],
)  # fmt: skip
def test_no_path_is_reached(playground: Playground, path: str) -> None:
    with socket.create_connection(("127.0.0.1", int(playground.url.rpartition(":")[2]))) as plain:
        # As it is: an HTTP client would tidy the path up first.
        plain.sendall(f"GET {path} HTTP/1.1\r\nHost: {playground.host}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: plain.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert httpx.get(f"{playground.url}/source?file=work_queue/worker.py").status_code == 200


def test_nothing_but_the_commands_of_the_readme_is_run(playground: Playground) -> None:
    """Whatever a page asks for, no process starts that the README does not name."""
    with playground.look(playground.open("work_queue")) as page:
        ready(page)
        for request in (
            {"do": "launch", "command": "touch /tmp/no"},
            {"do": "__init__"},
            {"do": ["step"]},
            {"do": None},
            {"do": "restart", "terminal": "; touch /tmp/no"},
            {"do": "another", "terminal": {"command": "touch /tmp/no"}},
            {"do": "play", "until": 10**9},
            {"do": "play", "until": "1; touch /tmp/no"},
            {"do": "fill", "queue": "amq.gen-nothing", "count": 5},
            {"do": "broker"},
        ):
            page.send(**{"command": "touch /tmp/no", **request})
            assert page.notice()
        for text in ("", "[]", "{", "null", '"step"', "[" * 100_000, json.dumps({"do": "x" * 100_000})):
            page.socket.send(text)
            assert page.notice()
        assert playground.children() == []
        until_played(page, 1)
        assert [psutil.Process(pid).cmdline()[1:] for pid in playground.children()] == [["work_queue/worker.py"]]


def test_what_is_published_by_hand_is_checked(playground: Playground) -> None:
    with playground.look(playground.open("work_queue")) as page:
        ready(page)
        until_played(page, 1)
        wrong: dict[str, dict[str, Any]] = {
            "the body is empty": {"body": ""},
            "larger than the 64 KiB": {"body": "x" * 70_000},
            "AMQP allows 255": {"key": "k" * 300},
            "the headers are not JSON": {"headers": "{colour: red}"},
            "must be a JSON object": {"headers": "[1]"},
            "must be a text, a number": {"headers": '{"a": {"b": 1}}'},
            "the form cannot be read": {"exchange": 7},
            "not valid UTF-8": {"body": "\ud800"},
            "no exchange": {"exchange": "nothing.here"},
        }
        for told, change in wrong.items():
            page.send(
                **{"do": "publish", "exchange": "", "key": "work_queue.tasks", "headers": "", "body": "x", **change}
            )
            assert told in page.notice()
        for count in (0, -1, 5001, "many", 1.5, None):
            page.send(do="fill", queue="work_queue.tasks", count=count)
            assert "whole number from 1 to 5000" in page.notice()


def test_hostile_messages_are_text_and_do_no_harm(playground: Playground, tab: Any) -> None:
    """HTML, terminal escapes, what is no UTF-8, and 10 MB."""
    # Its receiver shows whatever bytes it gets.
    tab.goto(f"{playground.url}/?example=send_and_receive")
    tab.wait_for_selector("body[data-connected=yes]")
    tab.evaluate("document.querySelector('#step-2 button').click()")
    tab.wait_for_selector("body[data-next='3'][data-playing=false]")
    evil = (
        "<img src=x onerror=\"document.body.dataset.harmed='yes'\"><script>document.body.dataset.harmed='yes'</script>"
    )
    bodies = [evil.encode(), b"\x1b[2J\x1b]0;harmed\x07red\x1b[31m", b"\xff\xfe\x00\x80", b"x" * 10_000_000]
    with connect_to_broker("tests", own_vhost(playground)) as connection:
        channel = connection.channel()
        for body in bodies:
            channel.basic_publish("", "send_and_receive.hello", body)
        channel.exchange_declare(evil[:100], "fanout", durable=True)
        channel.queue_declare(evil[:100], durable=True)
        channel.queue_bind(evil[:100], evil[:100], routing_key=evil[:100])
        channel.basic_publish(evil[:100], evil[:100], evil.encode())
    wait_until(lambda: int(tab.get_attribute("#stage", "data-published")) == 6, LIMIT)
    wait_until(lambda: int(tab.get_attribute("#stage", "data-delivered")) >= 5, LIMIT)
    wait_until(lambda: "\\x1b[2J" in tab.inner_text("#terminals"), LIMIT)
    assert "<img src=x" in tab.inner_text("#terminals")
    assert evil[:60] in tab.text_content("#stage")
    tab.click("#tab-messages")
    details = ""
    for place in range(tab.locator("#log button").count()):
        tab.locator("#log button").nth(place).click()
        details += tab.inner_text("#details")
    assert "10,000,000 bytes" in details
    assert "<img src=x" in details
    assert tab.locator("#work img, #details img, #work script").count() == 0
    assert tab.get_attribute("body", "data-harmed") is None
    # It still answers.
    tab.click("#tab-terminals")
    tab.click("#step")
    tab.wait_for_selector("body[data-next='4'][data-playing=false]")


@pytest.mark.long
def test_a_burst_of_100000_messages_is_survived(playground: Playground) -> None:
    with playground.look(playground.open("work_queue")) as page:
        ready(page)
        until_played(page, 1)
        with connect_to_broker("tests", own_vhost(playground)) as connection:
            channel = connection.channel()
            channel.queue_declare("burst", durable=True, arguments={"x-max-length": 1000})

            def burst() -> None:
                for _ in range(100_000):
                    channel.basic_publish("", "burst", b"x" * 50)

            process = psutil.Process(playground.script.pid)
            before = process.memory_info().rss
            thread = threading.Thread(target=burst)
            thread.start()
            page.until(lambda message: message["type"] == "flow")
            # It goes on reading, as a page does: otherwise the server would drop it.
            page.until(lambda _message: not thread.is_alive())
            thread.join()
        page.send(do="ping", n=1)
        page.until(lambda message: message["type"] == "pong")
        page.until(lambda message: message["type"] == "state" and not message["flow"])
        assert process.memory_info().rss - before < 150_000_000


def test_there_are_limits_and_they_are_told(configured: Settings, reachable: object) -> None:
    assert not isinstance(reachable, str), reachable
    with serving(configured, "--sessions", "2", "--linger", "60") as playground:
        # Workers, which stay; a sender would be gone before the others have come.
        first, second = playground.open("work_queue"), playground.open("send_and_receive")
        with playground.look(first) as page, playground.look(second) as other:
            ready(page)
            ready(other)
            answer = httpx.post(
                f"{playground.url}/api/sessions",
                json={"example": "send_and_receive"},
                headers={"Origin": playground.url},
                timeout=LIMIT,
            )
            assert answer.status_code == 503
            assert "2 sessions are open" in answer.json()["error"]
            # Processes, too.
            until_played(page, 1)
            for _ in range(14):
                page.send(do="another", terminal="1")
            assert "12 processes run already" in page.notice()
            wait_until(lambda: len(playground.children()) == 12, LIMIT)
            for _ in range(30):
                page.send(do="ping", n=2)
            page.until(lambda message: "too many requests" in message.get("text", ""))
        # Nobody looks at the first one any more: it makes room.
        with playground.look(playground.open("send_and_receive")) as page:
            ready(page)
            wait_until(lambda: len(playground.vhosts()) == 2, LIMIT)
        big = httpx.post(f"{playground.url}/api/sessions", content=b"x" * 1_000_000, headers={"Origin": playground.url})
        assert big.status_code == 413
    with pytest.raises((ConnectionClosed, OSError)), playground.look(first):
        pass


def test_terminal_output_is_bounded(playground: Playground) -> None:
    session = playground.open("work_queue")
    with playground.look(session) as page:
        ready(page)
        until_played(page, 1)
        with Publisher("tests", own_vhost(playground)) as publisher:
            for number in range(1500):
                publisher.publish("", "work_queue.tasks", b"%d" % number + b"x" * 3000)
        page.until(
            lambda message: message["type"] == "terminal" and any("Done with '1499" in line for line in message["more"])
        )
    with playground.look(session) as late:
        (terminal,) = ready(late)["terminals"]
        assert len(terminal["lines"]) <= 400
        assert max(map(len, terminal["lines"])) <= 1001
