"""``docker-compose.yml`` and ``python -m broker`` on it, as a project of the test's own on ports of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
from dotenv import dotenv_values

from broker.compose import Compose, ComposeFailure
from broker.ports import Ports, is_listening
from common.config import Settings
from common.connection import connect
from common.errors import ExitCode
from tests.broker.conftest import ODD_FOLDER, ROOT, Place
from tests.support.process import run_script

pytestmark = pytest.mark.xdist_group("broker.compose")


def test_its_defaults_are_those_of_the_example_file() -> None:
    example = dotenv_values(ROOT / ".env.example")
    told = re.findall(r"\$\{(\w+):-([^}]*)\}", (ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert len(told) >= 11
    assert dict(told) == {name: example[name] for name, _ in told}
    assert Ports.load(5672, 15672, example) == Ports()


# An engine whose project has the container of a file, if there is one, and which notes what it is asked to do.
DOCKER = """#!/bin/sh
cd "$(dirname "$0")"
case "$*" in
  info|"compose version"|"image inspect"*) ;;
  "compose config --images") echo rabbitmq:4.3-management ;;
  "compose config --format json") echo "{\\"name\\": \\"${COMPOSE_PROJECT_NAME:-rabbitmq-by-example}\\"}" ;;
  "compose ps"*) test ! -e container.json || echo 4711 ;;
  "inspect 4711") cat container.json ;;
  *) echo "${COMPOSE_PROJECT_NAME:-rabbitmq-by-example}: $*" >> done ;;
esac
"""


@dataclass
class Engine:
    """Such an engine, and a place that uses it."""

    place: Place
    folder: Path

    def has_container(self, folder: Path, port: int, host: str = "127.0.0.1", running: bool = True) -> None:
        details = {
            "Config": {"Labels": {"com.docker.compose.project.working_dir": str(folder)}},
            "State": {"Running": running},
            "HostConfig": {"PortBindings": {"5672/tcp": [{"HostIp": host, "HostPort": str(port)}]}},
        }
        (self.folder / "container.json").write_text(json.dumps([details]), encoding="utf-8")

    def note(self, project: str) -> None:
        """As if the place's broker had been started here."""
        note = {"way": "compose", "address": "127.0.0.1", "ports": asdict(self.place.ports), "project": project}
        (self.place.directory / "started.json").write_text(json.dumps(note), encoding="utf-8")

    def done(self) -> list[str]:
        file = self.folder / "done"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


@pytest.fixture
def engine(make_place: Callable[[], Place]) -> Engine:
    place = make_place()
    folder = place.directory / "bin"
    folder.mkdir()
    (folder / "docker").write_text(DOCKER, encoding="utf-8")
    (folder / "docker").chmod(0o755)
    place.path.append(folder)
    return Engine(place, folder)


def test_the_container_of_another_copy_of_the_repository_is_left_alone(engine: Engine, tmp_path: Path) -> None:
    engine.has_container(tmp_path, 5672)
    code, output, errors = engine.place.run("up")
    assert (code, output) == (ExitCode.UNAVAILABLE, "")
    assert errors == (
        f"error: the container of docker-compose.yml runs on port 5672 for {tmp_path}; use it, stop it there "
        "(python -m broker down), or give yours a name of its own: COMPOSE_PROJECT_NAME=another\n"
    )
    assert engine.done() == []


@pytest.mark.parametrize("command", ["down", "kill", "restart", "ctl list_users", "logs"])
def test_a_container_that_others_have_made_anew_is_not_ours_any_more(
    engine: Engine, tmp_path: Path, command: str
) -> None:
    engine.note("rabbitmq-by-example")
    engine.has_container(tmp_path, engine.place.ports.amqp)
    code, output, errors = engine.place.run(*command.split())
    assert "no broker was started from here" in output + errors
    assert code == (0 if command == "down" else ExitCode.UNAVAILABLE)
    assert engine.done() == []


def test_our_own_container_on_another_port_is_not_moved(engine: Engine) -> None:
    engine.note("rabbitmq-by-example")
    engine.has_container(ROOT, engine.place.ports.amqp)
    code, _, errors = replace(engine.place, ports=Ports.free()).run("up")
    assert (code, errors) == (
        ExitCode.UNAVAILABLE,
        f"error: the broker of this folder runs on port {engine.place.ports.amqp}; stop it first: "
        "python -m broker down\n",
    )
    assert engine.done() == []


def test_the_project_is_the_one_that_was_started(engine: Engine) -> None:
    """Whatever COMPOSE_PROJECT_NAME is by now."""
    engine.note("second")
    engine.has_container(ROOT, engine.place.ports.amqp)
    assert engine.place.run("down")[0] == 0
    assert engine.done() == ["second: compose down"]


def test_a_container_that_is_published_to_the_network_is_stopped(engine: Engine) -> None:
    engine.has_container(ROOT, engine.place.ports.amqp, "0.0.0.0", running=False)
    code, _, errors = engine.place.run("up", "--way", "compose")
    assert code == ExitCode.UNAVAILABLE
    assert errors == "error: the container was published at 0.0.0.0, where others may reach it, and is stopped\n"
    assert engine.done()[-1] == "rabbitmq-by-example: compose down"


def test_every_port_is_published_on_loopback() -> None:
    told = re.findall(r'^ *- "([^"]*:\d+)"$', (ROOT / "docker-compose.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(told) >= 17
    assert [port for port in told if not port.startswith("127.0.0.1:")] == []


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Compose project that is removed with its volume; skipped where Docker or the image is missing."""
    compose = Compose(Settings(), Ports())
    try:
        compose.check()
    except ComposeFailure as failure:
        pytest.skip(str(failure))
    if not compose.has_image():
        pytest.skip("the image of docker-compose.yml is not on this machine")
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", f"rabbitmq-by-example-test-{uuid.uuid4().hex[:8]}")
    yield
    subprocess.run(["docker", "compose", "down", "-v"], cwd=ROOT, env=os.environ, capture_output=True, check=True)


@pytest.fixture
def place(project: None, make_place: Callable[[], Place]) -> Iterator[Place]:  # noqa: ARG001  comes first, goes last
    """A place for the project, left while the project still has its name: later, `down` would mean the reader's."""
    made = make_place()
    yield made
    made.run("down")


@pytest.mark.long
def test_the_life_of_the_container(place: Place, tmp_path: Path) -> None:
    code, output, errors = place.run("up", "--way", "compose")
    assert (code, errors) == (0, "")
    assert output.startswith("starting RabbitMQ with Docker Compose\nRabbitMQ ")

    connection = connect("test", place.settings)
    connection.channel().queue_declare("kept", durable=True)
    connection.close()
    code, output, _ = place.run("status")
    assert code == 0
    assert "the container of docker-compose.yml" in output
    shown = [line.rpartition(":")[2].split("/")[0] for line in output.splitlines() if "localhost:" in line]
    # The headline, AMQP, management, and the others' ports as they are on this machine.
    assert len(shown) == 9
    assert all(is_listening("127.0.0.1", int(port)) for port in shown)
    assert "rabbitmq_stream" in output

    # Another copy of the repository neither takes it away nor stops it.
    copy = tmp_path / ODD_FOLDER
    for part in ("broker", "common", "extras", "robust_pika"):
        shutil.copytree(ROOT / part, copy / part)
    shutil.copy(ROOT / "docker-compose.yml", copy)
    environ = replace(place, ports=Ports.free()).environ() | {"BROKER_DIRECTORY": str(copy / ".broker")}
    refused = run_script("-m", "broker", "up", environ=environ, folder=copy)
    assert (refused.code, refused.out) == (ExitCode.UNAVAILABLE, "")
    assert f" runs on port {place.ports.amqp} for {ROOT}; use it, " in refused.err
    assert run_script("-m", "broker", "down", environ=environ, folder=copy).out.startswith("nothing to stop")
    assert is_listening("127.0.0.1", place.ports.amqp)

    # The volume was made with the old settings.
    changed = replace(place, user="other", password="n3w", vhost="course two")
    assert changed.run("up")[0] == 0
    connect("test", changed.settings).close()

    code, output, _ = place.run("down")
    assert (code, output) == (0, "stopped the container; its data stays in the volume\n")
    assert not is_listening("127.0.0.1", place.ports.amqp)

    assert place.run("up", "--way", "compose")[0] == 0
    connection = connect("test", place.settings)
    connection.channel().queue_declare("kept", passive=True)
    connection.close()
    assert place.run("logs")[0] == 0
