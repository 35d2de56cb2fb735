"""What ``python -m broker`` does: a broker at the configured address, whatever machine this is."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from broker.cluster import Cluster
from broker.compose import Compose, ComposeFailure, NoDocker
from broker.daemon import encoded
from broker.node import PortTaken, PrivateNode
from broker.packages import InstallFailure, install
from broker.ports import Ports, free_ports, is_listening
from broker.server import find_server, shared_plugins
from common.config import ENV_FILE, OTHER_PORTS, Settings, SettingsError, port_field
from common.connection import connect, server_version
from common.console import say, warn
from common.environment import variables
from common.errors import ExitCode, Failure
from extras.management import Management, ManagementFailure, ManagementUnavailable, NotManagement
from robust_pika.errors import AccessRefused, VhostNotFound

DIRECTORY = Path(__file__).resolve().parent.parent / ".broker"
BOOT_TIMEOUT = 60.0
LOCK_TIMEOUT = 900.0
PLUGINS_TIMEOUT = 15.0
# The protocols as the management API names them, and as people do.
PROTOCOLS = {
    "http": "management",
    "http/prometheus": "metrics",
    "stream": "streams",
    "mqtt": "MQTT",
    "stomp": "STOMP",
    "http/web-mqtt": "MQTT on WebSocket",
    "http/web-stomp": "STOMP on WebSocket",
}

NAMES = {
    "amqp": "AMQP",
    "management": "management UI",
    "prometheus": "metrics",
    "stream": "streams",
    "mqtt": "MQTT",
    "stomp": "STOMP",
    "web_stomp": "STOMP on WebSocket",
    "web_mqtt": "MQTT on WebSocket",
    "distribution": "nodes and tools",
    "epmd": "port mapper",
}
MOVABLE = ("distribution", "epmd")
"""The ports that no client uses. The others have to be where the settings say: the scripts would talk to a stranger."""


def directory() -> Path:
    """Where what was started is noted, and private nodes live: ``BROKER_DIRECTORY``, or ``.broker`` of the project."""
    return Path(os.environ.get("BROKER_DIRECTORY") or DIRECTORY)


class NoBroker(Failure):
    """There is no broker at the address, and none can be started there."""

    exit_code = ExitCode.UNAVAILABLE


class FolderFailure(Failure):
    """The folder of the private node cannot be written."""

    exit_code = ExitCode.UNAVAILABLE


class Launcher:
    """Starts, stops and describes the broker of ``settings``; what it starts is noted in ``directory``."""

    def __init__(self, settings: Settings, directory: Path = DIRECTORY) -> None:
        self.settings = settings
        self.directory = directory

    # The commands.

    def up(self, way: str | None = None, *, may_install: bool = True) -> None:
        """Make a broker answer at the address of the settings; no-op if one does.

        ``way``: "compose" or "node" to have it started in this way and no other. Raises a Failure: what holds the
        port is not RabbitMQ, RabbitMQ refuses the user, or no way to start one works on this machine.
        """
        try:
            with self._lock():
                if not self._answers():
                    self._start(way, may_install)
        except FolderFailure:
            # A broker that answers needs nothing of ours.
            if not self._answers():
                raise
        say(self._headline())
        self._check_the_rest()

    def down(self) -> None:
        """Stop the broker if ``up`` started it; its data stays. A broker that was there before stays too."""
        if not os.path.isdir(self.directory):
            say("nothing to stop: no broker was started from here")
            return
        with self._lock():
            match self._started():
                case Compose() as compose:
                    compose.down()
                    say("stopped the container; its data stays in the volume")
                case PrivateNode() as node:
                    node.stop()
                    say(f"stopped the private node; its data stays in {_short(node.directory)}")
                case None:
                    say("nothing to stop: no broker was started from here")
            self._note.unlink(missing_ok=True)

    def restart(self) -> None:
        """Stop the broker that ``up`` started in good order, and start it again."""
        with self._lock():
            match self._started():
                case Compose() | PrivateNode() as broker:
                    broker.restart()
                case None:
                    raise NoBroker("nothing to restart: no broker was started from here")
            say(self._headline())

    def kill(self) -> None:
        """End the broker that ``up`` started at once, as a power cut does; its data stays. ``up`` starts it again."""
        with self._lock():
            match self._started():
                case Compose() | PrivateNode() as broker:
                    broker.kill()
                case None:
                    raise NoBroker("nothing to kill: no broker was started from here")
            say("killed the broker; its data stays, and to start it again: python -m broker up")

    def ctl(self, arguments: list[str]) -> None:
        """Run ``rabbitmqctl`` in the broker that ``up`` started, and print its output. Raises a Failure."""
        started = self._started_there()
        if started is None:
            raise NoBroker("no broker was started from here; run rabbitmqctl on the machine of yours")
        for line in started.ctl(*arguments).splitlines():
            say(line)

    def status(self) -> None:
        """Print where the broker runs, its version, addresses and plugins. Raises a Failure if there is none."""
        if not self._answers():
            # For its text: it says what is wrong.
            connect("broker", self.settings, deadline=0.1).close()
        say(self._headline())
        rows = [("runs as", self._whereabouts()), ("AMQP", self.settings.url)]
        try:
            with Management(self.settings) as management:
                listeners = management.overview().get("listeners", [])
                plugins = _enabled_plugins(management)
        except ManagementFailure as failure:
            self._say([*rows, ("management", str(failure))])
            return
        host = str(self.settings.addresses[0].host)
        rows.append(("management", self.settings.management_url))
        published = self._published()
        for listener in listeners:
            name = PROTOCOLS.get(listener["protocol"])
            if name and name != "management":
                port = published.get(listener["port"], listener["port"])
                scheme = "http://" if listener["protocol"] == "http/prometheus" else ""
                path = "/metrics" if scheme else ""
                rows.append((name, f"{scheme}{host}:{port}{path}"))
        rows.append(("plugins", " ".join(sorted(plugins))))
        self._say(rows)

    def _say(self, rows: list[tuple[str, str]]) -> None:
        for name, text in rows:
            say(f"  {name:<18}  {text}")

    def cluster(self, action: str) -> None:
        """Three private nodes: "up", "down" or "status". Raises a Failure if they cannot be had."""
        with self._lock():
            if action == "up" and find_server() is None:
                self._install()
            cluster = Cluster(self.directory / "cluster", self.settings)
            match action:
                case "up":
                    say(f"starting three private nodes of RabbitMQ {cluster.nodes[0].server.version}")
                    cluster.start()
                case "down":
                    cluster.stop()
                    say(f"stopped the three nodes; their data stays in {_short(cluster.directory)}")
                    return
            for node in cluster.nodes:
                state = f"process {node.pid}, {node.settings.management_url}" if node.running else "off"
                say(f"  {node.name:<18}  {node.settings.addresses[0]}  {state}")
            if not any(node.running for node in cluster.nodes):
                raise NoBroker("the cluster is off; start it with: python -m broker cluster up")
            say(f"to use it: export RABBITMQ_HOST={','.join(map(str, cluster.settings.addresses))}")
            say(f"           export RABBITMQ_MANAGEMENT_URL={cluster.settings.management_url}")

    def started_here(self) -> bool:
        """Whether the broker that the settings speak of is one that ``up`` has started, and so may be restarted."""
        return self._started_there() is not None

    def logs(self, follow: bool = False) -> None:
        """Print the log of the broker that ``up`` started; with ``follow``, until Ctrl-C."""
        started = self._started()
        if started is None:
            raise NoBroker("no broker was started from here; its log is where it was started")
        command, environment = started.logs_command(follow)
        subprocess.run(command, env=encoded(environment), cwd=DIRECTORY.parent, check=False)

    # Whether one answers.

    def _answers(self) -> bool:
        """Whether RabbitMQ works at the address. Raises a Failure if something is there that does not."""
        if not any(is_listening(address.host, address.port) for address in self.settings.addresses):
            return False
        started = self._started()
        try:
            # A broker that is just starting accepts before it answers.
            connect("broker", self.settings, deadline=BOOT_TIMEOUT if started else None).close()
        except (AccessRefused, VhostNotFound):
            if started is None:
                raise
            started.mend_access()
            connect("broker", self.settings).close()
        return True

    def _headline(self) -> str:
        connection = connect("broker", self.settings)
        version = ".".join(map(str, server_version(connection)))
        connection.close()
        where = ", ".join(map(str, self.settings.addresses))
        return f"RabbitMQ {version} answers at {where}"

    def _check_the_rest(self) -> None:
        """Say so if the broker that answers has no management API, or if another program has a port of the settings."""
        try:
            with Management(self.settings) as management:
                listeners = management.overview().get("listeners", [])
        except (ManagementUnavailable, NotManagement):
            warn(
                "its management API, which the tour, the playground and the tests need, does not answer at "
                f"{management.url}: rabbitmq-plugins enable rabbitmq_management, or set RABBITMQ_MANAGEMENT_URL"
            )
            return
        except ManagementFailure as failure:
            warn(str(failure))
            return
        first, published = self.settings.addresses[0], self._published()
        ports = {published.get(listener["port"], listener["port"]) for listener in listeners}
        if first.port not in ports or self.settings.tls:
            return  # What it calls its ports is not what we see of them: they are published by something else.
        for variable in OTHER_PORTS:
            port = getattr(self.settings, port_field(variable))
            if port not in ports and is_listening(first.host, port):
                warn(f"what listens at port {port} may be another program, not this RabbitMQ; see {variable}")

    # Starting one.

    def _start(self, way: str | None, may_install: bool) -> None:
        address, *others = self._here()
        started = self._started()
        if started is not None and started.running and started.ports.amqp != self.settings.addresses[0].port:
            raise NoBroker(
                f"the broker of this folder runs on port {started.ports.amqp}; stop it first: python -m broker down"
            )
        if isinstance(started, PrivateNode):
            # It has been killed, or the machine restarted: what is left of it may hold a port. Its data waits there.
            started.stop()
            way = way or "node"
        if way != "node":
            try:
                self._start_compose(address, *others)
            except ComposeFailure as failure:
                if way:
                    raise
                if not isinstance(failure, NoDocker):
                    say(f"not with Docker: {failure}")
            else:
                return
        ports = self._ports(address, *others)
        if find_server() is None:
            self._install(may_install)
        self._start_node(ports, address, *others)

    def _install(self, may_install: bool = True) -> None:
        try:
            if not may_install:
                raise InstallFailure("no rabbitmq-server is installed on this machine")
            install(self.directory / "install.log")
        except InstallFailure:
            warn("To get a RabbitMQ, install Docker with Compose, or the package rabbitmq-server (macOS: rabbitmq),")
            warn("and run this again; or name a broker elsewhere in AMQP_URL or in .env (see .env.example).")
            raise

    def _start_compose(self, *addresses: str) -> None:
        compose = Compose(self.settings, self._configured_ports())
        compose.check()
        container = compose.container()
        if container and container.running and not compose.is_ours():
            raise NoBroker(
                f"the container of docker-compose.yml runs on port {container.published.get(Ports().amqp)} for "
                f"{container.folder}; use it, stop it there (python -m broker down), or give yours a name of its own: "
                "COMPOSE_PROJECT_NAME=another"
            )
        ports = compose.ports if container and container.running else self._ports(*addresses)
        compose = Compose(self.settings, ports, compose.project)
        say("starting RabbitMQ with Docker Compose")
        self._remember("compose", ports, "127.0.0.1", compose.project)
        try:
            compose.up()
            if not self._answers():
                compose.down()
                raise ComposeFailure("its ports do not appear on this machine")
        except BaseException:
            self._note.unlink(missing_ok=True)
            raise

    def _start_node(self, ports: Ports, *addresses: str) -> None:
        node = self._node(addresses[0], ports)
        say(f"starting a private node of RabbitMQ {node.server.version}, data in {_short(node.directory)}")
        for last in (False, False, True):
            self._remember("node", node.ports, addresses[0])
            try:
                node.start()
                return
            except PortTaken:
                # Since we looked, by a broker that starts at the same time, for one.
                if last:
                    raise
                node = self._node(addresses[0], self._ports(*addresses))

    def _node(self, address: str, ports: Ports) -> PrivateNode:
        return PrivateNode(
            self.directory / "node", ports, settings=self.settings, plugins=shared_plugins(), address=address
        )

    def _here(self) -> list[str]:
        """The loopback addresses of the host, the one to listen at first. Raises a Failure if it is another machine."""
        first = self.settings.addresses[0]
        if self.settings.tls:
            raise NoBroker(f"nothing answers at {first}, and a broker with TLS is not started from here")
        try:
            found = [str(entry[4][0]) for entry in socket.getaddrinfo(first.host, first.port, type=socket.SOCK_STREAM)]
        except OSError:
            # For its text.
            connect("broker", self.settings, deadline=0.1).close()
            raise
        loopback = {address for address in found if ipaddress.ip_address(address).is_loopback}
        if not loopback:
            raise NoBroker(f"nothing answers at {first}, which is another machine: start RabbitMQ there")
        return sorted(loopback, key=lambda address: ":" in address)

    def _ports(self, *addresses: str) -> Ports:
        """The ports of a broker that is about to start; those that no client uses may be others than configured.

        Raises SettingsError if one of the others is in use.
        """
        values = variables(os.environ, ENV_FILE)
        wanted = self._configured_ports()
        fixed = [name for name in NAMES if name not in MOVABLE or _variable(name) in values]
        if taken := [name for name in wanted.in_use(*addresses) if name in fixed]:
            told = ", ".join(f"port {getattr(wanted, name)} ({NAMES[name]})" for name in taken)
            free = free_ports(addresses[0], len(taken), asdict(wanted).values())
            urls = {"amqp": "AMQP_URL", "management": "RABBITMQ_MANAGEMENT_URL"}
            mend = [
                f"port {port} in {urls[name]}" if urls.get(name) in values else f"{_variable(name)}={port}"
                for name, port in zip(taken, free, strict=True)
            ]
            raise SettingsError(f"in use already: {told}; in .env or the environment, set for example {' '.join(mend)}")
        return wanted.settled(addresses[0], fixed)

    def _configured_ports(self) -> Ports:
        """The ports of the settings, taken or not."""
        amqp = self.settings.addresses[0].port
        management = urlsplit(self.settings.management_url).port or 80
        return Ports.load(amqp, management, variables(os.environ, ENV_FILE))

    # What was started.

    @property
    def _note(self) -> Path:
        return self.directory / "started.json"

    def _remember(self, way: str, ports: Ports, address: str, project: str = "") -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        note = {"way": way, "address": address, "ports": asdict(ports), "project": project}
        self._note.write_text(json.dumps(note), encoding="utf-8")

    def _started(self) -> Compose | PrivateNode | None:
        """The broker that ``up`` started here and ``down`` has not stopped, or None."""
        try:
            note: dict[str, Any] = json.loads(self._note.read_text(encoding="utf-8"))
            ports = Ports(**note["ports"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if note["way"] != "compose":
            return self._node(note["address"], ports)
        compose = Compose(self.settings, ports, note.get("project", ""))
        with suppress(ComposeFailure):
            if not compose.is_ours():
                return None
        return compose

    def _started_there(self) -> Compose | PrivateNode | None:
        """What ``up`` started, if it is what the settings speak of and not another one, on another port."""
        started = self._started()
        ports = [address.port for address in self.settings.addresses]
        return started if started is not None and started.ports.amqp in ports else None

    def _by_hand(self) -> Compose | None:
        """The container of docker-compose.yml, started by the reader with the ports of the settings."""
        compose = Compose(self.settings, self._configured_ports())
        with suppress(ComposeFailure):
            container = compose.container()
            if container and container.running and container.published.get(Ports().amqp) == compose.ports.amqp:
                return compose
        return None

    def _whereabouts(self) -> str:
        match self._started_there():
            case Compose():
                return "the container of docker-compose.yml"
            case PrivateNode() as node:
                where = _short(node.directory)
                return f"a private node of this machine's rabbitmq-server (process {node.pid}), in {where}"
            case None:
                if self._by_hand() is not None:
                    return "the container of docker-compose.yml, not started by this program"
                return "a broker that was not started from here"

    def _published(self) -> dict[int, int]:
        """The ports on this machine by those in the container, if the broker runs in one."""
        compose = self._started_there() or self._by_hand()
        container = compose.container() if isinstance(compose, Compose) else None
        return container.published if container else {}

    @contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with FileLock(self.directory / "lock", timeout=LOCK_TIMEOUT):
                yield
        except Timeout:
            raise NoBroker("another `python -m broker` has been at work for 15 minutes; end it first") from None
        except OSError as error:
            where = error.filename or self.directory
            raise FolderFailure(
                f"{where} cannot be used ({error.strerror}); name a folder that can be written in BROKER_DIRECTORY"
            ) from None


def _enabled_plugins(management: Management) -> list[str]:
    """The plugins of the node that answers; a node that has just started reports them some seconds later."""
    retrying = Retrying(
        stop=stop_after_delay(PLUGINS_TIMEOUT),
        wait=wait_fixed(0.2),
        retry=retry_if_result(lambda plugins: not plugins),
        retry_error_callback=lambda _state: [],
    )

    def ask() -> list[str]:
        return list(management.nodes()[0].details.get("enabled_plugins", []))

    return retrying(ask)


def _variable(name: str) -> str:
    """The variable that sets a port of Ports."""
    return "RABBITMQ_PORT" if name == "amqp" else f"RABBITMQ_{name.upper()}_PORT"


def _short(path: Path) -> str:
    """The path as seen from here, if it is below."""
    with suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
