"""``python -m broker`` as a reader types it, at an address of its own."""

from __future__ import annotations

import http.server
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.launcher import Launcher
from broker.packages import InstallFailure
from broker.ports import is_taken
from common.connection import connect
from common.errors import ExitCode
from tests.broker.conftest import Place

pytestmark = [pytest.mark.xdist_group("broker.up"), pytest.mark.usefixtures("installed")]

# An engine that answers but cannot pull: what a machine behind a closed network has.
DOCKER = """#!/bin/sh
case "$*" in
  info|"compose version"|"compose ps"*) exit 0 ;;
  "compose config --images") echo rabbitmq:4.3-management ;;
  "compose config --format json") echo '{"name": "rabbitmq-by-example"}' ;;
  "compose pull"*) echo "failed to resolve reference: no such host" >&2; exit 18 ;;
  *) exit 1 ;;
esac
"""


@pytest.fixture
def place(started: Place) -> Place:
    """Where a broker runs that ``up`` has started; again, if the test before has stopped it."""
    if not started.processes():
        assert started.run("up")[0] == 0
    return started


@pytest.fixture(scope="module")
def started(make_place: Callable[[], Place]) -> Place:
    """One broker for all tests of this module."""
    place = make_place()
    programs = place.directory / "bin"
    programs.mkdir()
    (programs / "docker").write_text(DOCKER)
    (programs / "docker").chmod(0o755)
    place.path.append(programs)
    # Two at once: one of them starts it, the other waits for it.
    racers = [place.start("up"), place.start("up")]
    outcomes = [(*racer.communicate(timeout=200), racer.returncode) for racer in racers]
    told = "\n".join(f"exit code {code}:\n{out}{err}" for out, err, code in outcomes)
    assert [code for _, _, code in outcomes] == [0, 0], told
    output = "".join(text for text, _, _ in outcomes)
    assert output.count("starting a private node") == 1
    assert output.count(f" answers at localhost:{place.ports.amqp}") == 2
    assert "not with Docker: docker compose pull failed: failed to resolve reference: no such host" in output
    return place


def test_the_user_password_and_vhost_of_the_settings_work(place: Place) -> None:
    with connect("test", place.settings) as connection:
        assert connection.is_open


def test_a_second_up_starts_nothing(place: Place) -> None:
    before = place.processes()
    code, output, errors = place.run("up")
    assert (code, errors) == (0, "")
    assert output.splitlines() == [f"RabbitMQ {_version(output)} answers at localhost:{place.ports.amqp}"]
    assert place.processes() == before


def test_status(place: Place) -> None:
    code, output, _ = place.run("status")
    assert code == 0
    assert "a private node of this machine's rabbitmq-server (process " in output
    assert f"http://localhost:{place.ports.management}\n" in output
    assert "rabbitmq_management" in output
    assert "rabbitmq_stream" in output


def test_logs(place: Place) -> None:
    code, output, _ = place.run("logs")
    assert code == 0
    assert "started TCP listener" in output


def test_ctl(place: Place) -> None:
    code, output, errors = place.run("ctl", "eval", "1 + 1.")
    assert (code, output, errors) == (0, "2\n", "")
    code, _, errors = place.run("ctl", "sing")
    assert code == ExitCode.UNAVAILABLE
    assert errors.startswith("error: rabbitmqctl sing failed: ")
    assert errors.count("\n") == 1
    code, _, errors = place.run("ctl")
    assert code == ExitCode.USAGE
    assert errors.count("\n") == 1


def test_a_broker_that_was_there_before_is_used_and_left_alone(place: Place, tmp_path: Path) -> None:
    visitor = replace(place, directory=tmp_path)
    assert visitor.run("up")[0] == 0
    code, output, _ = visitor.run("status")
    assert code == 0
    assert "a broker that was not started from here" in output
    code, _, errors = visitor.run("ctl", "list_vhosts")
    assert code == ExitCode.UNAVAILABLE
    assert errors == "error: no broker was started from here; run rabbitmqctl on the machine of yours\n"
    code, output, _ = visitor.run("down")
    assert (code, output) == (0, "nothing to stop: no broker was started from here\n")
    connect("test", place.settings).close()


@pytest.mark.parametrize("command", ["up", "status"])
def test_wrong_password_at_a_broker_of_others(place: Place, tmp_path: Path, command: str) -> None:
    code, _, errors = replace(place, directory=tmp_path, password="wrong-one").run(command)
    assert code == ExitCode.ACCESS
    assert errors.startswith(f"error: RabbitMQ at localhost:{place.ports.amqp} refused user 'reader': wrong user name")
    assert errors.count("\n") == 1


def test_settings_that_changed_since_our_broker_was_made_are_made_true(place: Place) -> None:
    changed = replace(place, user="other", password="n3w", vhost="course two")
    assert changed.run("up")[0] == 0
    connect("test", changed.settings).close()
    connect("test", place.settings).close()


def test_another_port_while_ours_runs(place: Place, make_place: Callable[[], Place]) -> None:
    moved = replace(place, ports=make_place().ports)
    code, _, errors = moved.run("up")
    assert code == ExitCode.UNAVAILABLE
    assert errors == (
        f"error: the broker of this folder runs on port {place.ports.amqp}; stop it first: python -m broker down\n"
    )


def test_a_broker_that_was_killed_is_started_again(place: Place) -> None:
    code, output, errors = place.run("kill")
    assert (code, errors) == (0, "")
    assert output == "killed the broker; its data stays, and to start it again: python -m broker up\n"
    assert not any("beam" in line for line in place.processes())
    code, output, _ = place.run("up")
    assert code == 0
    assert "starting a private node" in output
    # In the way it was started before: what another way starts would not have its data.
    assert "Docker" not in output
    # The port mapper of the one before has gone with it.
    assert [line.split()[1] for line in place.processes()].count("epmd") == 1


def test_down(place: Place) -> None:
    code, output, _ = place.run("down")
    assert code == 0
    assert output.startswith("stopped the private node")
    assert place.processes() == []
    assert place.run("down")[:2] == (0, "nothing to stop: no broker was started from here\n")
    code, _, errors = place.run("kill")
    assert (code, errors) == (ExitCode.UNAVAILABLE, "error: nothing to kill: no broker was started from here\n")
    code, _, errors = place.run("status")
    assert code == ExitCode.UNAVAILABLE
    assert errors == f"error: nothing answers at localhost:{place.ports.amqp}; start RabbitMQ with: make broker\n"


@pytest.fixture(params=["silent", "closes", "http"])
def foreign(request: pytest.FixtureRequest, make_place: Callable[[], Place]) -> Iterator[Place]:
    """A place whose AMQP port is held by something that is not RabbitMQ."""
    place = make_place()
    if request.param == "http":
        web = http.server.ThreadingHTTPServer(("127.0.0.1", place.ports.amqp), http.server.BaseHTTPRequestHandler)
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield place
        web.shutdown()
        web.server_close()
        return
    with socket.create_server(("127.0.0.1", place.ports.amqp)) as server:
        if request.param == "closes":
            threading.Thread(target=_close_all, args=(server,), daemon=True).start()
        yield place


def test_port_held_by_something_else(foreign: Place) -> None:
    code, output, errors = foreign.run("up")
    assert code == ExitCode.PROTOCOL
    assert output == ""
    assert errors.startswith(f"error: what answers at localhost:{foreign.ports.amqp} ")
    assert errors.count("\n") == 1
    assert foreign.processes() == []


def test_management_port_held_by_something_else(make_place: Callable[[], Place]) -> None:
    place = make_place()
    with socket.create_server(("127.0.0.1", place.ports.management)):
        code, _, errors = place.run("up")
    assert code == ExitCode.CONFIG
    assert re.fullmatch(
        rf"error: in use already: port {place.ports.management} \(management UI\); "
        r"in .env or the environment, set for example port \d+ in RABBITMQ_MANAGEMENT_URL\n",
        errors,
    )


def test_ports_of_other_protocols_held_by_something_else(make_place: Callable[[], Place]) -> None:
    """The scripts would talk to that, and it is told before anything is started."""
    place = make_place()
    with (
        socket.create_server(("127.0.0.1", place.ports.mqtt)),
        socket.create_server(("127.0.0.1", place.ports.stomp)),
    ):
        code, output, errors = place.run("up", "--way", "node")
    assert (code, output) == (ExitCode.CONFIG, "")
    assert re.fullmatch(
        rf"error: in use already: port {place.ports.mqtt} \(MQTT\), port {place.ports.stomp} \(STOMP\); "
        r"in .env or the environment, set for example RABBITMQ_MQTT_PORT=\d+ RABBITMQ_STOMP_PORT=\d+\n",
        errors,
    )
    assert place.processes() == []


def test_a_port_that_is_named_for_the_nodes_is_not_another_one(make_place: Callable[[], Place]) -> None:
    place = make_place()
    with socket.create_server(("127.0.0.1", place.ports.epmd)):
        code, _, errors = place.run("up", "--way", "node")
    assert code == ExitCode.CONFIG
    assert f"port {place.ports.epmd} (port mapper); " in errors


def test_another_program_at_a_port_of_the_settings(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        code, _, errors = replace(place, ports=replace(place.ports, mqtt=port)).run("up")
    assert code == 0
    assert errors == (
        f" [!] what listens at port {port} may be another program, not this RabbitMQ; see RABBITMQ_MQTT_PORT\n"
    )


def test_a_broker_without_its_management_api(place: Place, make_place: Callable[[], Place]) -> None:
    elsewhere = make_place().ports.management
    code, output, errors = replace(place, ports=replace(place.ports, management=elsewhere)).run("up")
    assert code == 0
    assert " answers at " in output
    assert errors == (
        " [!] its management API, which the tour, the playground and the tests need, does not answer at "
        f"http://localhost:{elsewhere}: rabbitmq-plugins enable rabbitmq_management, or set RABBITMQ_MANAGEMENT_URL\n"
    )


@pytest.mark.parametrize("folder", ["/proc/nope", "/dev/null/below", "/dev/full"])
def test_a_folder_that_cannot_be_written(place: Place, make_place: Callable[[], Place], folder: str) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    code, output, _ = replace(place, directory=Path(folder)).run("up")
    assert (code, "answers at" in output) == (0, True)
    code, output, errors = replace(make_place(), directory=Path(folder)).run("up")
    assert (code, output) == (ExitCode.UNAVAILABLE, "")
    assert re.fullmatch(
        rf"error: {folder}\S* cannot be used \(.+\); name a folder that can be written in BROKER_DIRECTORY\n", errors
    )
    code, output, _ = replace(place, directory=Path(folder)).run("down")
    assert (code, output) == (0, "nothing to stop: no broker was started from here\n")


def test_an_ipv6_address(make_place: Callable[[], Place]) -> None:
    if is_taken("::1", 0):
        pytest.skip("this machine has no IPv6")
    place = replace(make_place(), host="[::1]")
    code, output, errors = place.run("up", "--way", "node")
    assert (code, errors) == (0, "")
    assert f" answers at [::1]:{place.ports.amqp}\n" in output


def test_without_any_way_there_is_advice(
    make_place: Callable[[], Place], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = make_place()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("broker.launcher.find_server", lambda: None)
    with pytest.raises(InstallFailure, match="no rabbitmq-server is installed"):
        Launcher(place.settings, place.directory).up(may_install=False)
    output, errors = capsys.readouterr()
    assert output == ""
    assert len(errors.splitlines()) == 2
    assert "AMQP_URL" in errors


def _close_all(server: socket.socket) -> None:
    while True:
        try:
            server.accept()[0].close()
        except OSError:
            return


def _version(output: str) -> str:
    return output.split()[1]
