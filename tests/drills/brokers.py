"""A broker of the drill's own, like the one the suite talks to, that can be killed without harm to anybody."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from broker.node import NodeFailure, PrivateNode
from broker.ports import Ports
from broker.server import find_server
from common.config import Address, Settings
from common.connection import connect, server_version

START_TIMEOUT = 120.0
SETTLED = 5.0
"""Seconds after which RabbitMQ has written down all about a new quorum queue. One whose only node is killed sooner can
come back without a leader or empty, whatever it had confirmed."""


class Unavailable(Exception):
    """No broker of our own can be had on this machine; the text says why."""


class Victim(Protocol):
    """What a drill does to a broker."""

    @property
    def settings(self) -> Settings:
        """How to reach it."""

    def kill(self) -> None:
        """End it with SIGKILL; its data stays."""

    def start(self) -> None:
        """Start it again and wait until a client can work with it."""

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` against it; its output."""


@contextmanager
def victim(configured: Settings, folder: Path) -> Iterator[Victim]:
    """A running broker of the same version as the configured one, if that can be had; else what this machine has.

    That is a private node of the installed rabbitmq-server, with its data in ``folder``, or a container of the image
    that the configured broker runs. Both are gone afterwards. Raises Unavailable.
    """
    with connect("drill", configured) as connection:
        version = server_version(connection)
    server = find_server()
    image = _image(configured)
    ports = Ports.free()
    # "/" is the only virtual host that a fresh broker has.
    settings = replace(configured, vhost="/", tls=None)
    if server is not None and (image is None or server.version == ".".join(map(str, version))):
        node = PrivateNode(folder, ports, settings=settings, plugins=())
        try:
            node.start()
            yield node
        finally:
            node.remove()
    elif image is not None:
        container = Container(image, ports.amqp, settings)
        try:
            container.start()
            yield container
        finally:
            container.remove()
    else:
        raise Unavailable("neither an installed rabbitmq-server nor the Docker image of the configured broker")


@pytest.fixture(scope="session")
def _victim(configured: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    try:
        with victim(configured, tmp_path_factory.mktemp("victim")) as running:
            yield running
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def shared_victim(_victim: Victim) -> Victim:
    """A running broker to kill, to stop or to frighten, for one test after the other: a start of one takes seconds.

    What a test declares there stays. Those that use it belong to the xdist_group "victim".
    """
    _victim.start()
    return _victim


class Container:
    """A broker in a Docker container."""

    def __init__(self, image: str, port: int, settings: Settings) -> None:
        self.settings = replace(settings, addresses=(Address("127.0.0.1", port),))
        self._id = _docker(
            "create",
            f"--publish=127.0.0.1:{port}:5672",
            f"--env=RABBITMQ_DEFAULT_USER={settings.user}",
            f"--env=RABBITMQ_DEFAULT_PASS={settings.password}",
            image,
        ).strip()

    def start(self) -> None:
        """Start it, again or for the first time, and wait until a client can work with it."""
        _docker("start", self._id)
        connect("drill", self.settings, deadline=START_TIMEOUT).close()

    def kill(self) -> None:
        """End it with SIGKILL."""
        _docker("kill", "--signal=KILL", self._id)
        _docker("wait", self._id)

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` in it; its output."""
        return _docker("exec", self._id, "rabbitmqctl", "-q", *arguments)

    def remove(self) -> None:
        """End it and delete it with its data."""
        _docker("rm", "--force", "--volumes", self._id)


def _image(settings: Settings) -> str | None:
    """The image of the container that publishes the configured broker's port."""
    if shutil.which("docker") is None:
        return None
    port = settings.addresses[0].port
    try:
        lines = _docker("ps", f"--filter=publish={port}", "--format={{json .}}").splitlines()
    except NodeFailure:
        return None
    return next((str(json.loads(line)["Image"]) for line in lines), None)


def _docker(*arguments: str) -> str:
    result = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=False)
    if result.returncode:
        raise NodeFailure(f"docker {arguments[0]} failed: {result.stderr.strip()}")
    return result.stdout
