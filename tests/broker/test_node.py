"""A private node: it starts, is lost, comes back with its messages, and leaves nothing behind."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from broker.node import Exposed, NodeFailure, PortTaken, PrivateNode
from broker.plain import plain
from broker.ports import Ports, is_listening, is_taken
from broker.server import find_server, shared_plugins
from common.config import Settings, SettingsError
from tests.broker.conftest import ODD_FOLDER, assert_on_loopback_only, drain, processes_in, publish
from tests.support.process import wait_until

pytestmark = [pytest.mark.xdist_group("broker.node"), pytest.mark.usefixtures("installed")]


@pytest.mark.long
def test_life_of_a_node(tmp_path: Path) -> None:
    given = Settings(user="reader", password="s3cr#t", vhost="course")
    with PrivateNode(tmp_path / ODD_FOLDER, settings=given, plugins=shared_plugins()) as node:
        assert node.settings.user == "reader"
        publish(node.settings, 20)
        first = node.pid
        assert first is not None
        family = [psutil.Process(first), *psutil.Process(first).children(recursive=True)]

        listening = {
            (connection.laddr.ip, connection.laddr.port)
            for connection in psutil.Process(first).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        ports = node.ports
        assert {port for _, port in listening} == {
            *(ports.amqp, ports.management, ports.prometheus, ports.stream, ports.mqtt, ports.stomp),
            *(ports.web_stomp, ports.web_mqtt, ports.distribution),
        }
        assert {address for address, _ in listening} == {"127.0.0.1"}
        assert assert_on_loopback_only(node.directory) > len(listening)
        assert set(shared_plugins()) <= set(node.ctl("list", "-m", "-e", program="rabbitmq-plugins").split())

        node.kill()
        assert not node.running
        assert not is_listening("127.0.0.1", ports.amqp)
        node.start()
        assert node.pid != first
        assert [int(body) for body in drain(node.settings)] == list(range(20))

        # As another process sees it: by the folder alone.
        again = PrivateNode(tmp_path / ODD_FOLDER, ports, settings=given)
        assert again.running
        assert again.pid == node.pid
        assert "reader" in again.ctl("list_users")
    assert not node.running
    assert not again.running
    assert [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []
    assert not any(is_listening("127.0.0.1", port) for port in (ports.amqp, ports.epmd, ports.distribution))


def test_a_node_in_a_folder_of_any_name(tmp_path: Path) -> None:
    """Its queues are found again there, and nothing is left of the plain name that it has for RabbitMQ."""
    with PrivateNode(tmp_path / ODD_FOLDER, plugins=()) as node:
        publish(node.settings, 3)
        assert assert_on_loopback_only(node.directory) >= 3
        node.restart()
        assert assert_on_loopback_only(node.directory) >= 3
        assert drain(node.settings) == [b"0", b"1", b"2"]
        link = plain(node.directory)
        assert link.readlink() == node.directory
    assert not link.is_symlink()


def test_a_folder_that_is_plain_needs_no_other_name(tmp_path: Path) -> None:
    assert plain(tmp_path) == tmp_path


def test_the_place_of_the_plain_name_is_not_somebody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.plain._link", lambda _folder: tmp_path / "open" / "link")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(PermissionError, match="somebody else"):
        plain(tmp_path / ODD_FOLDER)


def test_a_node_that_listens_to_the_network_is_stopped(tmp_path: Path) -> None:
    ports = Ports.free()
    node = PrivateNode(tmp_path, ports, plugins=(), configuration=f"listeners.tcp.open = 0.0.0.0:{ports.stomp}")
    with pytest.raises(
        Exposed, match=rf"^RabbitMQ is stopped: it listened at 0\.0\.0\.0:{ports.stomp}, where others may reach it$"
    ):
        node.start()
    assert not node.running
    assert processes_in(tmp_path) == []


def test_a_node_at_an_ipv6_address(tmp_path: Path) -> None:
    if is_taken("::1", 0):
        pytest.skip("this machine has no IPv6")
    with PrivateNode(tmp_path, address="::1", plugins=["rabbitmq_mqtt", "rabbitmq_management"]) as node:
        assert is_listening("::1", node.ports.mqtt)
        assert "guest" in node.ctl("list_users")
        assert assert_on_loopback_only(tmp_path) >= 5


def test_a_node_that_cannot_start_says_why_and_is_gone(tmp_path: Path) -> None:
    node = PrivateNode(tmp_path / "node", configuration="no_such_key = 1", plugins=())
    with pytest.raises(NodeFailure, match=r"did not start: .*no_such_key.*; see (.*)") as caught:
        node.start()
    assert "no_such_key" in Path(str(caught.value).rpartition("; see ")[2]).read_text(encoding="utf-8")
    assert not node.running
    assert not is_listening("127.0.0.1", node.ports.epmd)


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    node = PrivateNode(tmp_path / "node")
    with (
        socket.create_server(("127.0.0.1", node.ports.distribution)),
        pytest.raises(
            NodeFailure, match=rf"^port {node.ports.distribution}, meant for distribution, is used by another"
        ),
    ):
        node.start()


@pytest.mark.parametrize("name", ["distribution", pytest.param("stomp", marks=pytest.mark.long)])
def test_a_port_that_is_taken_while_it_starts_is_told(name: str, tmp_path: Path) -> None:
    node = PrivateNode(tmp_path / "node", plugins=["rabbitmq_stomp"])
    port = getattr(node.ports, name)

    def take() -> None:
        # It has looked at its ports by then, and it takes a while until it listens.
        wait_until((node.directory / "own.conf").exists, every=0.01)
        holder.bind((node.address, port))
        holder.listen()

    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thread = threading.Thread(target=take)
        thread.start()
        with pytest.raises(PortTaken, match=f"^port {port} is used by another program"):
            node.start()
        thread.join()
    assert not node.running


def test_shared_plugins_are_those_of_the_server() -> None:
    server = find_server()
    assert server is not None
    assert set(shared_plugins()) <= server.plugins


def test_ports_are_those_told_or_moved_together() -> None:
    ports = Ports.load(5682, 15000, {"RABBITMQ_MQTT_PORT": "1999", "RABBITMQ_STOMP_PORT": ""})
    assert (ports.amqp, ports.management, ports.mqtt, ports.stomp, ports.stream) == (5682, 15000, 1999, 61623, 5562)
    with pytest.raises(SettingsError, match=r"^RABBITMQ_MQTT_PORT must be a whole number from 1 to 65535, not 'x'$"):
        Ports.load(5672, 15672, {"RABBITMQ_MQTT_PORT": "x"})


def test_ports_that_are_taken_or_used_twice_move() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        wanted = replace(Ports.free(), mqtt=taken)
        wanted = replace(wanted, stomp=wanted.amqp)
        ports = wanted.settled("127.0.0.1", ("amqp", "management"))
    assert {name for name, port in vars(ports).items() if port != vars(wanted)[name]} == {"mqtt", "stomp"}
    assert len(set(vars(ports).values())) == len(vars(ports))


def test_a_port_that_is_held_at_another_address_of_the_host_is_in_use() -> None:
    ports = Ports.free()
    try:
        holder = socket.create_server(("::1", ports.mqtt), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with holder:
        assert ports.in_use("127.0.0.1") == []
        assert ports.in_use("127.0.0.1", "::1") == ["mqtt"]


def test_the_distribution_port_must_be_free_at_all_addresses(tmp_path: Path) -> None:
    """An outgoing connection of another address is enough, and RabbitMQ does not start."""
    node = PrivateNode(tmp_path / "node")
    wanted = node.ports
    with socket.socket() as holder, socket.socket() as harmless:
        try:
            holder.bind(("127.0.0.2", wanted.distribution))
        except OSError:
            pytest.skip("this machine has no second loopback address")
        harmless.bind(("127.0.0.2", wanted.mqtt))
        with pytest.raises(PortTaken, match=f"^port {wanted.distribution}, meant for distribution, is used by another"):
            node.start()
        ports = wanted.settled("127.0.0.1")
    assert ports == replace(wanted, distribution=ports.distribution)
    assert ports.distribution != wanted.distribution


def test_free_ports_differ() -> None:
    ports = Ports.free()
    numbers = list(vars(ports).values())
    assert len(set(numbers)) == len(numbers)
