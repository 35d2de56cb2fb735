"""RabbitMQ in a container, by the repository's ``docker-compose.yml``."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from broker.access import definitions
from broker.daemon import encoded
from broker.ports import Ports
from common.config import Settings
from common.console import say
from common.errors import ExitCode, Failure

ROOT = Path(__file__).resolve().parent.parent
SERVICE = "rabbitmq"
START_TIMEOUT = 180
PULL_TIMEOUT = 300


class ComposeFailure(Failure):
    """Docker Compose is not there, or it did not do what it was asked for."""

    exit_code = ExitCode.UNAVAILABLE


class NoDocker(ComposeFailure):
    """Docker is not installed."""


@dataclass(frozen=True)
class Container:
    """The project's container: where the docker-compose.yml is that it was made by, and its published ports."""

    folder: Path
    running: bool
    published: dict[int, int]
    """The port on this machine by the port in the container."""
    addresses: frozenset[str]
    """Of this machine, at which they are published."""


class Compose:
    """The Compose project, with the ports, user, password and virtual host that it is given.

    ``project``: its name, unless it is the one that the file or COMPOSE_PROJECT_NAME gives it now.
    """

    def __init__(self, settings: Settings, ports: Ports, project: str = "") -> None:
        self.settings = settings
        self.ports = ports
        self._project = project

    def check(self) -> None:
        """Raise ComposeFailure, with the reason, unless an engine answers and Compose is installed."""
        if shutil.which("docker") is None:
            raise NoDocker("Docker is not installed")
        if self._run(["docker", "info"], 15) is None:
            raise ComposeFailure("Docker is installed, but its engine does not answer")
        if self._run(["docker", "compose", "version"], 15) is None:
            raise ComposeFailure("Docker has no Compose (the package docker-compose-plugin)")

    def has_image(self) -> bool:
        """Whether the image is on this machine, so that nothing has to be pulled."""
        return self._run(["docker", "image", "inspect", self._image()], 15) is not None

    def up(self) -> None:
        """Start the container and wait until it is healthy. Raises ComposeFailure; nothing runs then."""
        if not self.has_image():
            say(f"pulling the image {self._image()} (once)")
            self._compose("pull", "-q", SERVICE, timeout=PULL_TIMEOUT)
        try:
            self._compose("up", "-d", "--wait", "--wait-timeout", str(START_TIMEOUT), timeout=START_TIMEOUT + 30)
            container = self.container()
            if container and not all(ipaddress.ip_address(each).is_loopback for each in container.addresses):
                at = ", ".join(sorted(container.addresses))
                raise ComposeFailure(f"the container was published at {at}, where others may reach it, and is stopped")
        except BaseException:
            # Ctrl-C included: a container that nobody knows of would hold the ports.
            self.down()
            raise

    def down(self) -> None:
        """Stop and remove the container; the volume with its data stays."""
        self._compose("down", timeout=120)

    def restart(self) -> None:
        """Stop the container in good order, start it, and wait until it is healthy."""
        self._compose("stop", timeout=120)
        self.up()

    def kill(self) -> None:
        """End the container with SIGKILL; it and its volume stay."""
        self._compose("kill", SERVICE, timeout=60)

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` in the container; its output. Raises ComposeFailure."""
        return self._compose("exec", "-T", SERVICE, "rabbitmqctl", "-q", *arguments, timeout=60)

    @cached_property
    def project(self) -> str:
        """The name of the Compose project, by which its containers and its volume are found again."""
        return self._project or str(json.loads(self._compose("config", "--format", "json", timeout=15))["name"])

    def container(self) -> Container | None:
        """The project's container, if there is one, whoever made it. Raises ComposeFailure."""
        found = self._compose("ps", "-a", "-q", SERVICE, timeout=15).split()
        told = self._run(["docker", "inspect", found[0]], 15) if found else None
        if told is None:
            return None
        details = json.loads(told)[0]
        bindings = details["HostConfig"]["PortBindings"]
        first = {int(port.partition("/")[0]): each[0] for port, each in bindings.items() if each}
        return Container(
            Path(os.path.realpath(details["Config"]["Labels"]["com.docker.compose.project.working_dir"])),
            details["State"]["Running"],
            {port: int(binding["HostPort"]) for port, binding in first.items()},
            frozenset(binding["HostIp"] or "0.0.0.0" for binding in first.values()),
        )

    @property
    def running(self) -> bool:
        """Whether the project's container is there and runs."""
        try:
            container = self.container()
        except ComposeFailure:
            return False
        return container is not None and container.running

    def is_ours(self) -> bool:
        """Whether the project's container, if it has one, is this folder's and has these ports. Raises ComposeFailure.

        Another copy of this repository has the same project: Compose would make its container anew for us.
        """
        container = self.container()
        return container is None or (
            container.folder == ROOT and container.published.get(Ports().amqp) == self.ports.amqp
        )

    def mend_access(self) -> None:
        """Make the running broker accept the settings' user, password and virtual host. Raises ComposeFailure."""
        # As the server's user, because it is the server that reads the file.
        script = "trap 'rm -f /tmp/access.json' EXIT; umask 077; cat > /tmp/access.json; "
        script += "rabbitmqctl -q import_definitions /tmp/access.json"
        exec_as_server = ("exec", "-T", "-u", "rabbitmq", SERVICE, "sh", "-ec")
        self._compose(*exec_as_server, script, stdin=definitions(self.settings), timeout=60)

    def logs_command(self, follow: bool) -> tuple[list[str], dict[str, str]]:
        """The command that prints the container's log, and the environment it needs."""
        return [
            "docker",
            "compose",
            "logs",
            "--no-log-prefix",
            *(["-f"] if follow else []),
            SERVICE,
        ], self._environment()

    def _image(self) -> str:
        return self._compose("config", "--images", timeout=15).strip()

    def _environment(self) -> dict[str, str]:
        """The environment that the file's variables are taken from."""
        settings, ports = self.settings, self.ports
        return {
            **os.environ,
            **({"COMPOSE_PROJECT_NAME": self._project} if self._project else {}),
            "RABBITMQ_USER": settings.user,
            "RABBITMQ_PASSWORD": settings.password,
            "RABBITMQ_VHOST": settings.vhost,
            "RABBITMQ_PORT": str(ports.amqp),
            "RABBITMQ_MANAGEMENT_PORT": str(ports.management),
            "RABBITMQ_PROMETHEUS_PORT": str(ports.prometheus),
            "RABBITMQ_STREAM_PORT": str(ports.stream),
            "RABBITMQ_MQTT_PORT": str(ports.mqtt),
            "RABBITMQ_STOMP_PORT": str(ports.stomp),
            "RABBITMQ_WEB_STOMP_PORT": str(ports.web_stomp),
            "RABBITMQ_WEB_MQTT_PORT": str(ports.web_mqtt),
        }

    def _compose(self, *arguments: str, timeout: float, stdin: str = "") -> str:
        try:
            result = subprocess.run(
                ["docker", "compose", *(word.encode(errors="surrogateescape") for word in arguments)],
                input=stdin,
                env=encoded(self._environment()),
                cwd=ROOT,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ComposeFailure(f"docker compose {arguments[0]} took more than {timeout:g} s") from None
        except OSError as error:
            raise ComposeFailure(f"docker compose cannot be run: {error.strerror}") from None
        if result.returncode:
            lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
            raise ComposeFailure(
                f"docker compose {arguments[0]} failed: {lines[-1][:300] if lines else 'no reason given'}"
            )
        return result.stdout

    def _run(self, command: list[str], timeout: float) -> str | None:
        """The output of a command that only asks; None if it failed or took too long."""
        try:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except (subprocess.TimeoutExpired, OSError):
            return None
        return None if result.returncode else result.stdout
