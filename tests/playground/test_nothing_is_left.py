"""However a session or the server ends, no process, no virtual host and no user of it is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from common.config import Address, Settings
from extras.management import Management
from playground.identity import Identity
from tests.playground.conftest import LIMIT, Page, Playground, serving
from tests.support.process import Script, run_script, wait_until
from tests.support.proxy import Proxy


@pytest.fixture(autouse=True)
def broker(reachable: object) -> None:
    if isinstance(reachable, str):
        pytest.fail(reachable, pytrace=False)


def begin(page: Page, step: int) -> None:
    """Play some steps."""
    page.until(lambda message: message["type"] == "snapshot")
    page.send(do="play", until=step)
    page.until(lambda message: message["type"] == "state" and message["next"] == step and not message["playing"])


def test_a_session_ends_when_nobody_looks(configured: Settings) -> None:
    with serving(configured, "--linger", "1.5") as playground:
        session = playground.open("work_queue")
        with playground.look(session) as page:
            begin(page, 2)
            assert len(playground.children()) == 2
            assert len(playground.vhosts()) == 1
            assert len(playground.users()) == 2
            assert playground.tracing()
        # A reload is soon enough; what is not, ends it. The firehose is off at once.
        wait_until(lambda: not playground.tracing(), LIMIT)
        with playground.look(session) as page:
            snapshot = page.until(lambda message: message["type"] == "snapshot")
            assert snapshot["next"] == 2
            wait_until(playground.tracing, LIMIT)
        wait_until(lambda: playground.left() == ([], [], []), LIMIT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_the_server_ends(configured: Settings, number: signal.Signals) -> None:
    """In the middle of a task, with a browser that looks. SIGKILL leaves it to the watcher."""
    with serving(configured) as playground:
        with playground.look(playground.open("work_queue")) as page:
            begin(page, 3)
            # A paused one, too: it does not react to anything but SIGKILL.
            page.send(do="pause", terminal="2")
            page.until(lambda message: message["type"] == "done")
            assert len(playground.children()) == 2
            os.kill(playground.script.pid, number)
            code = playground.script.wait(LIMIT)
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0), playground.script.lines
        assert not any("Traceback" in line for line in playground.script.lines)
        wait_until(lambda: playground.left() == ([], [], []), LIMIT)
        wait_until(lambda: watchers(playground) == [], LIMIT)


def watchers(playground: Playground) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if playground.name in (process.info["cmdline"] or []) and process.status() != psutil.STATUS_ZOMBIE
    ]


def test_the_next_start_removes_what_a_dead_server_has_left(configured: Settings) -> None:
    """As when server and watcher are killed together; what is of living servers or other machines stays."""
    own = Identity.own()
    dead = str(Identity(own.host, own.pid, own.started - 1))
    elsewhere = str(Identity("0" * 8, own.pid, own.started - 1))
    ours = [f"{name}.test" for name in (dead, str(own), elsewhere)]
    with Management(configured) as api:
        try:
            for name in ours:
                api.create_vhost(name)
                api.create_user(f"{name}.1", "secret-of-the-tests")
            with serving(configured):
                # By this server, or by that of another test, if it was quicker.
                wait_until(lambda: f"{dead}.test" not in {item.name for item in api.vhosts()}, 30)
                vhosts = {item.name for item in api.vhosts()}
                users = {item["name"] for item in api.request("GET", "users")}
            assert set(ours) & vhosts == set(ours[1:])
            assert {f"{name}.1" for name in ours} & users == {f"{name}.1" for name in ours[1:]}
        finally:
            for name in ours:
                if name in {item.name for item in api.vhosts()}:
                    remove(api, "vhosts", name)
                remove(api, "users", f"{name}.1")


def test_it_waits_for_a_broker_that_is_just_starting(configured: Settings) -> None:
    target = urlsplit(configured.management_url)
    with Proxy(Address(str(target.hostname), target.port or 80)) as proxy:
        proxy.refuse()
        environ = {**os.environ, "RABBITMQ_MANAGEMENT_URL": f"http://{proxy.address}"}
        arguments = ("-m", "playground", "--port", "0", "--no-browser", "--no-own-broker")
        impatient = run_script(*arguments, environ={**environ, "RABBITMQ_CONNECT_TIMEOUT": "0.5"}, limit=LIMIT)
        assert impatient.code == 69
        assert "cannot be reached" in impatient.err
        with Script(*arguments, environ={**environ, "RABBITMQ_CONNECT_TIMEOUT": "60"}) as script:
            with pytest.raises(AssertionError):
                script.wait(3)
            proxy.accept()
            script.expect(r"The playground is at http://127", LIMIT)
            script.interrupt()
            assert script.wait(LIMIT) == 0, script.lines


def remove(api: Management, *path: str) -> None:
    names = {item["name"] for item in api.request("GET", path[0])}
    if path[1] in names:
        api.request("DELETE", *path)


def test_a_new_example_appears_by_itself(configured: Settings, tmp_path: Path) -> None:
    """A folder with a README is all it takes; while the server runs, too."""
    (tmp_path / "README.md").write_text("# Course\n\n## The examples\n", encoding="utf-8")
    with serving(configured, "--root", str(tmp_path)) as playground:
        assert httpx.get(f"{playground.url}/api/examples", timeout=LIMIT).json() == []
        folder = tmp_path / "brand_new"
        folder.mkdir()
        (folder / "hello.py").write_text("print('hello from a new example')\n", encoding="utf-8")
        block = "```console\n# Terminal 1\n$ python brand_new/hello.py\nhello from …\n```\n"
        readme = f"# Brand new\n\nNobody has told the playground.\n\n{block}"
        (folder / "README.md").write_text(readme, encoding="utf-8")
        (found,) = httpx.get(f"{playground.url}/api/examples", timeout=LIMIT).json()
        assert found == {
            "name": "brand_new",
            "title": "Brand new",
            "sentence": "Nobody has told the playground.",
            "steps": 1,
        }
        with playground.look(playground.open("brand_new")) as page:
            page.until(lambda message: message["type"] == "snapshot")
            page.send(do="step")
            page.until(
                lambda message: message["type"] == "terminal" and "hello from a new example" in message.get("more", ())
            )
            state = page.until(lambda message: message["type"] == "state" and message["next"] == 1)
            assert state["remark"] == ""


def test_a_step_that_goes_otherwise_is_told(configured: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "hello.py").write_text("print('goodbye')\nraise SystemExit(3)\n", encoding="utf-8")
    blocks = [f"```console\n# Terminal 1\n$ python odd/hello.py\n{line}\n```\n" for line in ("hello", "…")]
    readme = "\n".join(["# Odd\n\nIt differs.\n", *blocks])
    (folder / "README.md").write_text(readme, encoding="utf-8")
    with serving(configured, "--root", str(tmp_path)) as playground, playground.look(playground.open("odd")) as page:
        begin(page, 1)
        page.send(do="step")
        state = page.until(
            lambda message: message["type"] == "state" and message["next"] == 2 and not message["playing"]
        )
        assert state["remark"] == "terminal 1 (exit code 3), where the README has exit code 0"


def test_a_step_that_kills_what_the_reader_has_killed(configured: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    script = "import os, time\nprint('I am', os.getpid(), flush=True)\ntime.sleep(300)\n"
    (folder / "hello.py").write_text(script, encoding="utf-8")
    blocks = [
        "<!-- varies: 4711 ~ \\d+ -->\n```console\n# Terminal 1: worker\n$ python odd/hello.py\nI am 4711\n```\n",
        "```console\n# Terminal 2\n$ kill -9 4711\n```\n",
    ]
    (folder / "README.md").write_text("\n".join(["# Odd\n\nIt kills.\n", *blocks * 2]), encoding="utf-8")
    with serving(configured, "--root", str(tmp_path)) as playground, playground.look(playground.open("odd")) as page:
        begin(page, 2)
        wait_until(lambda: playground.children() == [], LIMIT)
        page.send(do="step")
        page.until(lambda message: message["type"] == "state" and message["next"] == 3 and not message["playing"])
        page.send(do="kill", terminal="1")
        wait_until(lambda: playground.children() == [], LIMIT)
        page.send(do="step")
        state = page.until(
            lambda message: message["type"] == "state" and message["next"] == 4 and not message["playing"]
        )
        assert state["remark"].endswith(" would kill nothing: the program has ended, or was started again")


def test_a_port_that_is_taken_and_a_broker_that_is_away_are_told(configured: Settings) -> None:
    with serving(configured) as playground:
        port = playground.url.rpartition(":")[2]
        taken = run_script("-m", "playground", "--no-browser", "--port", port, environ=dict(os.environ), limit=LIMIT)
        assert (taken.code, taken.out) == (69, "")
        assert taken.err.startswith(f"error: port {port} cannot be had (Address already in use); ")
    nobody = {**os.environ, "RABBITMQ_MANAGEMENT_URL": "http://127.0.0.1:1", "AMQP_URL": "amqp://127.0.0.1:1"}
    away = run_script("-m", "playground", "--no-browser", "--port", "0", environ=nobody, limit=LIMIT)
    assert away.code == 69
    assert "start RabbitMQ with: make broker" in away.err
    assert "Traceback" not in away.err
    with Script("-m", "playground", "--port", "70000", environ=dict(os.environ)) as wrong:
        assert wrong.wait(LIMIT) == 2
