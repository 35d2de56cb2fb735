"""``docker-compose.yml`` and ``python -m broker`` on it, as a project of the test's own on ports of its own."""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from dotenv import dotenv_values

from broker.compose import Compose, ComposeFailure
from broker.ports import Ports, is_listening
from common.config import Settings
from common.connection import connect
from tests.broker.conftest import ROOT, Place

pytestmark = pytest.mark.xdist_group("broker.compose")


def test_its_defaults_are_those_of_the_example_file() -> None:
    example = dotenv_values(ROOT / ".env.example")
    told = re.findall(r"\$\{(\w+):-([^}]*)\}", (ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert len(told) >= 11
    assert dict(told) == {name: example[name] for name, _ in told}
    assert Ports.load(5672, 15672, example) == Ports()


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
def test_the_life_of_the_container(place: Place) -> None:
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
