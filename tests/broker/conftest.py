"""Brokers of these tests' own, beside the one that the other tests use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from pika import BasicProperties, DeliveryMode

from broker.ports import Ports
from broker.server import find_server
from common.config import Address, Settings
from common.connection import connect
from tests.support.process import run_script

ROOT = Path(__file__).resolve().parents[2]
# What a shell, a URL or a configuration file would trip over.
PASSWORD = "s3cr#t 'quoted' %41/\u00e4"
# What a shell, Erlang's wildcards or RabbitMQ would.
ODD_FOLDER = 'it\'s an [odd] {one,two} "q" *?$HOME \\ \u00e4\u65e5'


@dataclass
class Place:
    """A folder and an address where ``python -m broker`` is to work."""

    directory: Path
    ports: Ports
    user: str = "reader"
    password: str = PASSWORD
    vhost: str = "course/one"
    host: str = "localhost"
    path: list[Path] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return Settings(
            addresses=(Address("localhost", self.ports.amqp),),
            user=self.user,
            password=self.password,
            vhost=self.vhost,
            management_url=f"http://localhost:{self.ports.management}",
        )

    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "AMQP_"))}
        user, password, vhost = (quote(text, safe="") for text in (self.user, self.password, self.vhost))
        ports = {f"RABBITMQ_{name.upper()}_PORT": str(port) for name, port in asdict(self.ports).items()}
        return (
            kept
            | ports
            | {
                "AMQP_URL": f"amqp://{user}:{password}@{self.host}:{self.ports.amqp}/{vhost}",
                "RABBITMQ_MANAGEMENT_URL": f"http://{self.host}:{self.ports.management}",
                "PATH": os.pathsep.join([*map(str, self.path), kept["PATH"]]),
            }
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "broker", *arguments, "--directory", str(self.directory)],
            cwd=ROOT,
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error; the password must be in neither."""
        there = "--directory", str(self.directory)
        done = run_script("-m", "broker", *arguments, *there, environ=self.environ(), limit=200)
        assert self.password not in done.out + done.err
        assert "Traceback" not in done.err
        assert_on_loopback_only(self.directory)
        return done.code, done.out, done.err

    def processes(self) -> list[str]:
        """The processes that work in this folder."""
        return processes_in(self.directory)


def at_work_in(directory: Path) -> Iterator[psutil.Process]:
    """The processes that work in a folder, but those that are over."""
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(directory):
                yield process


def processes_in(directory: Path) -> list[str]:
    """Their ids and names."""
    return [f"{process.pid} {process.name()}" for process in at_work_in(directory)]


def assert_on_loopback_only(directory: Path) -> int:
    """No process that works in the folder listens where another machine may reach it; how many sockets listen."""
    addresses = []
    for process in at_work_in(directory):
        with suppress(psutil.NoSuchProcess):
            found = process.net_connections("inet")
            addresses += [each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN]
    assert [address for address in addresses if not ip_address(address).is_loopback] == []
    return len(addresses)


def publish(settings: Settings, count: int) -> None:
    """Publish ``count`` numbers to the quorum queue "kept", each confirmed."""
    with connect("test", settings) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("kept", durable=True, arguments={"x-queue-type": "quorum"})
        for number in range(count):
            properties = BasicProperties(delivery_mode=DeliveryMode.Persistent)
            channel.basic_publish("", "kept", str(number).encode(), properties, mandatory=True)


def drain(settings: Settings) -> list[bytes]:
    """All that is in the queue "kept", taken out of it at the end: if that fails, all is there still."""
    bodies = []
    with connect("test", settings) as connection:
        channel = connection.channel()
        while (body := channel.basic_get("kept")[2]) is not None:
            bodies.append(body)
        channel.basic_ack(0, multiple=True)
    return bodies


@pytest.fixture(scope="session")
def installed() -> None:
    """Skip where the package rabbitmq-server is not installed: the brokers of these tests are private nodes."""
    if find_server() is None:
        pytest.skip("rabbitmq-server is not installed on this machine")


@pytest.fixture(scope="module")
def make_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Place]]:
    """Makes places; what runs in them when the module ends is stopped."""
    places: list[Place] = []

    def make() -> Place:
        folder = tmp_path_factory.mktemp("broker") / ODD_FOLDER
        folder.mkdir()
        places.append(Place(folder, Ports.free()))
        return places[-1]

    yield make
    for place in places:
        place.run("down")
        assert place.processes() == []
