"""A broker of the tests' own, for what would disturb others: it is restarted, stopped and killed."""

from __future__ import annotations

import random
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
from filelock import FileLock

from broker.ports import Ports, is_taken
from broker.server import find_server
from common.config import Address, Settings
from tests.support.process import ROOT, Finished, run_script
from tour.vhost import environment

BROKER_LIMIT = 240.0


@dataclass(frozen=True)
class OwnBroker:
    """A broker that `python -m broker` has started for these tests alone, and may restart."""

    settings: Settings
    environ: dict[str, str]

    def run(self, *arguments: str) -> Finished:
        """Run ``python -m broker`` for it."""
        return run_script("-m", "broker", *arguments, environ=self.environ, limit=BROKER_LIMIT)


def elsewhere() -> Settings:
    """Settings whose ports, and those that `python -m broker` takes beside them, are free."""
    while True:
        # Up to here RabbitMQ's highest port still is a port.
        shift = random.randrange(200, 3900)
        if not any(is_taken("127.0.0.1", port + shift) for port in asdict(Ports()).values()):
            management_url = f"http://127.0.0.1:{Ports().management + shift}"
            address = Address("127.0.0.1", Ports().amqp + shift)
            # Their other ports follow from it, as those of `python -m broker` do.
            moved = Settings.load({"AMQP_URL": f"amqp://{address}"}, env_file=None)
            return replace(moved, management_url=management_url)


@pytest.fixture(scope="session")
def own_broker(tmp_path_factory: pytest.TempPathFactory, reachable: tuple[int, int, int] | str) -> Iterator[OwnBroker]:
    """One of the version under test, if that can be had; else the one that this machine has."""
    with started(tmp_path_factory.mktemp("broker"), reachable) as own:
        yield own


@contextmanager
def started(folder: Path, reachable: tuple[int, int, int] | str) -> Iterator[OwnBroker]:
    """A broker with its data in ``folder``, of the version that is ``reachable``, if that can be had."""
    # One at a time: the ports that it finds free are then free until it listens at them.
    with FileLock(folder.parents[1] / "own-broker.lock"):
        own, way = _start(folder, reachable)
    try:
        yield own
    finally:
        down = own.run("down")
        if way == "compose":
            # Its volume is of no use to anybody.
            down_with = ["docker", "compose", "down", "--volumes"]
            subprocess.run(down_with, cwd=ROOT, env=own.environ, check=False, capture_output=True, timeout=120)
        assert down.code == 0, down.err


def _start(folder: Path, reachable: tuple[int, int, int] | str) -> tuple[OwnBroker, str]:
    """The broker, and which way it was started."""
    settings = elsewhere()
    # What is started by other means has another project's name: the reader's container is not touched.
    project = f"rabbitmq-by-example-test-{uuid.uuid4().hex[:8]}"
    environ = {**environment(settings), "BROKER_DIRECTORY": str(folder), "COMPOSE_PROJECT_NAME": project}
    server = find_server()
    version = reachable if isinstance(reachable, tuple) else ()
    as_installed = server is not None and server.version == ".".join(map(str, version))
    ways = ["node"] if as_installed else ["compose", "node"]
    own = OwnBroker(settings, environ)
    told = []
    for way in ways:
        up = own.run("up", "--no-install", "--way", way)
        if up.code == 0:
            return own, way
        told.append(f"{way}: {up.err.strip()}")
    if server is not None and server.usable():
        pytest.fail("\n".join(told))
    pytest.skip(f"no broker that may be restarted ({'; '.join(told)})")
