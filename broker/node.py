"""A private RabbitMQ node: a process of ours, on loopback, with its data in a folder of ours.

It runs the ``rabbitmq-server`` that is installed on this machine, as whoever calls, beside any other broker:
the system's own service, its data and its configuration are neither used nor touched.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from broker.access import definitions
from broker.daemon import Daemon, encoded, surroundings
from broker.epmd import Epmd
from broker.plain import plain, remove_link
from broker.ports import Ports, is_listening
from broker.server import Server, find_server
from common.config import Address, Settings
from common.connection import connect
from common.errors import ExitCode, Failure
from robust_pika.errors import AccessRefused, ConnectionFailure, VhostNotFound

CONFIGURATION = Path(__file__).with_name("rabbitmq.conf")
START_TIMEOUT = 120.0
STOP_TIMEOUT = 60.0


# Which port of Ports a plugin listens at.
_PORTS = {
    "rabbitmq_management": "management",
    "rabbitmq_prometheus": "prometheus",
    "rabbitmq_stream": "stream",
    "rabbitmq_mqtt": "mqtt",
    "rabbitmq_stomp": "stomp",
    "rabbitmq_web_mqtt": "web_mqtt",
    "rabbitmq_web_stomp": "web_stomp",
}


# How Erlang says that a port is held by somebody, and how RabbitMQ does of the one for its nodes and tools.
_TAKEN = re.compile(r"(\d+)},?\s*eaddrinuse|distribution port (\d+)")
# What a line of the log begins with: date, time, level, Erlang process.
_STAMP = re.compile(r"^\S+ \S+ \[\w+\] <[\d.]+>")


class NodeFailure(Failure):
    """The node did not start, or a command to it failed."""

    exit_code = ExitCode.UNAVAILABLE


class PortTaken(NodeFailure):
    """Somebody holds a port that the node was to listen at."""


class Exposed(NodeFailure):
    """The node listens where other machines may reach it, whatever made it do so."""


class PrivateNode:
    """One node. ``with PrivateNode(folder) as node:`` starts it and, at the end, stops it; the data stays.

    ``node.settings`` says how to reach it. ``kill`` and ``start`` lose and regain it as a power cut does.
    A node that another process has started is found again by its folder.
    """

    def __init__(
        self,
        directory: Path,
        ports: Ports | None = None,
        *,
        settings: Settings | None = None,
        plugins: Sequence[str] = ("rabbitmq_management",),
        configuration: str = "",
        name: str = "rabbit",
        cookie: str | None = None,
        address: str = "127.0.0.1",
        epmd: Epmd | None = None,
    ) -> None:
        """Nothing is started yet.

        ``directory`` holds the node's data and logs, and is made if it is missing. ``ports``: free ones by default.
        User, password and virtual host are those of ``settings`` (guest, guest and ``/``). ``plugins``: those that
        the server does not have are left out. ``configuration`` is added to the shared ``rabbitmq.conf``, in its
        format. Nodes that are to form a cluster need the same ``cookie``, the same ``epmd`` (which is then not
        this node's to stop) and different names. Raises NodeFailure if no rabbitmq-server of 3.10 or later is
        installed.
        """
        server = find_server()
        if server is None:
            raise NodeFailure("no rabbitmq-server is installed on this machine")
        if not server.usable():
            raise NodeFailure(f"the installed rabbitmq-server {server.version} is too old; 3.10 or later is needed")
        self.server: Server = server
        self.directory = Path(os.path.realpath(directory))
        self.name = f"{name}@localhost"
        self.address = address
        self.ports = ports or Ports.free(address)
        self.plugins = [plugin for plugin in plugins if plugin in server.plugins]
        self.configuration = configuration
        self._cookie = cookie or secrets.token_hex(16)
        self._given = settings or Settings()
        self._daemon = Daemon(self.directory, "server")
        self._own_epmd = epmd is None
        self._epmd = epmd or Epmd(self.directory, self.ports.epmd)

    # What others need to know of it.

    @property
    def settings(self) -> Settings:
        """How a client reaches this node."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return replace(
            self._given,
            addresses=(Address(self.address, self.ports.amqp),),
            tls=None,
            stream_port=self.ports.stream,
            mqtt_port=self.ports.mqtt,
            stomp_port=self.ports.stomp,
            web_stomp_port=self.ports.web_stomp,
            web_mqtt_port=self.ports.web_mqtt,
            management_url=f"http://{host}:{self.ports.management}",
        )

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.directory / "log" / f"{self.name}.log"

    @property
    def running(self) -> bool:
        """Whether the server's process is there (not: whether it answers)."""
        return self._daemon.find() is not None

    @property
    def pid(self) -> int | None:
        """The process id of the Erlang virtual machine that is the broker, or None."""
        process = self._daemon.find()
        return process.pid if process else None

    # Its life.

    def __enter__(self) -> PrivateNode:
        self.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Start it and wait, at most ``timeout`` seconds, until a client can work with it. No-op if it runs.

        Raises NodeFailure that quotes why it did not start; nothing of it is left running then.
        """
        found = self.running
        if not found:
            self._check_ports()
            self._prepare()
        try:
            if not found:
                self._epmd.start()
                self._start_server()
            self._wait_until_ready(timeout)
        except BaseException as error:
            if not found or isinstance(error, Exposed):
                # Ctrl-C included: a node that nobody knows of would hold the ports.
                self.kill()
                self._tidy_up()
            raise

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Stop it in good order, and the port mapper with it; killed after ``timeout`` seconds. No-op if it is off."""
        self._daemon.end(signal.SIGTERM, timeout)
        self._tidy_up()

    def kill(self) -> None:
        """End it at once with SIGKILL, as a power cut does; its data stays as it is."""
        self._daemon.end(signal.SIGKILL, 10)

    def restart(self, timeout: float = START_TIMEOUT) -> None:
        """Stop it in good order and start it again."""
        self.stop()
        self.start(timeout)

    def remove(self) -> None:
        """Stop it and delete its data."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def mend_access(self) -> None:
        """Make the running node accept the settings' user, password and virtual host. Raises NodeFailure."""
        file = self.directory / "access.json"
        file.touch(mode=0o600)
        try:
            file.write_text(definitions(self._given), encoding="utf-8")
            self.ctl("import_definitions", str(file))
        finally:
            file.unlink()

    def ctl(self, *arguments: str, program: str = "rabbitmqctl", timeout: float = 60.0) -> str:
        """Run ``rabbitmqctl`` (or another of its family) against this node; its output. Raises NodeFailure."""
        words = [word.encode(errors="surrogateescape") for word in arguments]
        command: list[str | bytes] = [self.server.program(program), "-q", *words]
        try:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                env=encoded(self._environment()),
                cwd=self.directory,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NodeFailure(f"{program} {arguments[0]} did not answer within {timeout:g} s") from None
        if result.returncode:
            lines = [line for line in (result.stderr or result.stdout).splitlines() if line.strip()]
            raise NodeFailure(f"{program} {arguments[0]} failed: {' '.join(lines)[:300]}")
        return result.stdout

    def logs_command(self, follow: bool) -> tuple[list[str], dict[str, str]]:
        """The command that prints the log, and the environment it needs."""
        return ["tail", "-n", "200", *(["-F"] if follow else []), str(self.log)], dict(os.environ)

    # How.

    def _check_ports(self) -> None:
        """Raise NodeFailure if somebody holds a port; RabbitMQ's own words for it fill a page."""
        used = {"amqp", "distribution"} | {name for plugin, name in _PORTS.items() if plugin in self.plugins}
        if self._own_epmd and not self._epmd.running:
            used.add("epmd")
        for name in sorted(used):
            if self.ports.taken(name, self.address):
                port = getattr(self.ports, name)
                raise PortTaken(f"port {port}, meant for {name}, is used by another program")

    def _prepare(self) -> None:
        for folder in ("data", "log"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        shared = CONFIGURATION.read_text(encoding="utf-8")
        self._write("own.conf", "".join(f"{line}\n" for line in [shared, *self._listeners(), self.configuration]))
        self._write("enabled_plugins", f"[{','.join(self.plugins)}].\n")
        # RabbitMQ sources this one as a shell script, and reads the next one: ours are empty instead of the system's.
        self._write("rabbitmq-env.conf", "")
        self._write("advanced.config", "[].\n")
        cookie = self.directory / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(self._cookie, encoding="ascii")

    def _listeners(self) -> list[str]:
        # An IPv6 address has no brackets here.
        at, ports = self.address, self.ports
        lines = [f"listeners.tcp.default = {at}:{ports.amqp}"]
        for plugin, name in _PORTS.items():
            port = getattr(ports, name)
            if plugin not in self.plugins:
                continue
            if name in ("stream", "mqtt", "stomp"):
                lines.append(f"{name}.listeners.tcp.1 = {at}:{port}")
            else:
                lines += [f"{name}.tcp.ip = {self.address}", f"{name}.tcp.port = {port}"]
        if "rabbitmq_stream" in self.plugins:
            # What the stream protocol tells its clients to connect to; the machine's host name otherwise.
            lines += [f"stream.advertised_host = {self.address}", f"stream.advertised_port = {ports.stream}"]
        return lines

    def _environment(self) -> dict[str, str]:
        here = plain(self.directory)
        return surroundings() | {
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            # Erlang looks for its cookie there.
            "HOME": str(here),
            "ERL_EPMD_PORT": str(self._epmd.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_SECONDS": "0",
            # The script becomes the server, instead of waiting for it as one more process.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(self.ports.distribution),
            # For every Erlang: the server, its tools, and one that the server starts for a moment at its own start.
            # They listen for each other, always in IPv4.
            "ERL_AFLAGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONF_ENV_FILE": str(here / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(here / "own.conf"),
            # More of it: nothing, instead of the system's /etc/rabbitmq/conf.d.
            "RABBITMQ_CONFIG_FILES": str(here / "none.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(here / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(here / "data"),
            "RABBITMQ_LOG_BASE": str(here / "log"),
            "RABBITMQ_PID_FILE": str(here / "server.pid"),
            # In the environment rather than in own.conf, where a password would need quoting.
            "RABBITMQ_DEFAULT_USER": self._given.user,
            "RABBITMQ_DEFAULT_PASS": self._given.password,
            "RABBITMQ_DEFAULT_VHOST": self._given.vhost,
        }

    def _tidy_up(self) -> None:
        if self._own_epmd:
            self._epmd.stop()
        remove_link(self.directory)

    def _start_server(self) -> None:
        # Many systems allow 1024 open files, which is some 900 connections.
        more_files = 'ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)" 2>/dev/null; exec "$0"'
        command = ["/bin/sh", "-c", more_files, self.server.program("rabbitmq-server")]
        self._daemon.start(command, self._environment())

    def _wait_until_ready(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        while True:
            answers = self._answers()
            if exposed := self._daemon.exposed() + self._epmd.exposed():
                raise Exposed(f"RabbitMQ is stopped: it listened at {', '.join(exposed)}, where others may reach it")
            if answers:
                return
            if not self.running:
                # Somebody was quicker, after we had looked.
                if taken := _TAKEN.search(self._daemon.told()):
                    raise PortTaken(f"port {taken[1] or taken[2]} is used by another program")
                raise NodeFailure(f"RabbitMQ did not start: {self._reason()}; see {self._daemon.output}")
            if time.monotonic() > end:
                log = self.log if self.log.is_file() else self._daemon.output
                raise NodeFailure(f"RabbitMQ did not answer within {timeout:g} s; see {log}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        """Whether a client can work with it, which is later than its process, its ports and its pings answer."""
        ports = [self.ports.amqp, *([self.ports.management] if "rabbitmq_management" in self.plugins else [])]
        if not all(is_listening(self.address, port) for port in ports):
            return False
        try:
            connect("broker", self.settings).close()
        except (AccessRefused, VhostNotFound):
            # Its data is older than the settings.
            self.mend_access()
            connect("broker", self.settings).close()
        except ConnectionFailure:
            # Whatever it is, on a busy machine it may be that it is still starting.
            return False
        return True

    def _reason(self) -> str:
        """The line of the start-up output that says why."""
        # The same is told to the log and to the terminal, in either order; the log sets it apart with empty lines.
        lines = [line for line in self._daemon.told().splitlines() if _text(line).strip("=") not in ("", "BOOT FAILED")]
        errors = [line for line in lines if "error" in line.lower()]
        return _text((errors or lines or ["it said nothing"])[0])[:200]

    def _write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text, encoding="utf-8")


def _text(line: str) -> str:
    """A line of the start-up output without its stamp."""
    return _STAMP.sub("", line).strip()
