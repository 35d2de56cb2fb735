"""The profiles of ``docker-compose.yml``, as projects of the tests' own on ports of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import httpx
import pytest

from broker.compose import Compose, ComposeFailure
from broker.ports import Ports, is_taken
from common.config import Address, Settings
from common.connection import connect
from extras.management import Management
from tests.broker.conftest import ROOT
from tests.drills.tally import SECTION
from tests.drills.traffic import QUEUE, Traffic, declare
from tests.support.report import Report

pytestmark = [pytest.mark.xdist_group("broker.compose"), pytest.mark.timeout(600)]

PYTHON_IMAGE = "python:3.14-slim"


@dataclass(frozen=True)
class Project:
    """A Compose project; ``environ`` has its name and its ports."""

    environ: dict[str, str]

    def run(self, *arguments: str, limit: float = 300) -> str:
        """Run ``docker compose`` with all profiles' services in view; its output."""
        result = subprocess.run(
            ["docker", "compose", *arguments],
            cwd=ROOT,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
        assert result.returncode == 0, f"docker compose {' '.join(arguments)}\n{result.stdout}{result.stderr}"
        return result.stdout

    def port(self, name: str) -> int:
        return int(self.environ[name])

    def left(self) -> list[str]:
        """The containers, networks and volumes that have the project's name."""
        label = f"label=com.docker.compose.project={self.environ['COMPOSE_PROJECT_NAME']}"
        commands = (["ps", "-aq"], ["network", "ls", "-q"], ["volume", "ls", "-q"])
        return [
            line
            for command in commands
            for line in subprocess.run(
                ["docker", *command, "--filter", label], capture_output=True, text=True, check=True, timeout=60
            ).stdout.split()
        ]


class Pause:
    """The longest time for which a number did not change, as far as it was looked at."""

    def __init__(self, number: Callable[[], int]) -> None:
        self.longest = 0.0
        self._number = number
        self._last, self._since = number(), time.monotonic()

    def look(self) -> bool:
        """Look at the number. Always true."""
        now, number = time.monotonic(), self._number()
        self.longest = max(self.longest, now - self._since)
        if number != self._last:
            self._last, self._since = number, now
        return True


@pytest.fixture
def project() -> Iterator[Project]:
    """A project that is removed with its volumes; skipped where Docker or RabbitMQ's image is missing."""
    compose = Compose(Settings(), Ports())
    try:
        compose.check()
    except ComposeFailure as failure:
        pytest.skip(str(failure))
    if not compose.has_image():
        pytest.skip("the image of docker-compose.yml is not on this machine")
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    names = sorted(set(re.findall(r"\$\{(\w+PORT)", text)))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "AMQP_"))}
    made = Project(
        kept
        | {"COMPOSE_PROJECT_NAME": f"rabbitmq-by-example-test-{uuid.uuid4().hex[:8]}"}
        | {name: str(port) for name, port in zip(names, free_ports(len(names)), strict=True)}
    )
    yield made
    made.run("--profile", "*", "down", "-v")
    assert made.left() == []


def free_ports(count: int) -> Iterator[int]:
    """Ports of this machine that nobody has now."""
    start = 20_000 + uuid.uuid4().int % 8_000
    while count:
        if not is_taken("127.0.0.1", start):
            yield start
            count -= 1
        start += 1


def until(condition: Callable[[], bool], limit: float, what: str) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"waited {limit:.0f} s for {what}"
        time.sleep(0.2)


def test_every_port_is_on_loopback_and_every_service_has_a_health_check() -> None:
    compose = Compose(Settings(), Ports())
    try:
        compose.check()
    except ComposeFailure as failure:
        pytest.skip(str(failure))
    config = subprocess.run(
        ["docker", "compose", "--profile", "*", "config", "--format", "json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    services = json.loads(config.stdout)["services"]
    known = {"rabbitmq", "rabbitmq-1", "rabbitmq-2", "rabbitmq-3", "worker", "new-task", "playground"}
    assert known <= set(services)
    for name, service in services.items():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
        assert service["healthcheck"]["test"], name
    published = [port["published"] for service in services.values() for port in service.get("ports", [])]
    assert len(published) == len(set(published))
    assert [name for name, service in services.items() if "profiles" not in service] == ["rabbitmq"]


@pytest.mark.long
def test_a_cluster_that_loses_its_leader(project: Project, report: Report) -> None:
    project.run("--profile", "cluster", "up", "-d", "--wait")
    nodes = {
        f"rabbit@rabbitmq-{number}": replace(
            Settings(),
            addresses=(Address("127.0.0.1", project.port(f"RABBITMQ_{number}_PORT")),),
            management_url=f"http://127.0.0.1:{project.port(f'RABBITMQ_{number}_MANAGEMENT_PORT')}",
        )
        for number in (1, 2, 3)
    }
    # A container that is killed does not always close its connections: who only listens learns it by the heartbeat.
    anywhere = replace(Settings(), addresses=tuple(node.addresses[0] for node in nodes.values()), heartbeat=5)
    with connect("test", anywhere) as connection:
        declare(connection.channel())

    def details(of: Settings) -> dict[str, object]:
        with Management(of) as management:
            return management.queue(QUEUE).details

    first = next(iter(nodes.values()))
    until(lambda: bool(details(first).get("leader")), 30, "the queue to have a leader")
    found = details(first)
    assert sorted(found["members"]) == sorted(nodes)  # type: ignore[arg-type,type-var]
    leader = str(found["leader"])
    service = leader.removeprefix("rabbit@")
    # Publishing ends when 3,000 messages were confirmed by the two nodes that are left.
    target = [10**9]
    traffic = Traffic(anywhere, anywhere, enough=lambda _sent: traffic.tally.confirmed >= target[0])
    tally = traffic.tally
    pause = Pause(lambda: tally.confirmed)
    killing = threading.Thread(target=project.run, args=("kill", service))
    try:
        with traffic:
            traffic.wait(lambda: tally.confirmed >= 2_000 and tally.seen > 0, 60, "2,000 messages")
            pause = Pause(lambda: tally.confirmed)
            killing.start()
            traffic.wait(lambda: pause.look() and not killing.is_alive(), 60, "the leader to be killed")
            tally.kills += 1
            target[0] = tally.confirmed + 3_000
            traffic.wait(lambda: pause.look() and tally.confirmed >= target[0], 120, "3,000 messages on two nodes")
    finally:
        killing.join()
        report.add(SECTION, f"Compose's cluster, the leader killed: {tally}, longest pause {pause.longest:.1f} s")
    assert tally.missing == []
    assert tally.confirmed == tally.sent
    assert traffic.left(anywhere) == 0
    assert pause.longest < 30

    # The lost node comes back, and is part of the cluster and of the queue again.
    project.run("--profile", "cluster", "up", "-d", "--wait")
    until(lambda: sorted(details(nodes[leader])["online"]) == sorted(nodes), 60, "it to be back")  # type: ignore[call-overload]


@pytest.fixture
def python_image() -> None:
    """Skip where the image of which ours is made is missing."""
    known = subprocess.run(["docker", "image", "inspect", PYTHON_IMAGE], capture_output=True, check=False, timeout=60)
    if known.returncode:
        pytest.skip(f"the image {PYTHON_IMAGE}, of which ours is made, is not on this machine")


@pytest.mark.long
def test_the_playground_in_a_container(project: Project, python_image: None) -> None:  # noqa: ARG001
    project.run("--profile", "playground", "up", "-d", "--wait", "--build", limit=500)
    port = project.port("PLAYGROUND_PORT")
    with httpx.Client(base_url=f"http://localhost:{port}", trust_env=False) as client:
        assert client.get("/").status_code == 200
        # Anybody else's name for this machine is none of ours.
        assert client.get("/", headers={"Host": f"rebound.example.com:{port}"}).status_code in (400, 403, 421)


def restarts(project: Project, service: str) -> list[int]:
    """How often Docker has started each of a service's containers again."""
    containers = project.run("ps", "-q", service).split()
    command = ["docker", "inspect", "--format", "{{.RestartCount}}", *containers]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [int(count) for count in told.stdout.split()]


@pytest.mark.long
def test_workers_and_producers_in_containers(project: Project, python_image: None) -> None:  # noqa: ARG001
    project.run("--profile", "examples", "up", "-d", "--wait", "--build", "--scale", "worker=2", limit=500)

    def said(service: str) -> str:
        return project.run("logs", "--no-log-prefix", service)

    for consumer, line in (
        ("receive", " [x] Received 'Hello World!'"),
        ("receive-logs", " [x] info: Hello World!"),
        ("worker", " [x] Done with '3: Letter.'"),
    ):
        until(lambda: line in said(consumer), 60, f"{consumer} to say {line!r}")  # noqa: B023  called here only
    assert project.run("exec", "-T", "worker", "id", "-u").strip() == "10001"

    # RabbitMQ restarts: the plain consumers end with one line, and Docker starts them again; the workers go on.
    project.run("restart", "rabbitmq")
    for consumer in ("receive", "receive-logs"):
        until(lambda: said(consumer).count("Waiting for") == 2, 90, f"{consumer} to be started again")  # noqa: B023
        assert said(consumer).count("error: ") == 1, said(consumer)
        assert "Traceback" not in said(consumer)
        assert restarts(project, consumer) == [1]
    until(lambda: said("worker").count("waits for tasks") == 4, 90, "both workers to be connected again")
    assert said("worker").count("connecting again") == 2
    assert restarts(project, "worker") == [0, 0]

    # A worker that is stopped finishes its task: it leaves with 0, and what it has begun is done.
    project.run("stop", "worker")
    stopped = json.loads(f"[{','.join(project.run('ps', '-a', '--format', 'json', 'worker').split(chr(10))[:-1])}]")
    assert [container["ExitCode"] for container in stopped] == [0, 0]
    words = said("worker")
    assert words.count(" [x] Received ") == words.count(" [x] Done with ") > 0
