"""The broker goes away while somebody looks, and comes back: restarted from the page, killed, and stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.drills.brokers import SETTLED
from tests.playground.conftest import LIMIT, Page, Playground, serving
from tests.support.own_broker import OwnBroker, started

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("playground.broker"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory, reachable: tuple[int, int, int] | str) -> Iterator[OwnBroker]:
    """A broker for these tests alone.

    What they leave is deleted as soon as RabbitMQ is there again, and 3.10 is in danger then: the workers for dead
    letters of quorum queues that go in that moment may take their supervisor with them, and no such queue can be
    declared until the next start.
    """
    with started(tmp_path_factory.mktemp("broker"), reachable) as own:
        yield own


def state(page: Page, trouble: bool) -> dict[str, Any]:
    """The next state of the session in which there is trouble with the broker, or none."""
    return page.until(lambda message: message["type"] == "state" and bool(message["trouble"]) == trouble)


def lines(page: Page, wanted: str) -> None:
    """Wait until a terminal prints this."""
    page.until(lambda message: message["type"] == "terminal" and any(wanted in line for line in message["more"]))


def cooked(page: Page, dish: str) -> None:
    """Publish an order by hand, and wait until the cook has cooked it."""
    page.send(do="publish", exchange="", key="dead_letters.plain", headers="", body=dish)
    lines(page, f"Cooked '{dish}'")


def restart(page: Page) -> None:
    """Restart RabbitMQ from the page, and wait until there was trouble, and it is over, and the command has ended."""
    page.send(do="broker")
    seen: list[str] = []

    def is_over(message: dict[str, Any]) -> bool:
        # In whatever order they are told.
        if message["type"] == "state":
            seen.append("trouble" if message["trouble"] else "no trouble")
        seen.extend(line for line in message.get("more", ()) if line == "(exit code 0)")
        told = [item for item in seen if item != "(exit code 0)"]
        return "trouble" in told and told[-1] == "no trouble" and "(exit code 0)" in seen

    page.until(is_over)


def look_on(own_broker: OwnBroker, playground: Playground) -> None:
    # A robust consumer: a plain one would end with its connection.
    with playground.look(playground.open("reliability/dead_letters")) as page:
        snapshot = page.until(lambda message: message["type"] == "snapshot")
        # No option says so: it is known which broker `python -m broker up` has started.
        assert snapshot["ownBroker"]
        page.send(do="play", until=1)
        lines(page, "Waiting for orders")
        state(page, trouble=False)
        cooked(page, "before")
        time.sleep(SETTLED)

        assert own_broker.run("kill").code == 0
        state(page, trouble=True)
        # What the reader asks for meanwhile is refused in a line, and the page lives on.
        page.send(do="publish", exchange="", key="dead_letters.plain", headers="", body="in between")
        assert "RabbitMQ" in page.notice()
        assert own_broker.run("up").code == 0
        state(page, trouble=False)
        cooked(page, "after the kill")

        restart(page)
        cooked(page, "after the restart")


def test_the_broker_is_restarted_and_killed_while_somebody_looks(own_broker: OwnBroker) -> None:
    with serving(own_broker.settings, environ=own_broker.environ, may_restart=True) as playground:
        try:
            look_on(own_broker, playground)
        finally:
            assert own_broker.run("up").code == 0
        assert not any("Traceback" in line for line in playground.script.lines), playground.script.lines
    # What has restarted it was a process of the session, and ended with that; RabbitMQ did not.
    assert own_broker.run("status").code == 0


def test_the_server_ends_without_the_broker(own_broker: OwnBroker) -> None:
    """What it cannot remove then, its watcher removes, or the next one that starts."""
    with serving(own_broker.settings, environ=own_broker.environ) as playground:
        with playground.look(playground.open("work_queue")) as page:
            page.send(do="play", until=1)
            lines(page, "waits for tasks")
            assert own_broker.run("down").code == 0
            state(page, trouble=True)
        playground.script.interrupt()
        try:
            assert playground.script.wait(LIMIT) == 0
        finally:
            assert own_broker.run("up").code == 0
        assert any("not tidied up" in line for line in playground.script.lines)
        assert not any("Traceback" in line for line in playground.script.lines), playground.script.lines
        with serving(own_broker.settings, environ=own_broker.environ):
            pass
