"""A private RabbitMQ node: a process of ours, on loopback, with its data in a folder of ours.

It runs the ``rabbitmq-server`` that is installed on this machine, as whoever calls, beside any other broker:
the system's own service, its data and its configuration are neither used nor touched.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType

import psutil

from broker.access import definitions
from broker.ports import Ports, is_listening
from broker.server import Server, find_server
from common.config import Address, Settings
from common.connection import AccessRefused, ConnectionFailure, VhostNotFound, connect
from common.errors import ExitCode, Failure

CONFIGURATION = Path(__file__).with_name("rabbitmq.conf")
START_TIMEOUT = 120.0
STOP_TIMEOUT = 60.0


class NodeFailure(Failure):
    """The node did not start, or a command to it failed."""

    exit_code = ExitCode.UNAVAILABLE


@dataclass(frozen=True)
class _Process:
    """A process by its id and the time it was created, because ids are used again."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> _Process:
        return cls(pid, psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            # The kernel rounds the time to ticks, and the clock may be adjusted.
            alive = abs(process.create_time() - self.created) < 2 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if alive else None


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
    ) -> None:
        """Nothing is started yet.

        ``directory`` holds the node's data and logs, and is made if it is missing. ``ports``: free ones by default.
        User, password and virtual host are those of ``settings`` (guest, guest and ``/``). ``plugins``: those that
        the server does not have are left out. ``configuration`` is added to the shared ``rabbitmq.conf``, in its
        format. Nodes that are to form a cluster need the same ``cookie``, the same ``ports.epmd`` and different
        names. Raises NodeFailure if no rabbitmq-server of 3.10 or later is installed.
        """
        server = find_server()
        if server is None:
            raise NodeFailure("no rabbitmq-server is installed on this machine")
        if not server.usable():
            raise NodeFailure(f"the installed rabbitmq-server {server.version} is too old; 3.10 or later is needed")
        self.server: Server = server
        self.directory = directory.resolve()
        self.name = f"{name}@localhost"
        self.address = address
        self.ports = ports or Ports.free(address)
        self.plugins = [plugin for plugin in plugins if plugin in server.plugins]
        self.configuration = configuration
        self._cookie = cookie or secrets.token_hex(16)
        self._given = settings or Settings()
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    # What others need to know of it.

    @property
    def settings(self) -> Settings:
        """How a client reaches this node."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return replace(
            self._given,
            addresses=(Address(self.address, self.ports.amqp),),
            tls=None,
            management_url=f"http://{host}:{self.ports.management}",
        )

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.directory / "log" / f"{self.name}.log"

    @property
    def running(self) -> bool:
        """Whether the server's process is there (not: whether it answers)."""
        return self._process("server") is not None

    @property
    def pid(self) -> int | None:
        """The process id of the Erlang virtual machine that is the broker, or None."""
        process = self._process("server")
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
        if self.running:
            self._wait_until_ready(timeout)
            return
        self._prepare()
        try:
            self._start_epmd()
            self._start_server()
            self._wait_until_ready(timeout)
        except BaseException:
            # Ctrl-C included: a node that nobody knows of would hold the ports.
            self.kill()
            self._stop_epmd()
            raise

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Stop it in good order, and the port mapper with it; killed after ``timeout`` seconds. No-op if it is off."""
        self._end("server", signal.SIGTERM, timeout)
        self._stop_epmd()

    def kill(self) -> None:
        """End it at once with SIGKILL, as a power cut does; its data stays as it is."""
        self._end("server", signal.SIGKILL, 10)

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
        command = [self.server.program(program), "-q", *arguments]
        try:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                env=self._environment(),
                cwd=self.directory,
                capture_output=True,
                text=True,
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

    def _prepare(self) -> None:
        for folder in ("data", "log"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        self._write("own.conf", "".join(f"{line}\n" for line in [*self._listeners(), self.configuration]))
        self._write("enabled_plugins", f"[{','.join(self.plugins)}].\n")
        # RabbitMQ sources this one as a shell script, and reads the next one: ours are empty instead of the system's.
        self._write("rabbitmq-env.conf", "")
        self._write("advanced.config", "[].\n")
        cookie = self.directory / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(self._cookie, encoding="ascii")

    def _listeners(self) -> list[str]:
        at = f"[{self.address}]" if ":" in self.address else self.address
        ports = self.ports
        lines = [f"listeners.tcp.default = {at}:{ports.amqp}"]
        for plugin, port, keys in (
            ("rabbitmq_management", ports.management, "management.tcp"),
            ("rabbitmq_prometheus", ports.prometheus, "prometheus.tcp"),
            ("rabbitmq_web_stomp", ports.web_stomp, "web_stomp.tcp"),
            ("rabbitmq_web_mqtt", ports.web_mqtt, "web_mqtt.tcp"),
        ):
            if plugin in self.plugins:
                lines += [f"{keys}.ip = {self.address}", f"{keys}.port = {port}"]
        for plugin, port, keys in (
            ("rabbitmq_stream", ports.stream, "stream.listeners.tcp"),
            ("rabbitmq_mqtt", ports.mqtt, "mqtt.listeners.tcp"),
            ("rabbitmq_stomp", ports.stomp, "stomp.listeners.tcp"),
        ):
            if plugin in self.plugins:
                lines.append(f"{keys}.1 = {at}:{port}")
        if "rabbitmq_stream" in self.plugins:
            # What the stream protocol tells its clients to connect to; the machine's host name otherwise.
            lines += [f"stream.advertised_host = {self.address}", f"stream.advertised_port = {ports.stream}"]
        return lines

    def _environment(self) -> dict[str, str]:
        # The caller's RABBITMQ_* speak of clients, or of another node.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_", "AMQP_"))
        }
        here = self.directory
        loopback = "{0,0,0,0,0,0,0,1}" if ":" in self.address else f"{{{self.address.replace('.', ',')}}}"
        return environment | {
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            # Erlang looks for its cookie there.
            "HOME": str(here),
            "ERL_EPMD_PORT": str(self.ports.epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_SECONDS": "0",
            # The script becomes the server, instead of waiting for it as one more process.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(self.ports.distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-kernel inet_dist_use_interface {loopback}",
            "RABBITMQ_CTL_ERL_ARGS": f"-kernel inet_dist_use_interface {loopback}",
            "RABBITMQ_CONF_ENV_FILE": str(here / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(CONFIGURATION),
            "RABBITMQ_CONFIG_FILES": str(here / "own.conf"),
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

    def _start_epmd(self) -> None:
        # Erlang would start one by itself, as a daemon on all addresses that outlives the node.
        if not is_listening("127.0.0.1", self.ports.epmd):
            self._spawn("epmd", [_epmd_program(), "-port", str(self.ports.epmd), "-address", "127.0.0.1"])

    def _stop_epmd(self) -> None:
        self._end("epmd", signal.SIGTERM, 10)

    def _start_server(self) -> None:
        # Many systems allow 1024 open files, which is some 900 connections.
        more_files = 'ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)" 2>/dev/null; exec "$0"'
        self._spawn("server", ["/bin/sh", "-c", more_files, self.server.program("rabbitmq-server")])

    def _spawn(self, role: str, command: list[str]) -> None:
        with (self.directory / "log" / f"{role}.out").open("wb") as output:
            child = subprocess.Popen(
                command,
                env=self._environment(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A session of its own: a Ctrl-C in the reader's terminal is not meant for it.
                start_new_session=True,
            )
        self._children[role] = child
        # For the `python -m broker down` of another time.
        self._write(f"{role}.json", json.dumps(asdict(_Process.of(child.pid))))

    def _wait_until_ready(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        while not self._answers():
            if not self.running:
                raise NodeFailure(f"RabbitMQ did not start: {self._reason()}; see {self.log}")
            if time.monotonic() > end:
                raise NodeFailure(f"RabbitMQ did not answer within {timeout:g} s; see {self.log}")
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
        except ConnectionFailure as failure:
            if not failure.transient:
                raise
            return False
        return True

    def _reason(self) -> str:
        """The line of the start-up output that says why."""
        console = self.directory / "log" / "server.out"
        text = console.read_text(encoding="utf-8", errors="replace") if console.is_file() else ""
        lines = [line.strip() for line in text.splitlines()]
        told = [line for line in lines if "error" in line.lower() or "eaddrinuse" in line]
        return (told or [line for line in lines if line] or ["it said nothing"])[0][:200]

    def _end(self, role: str, number: signal.Signals, timeout: float) -> None:
        """Signal a process of ours, wait until it and its helpers are gone, kill what remains after ``timeout``."""
        if process := self._process(role):
            try:
                family = [process, *process.children(recursive=True)]
                process.send_signal(number)
            except psutil.NoSuchProcess:
                # It went by itself in this moment, which is what was asked for.
                family = [process]
            child = self._children.get(role)
            if child is not None:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(timeout)
            for straggler in psutil.wait_procs(family, timeout)[1]:
                with suppress(psutil.NoSuchProcess):
                    straggler.kill()
        if child := self._children.pop(role, None):
            child.wait(10)
        (self.directory / f"{role}.json").unlink(missing_ok=True)

    def _process(self, role: str) -> psutil.Process | None:
        try:
            record = json.loads((self.directory / f"{role}.json").read_text(encoding="utf-8"))
            return _Process(**record).find()
        except (OSError, ValueError, TypeError):
            return None

    def _write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text, encoding="utf-8")


def _epmd_program() -> str:
    """Erlang's port mapper; it is on the PATH, or beside the Erlang that is."""
    if path := shutil.which("epmd"):
        return path
    erl = shutil.which("erl")
    found = sorted(Path(erl).resolve().parent.parent.glob("erts-*/bin/epmd")) if erl else []
    if not found:
        raise NodeFailure("epmd, a program of Erlang, is not found; is Erlang installed?")
    return str(found[-1])
