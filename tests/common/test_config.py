"""Settings: what wins, what is refused and how it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.ports import Ports
from common.config import Address, Settings, SettingsError


def load(env_file: Path | None = None, **environ: str) -> Settings:
    return Settings.load(environ, env_file)


def test_defaults_are_those_of_the_example_file() -> None:
    example = Path(__file__).resolve().parents[2] / ".env.example"
    assert load() == Settings() == load(example)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RABBITMQ_USER=from-file\nRABBITMQ_VHOST=file-vhost\n")
    settings = load(tmp_path / ".env", RABBITMQ_USER="from-environment")
    assert (settings.user, settings.vhost) == ("from-environment", "file-vhost")


def test_one_url_sets_everything() -> None:
    settings = load(AMQP_URL="amqps://me:p%40ss@one,two:5673/my%2Fvhost", RABBITMQ_USER="ignored")
    assert settings.addresses == (Address("one", 5671), Address("two", 5673))
    assert (settings.user, settings.password, settings.vhost) == ("me", "p@ss", "my/vhost")
    assert settings.tls is not None


@pytest.mark.parametrize("path", ["", "/", "/%2F"])
def test_the_default_vhost_in_a_url(path: str) -> None:
    assert load(AMQP_URL=f"amqp://localhost{path}").vhost == "/"


def test_several_hosts() -> None:
    settings = load(RABBITMQ_HOST="a, b:1,[::1]:2", RABBITMQ_PORT="7")
    assert [str(address) for address in settings.addresses] == ["a:7", "b:1", "[::1]:2"]


def test_the_management_api_is_on_the_first_host_unless_told() -> None:
    assert load(RABBITMQ_HOST="a,b", RABBITMQ_MANAGEMENT_PORT="7").management_url == "http://a:7"
    told = load(RABBITMQ_MANAGEMENT_PORT="7", RABBITMQ_MANAGEMENT_URL="https://c/rabbitmq/")
    assert told.management_url == "https://c/rabbitmq"


def test_the_ports_of_the_other_protocols() -> None:
    told = load(
        RABBITMQ_STREAM_PORT="1",
        RABBITMQ_MQTT_PORT="2",
        RABBITMQ_STOMP_PORT="3",
        RABBITMQ_WEB_STOMP_PORT="4",
        RABBITMQ_WEB_MQTT_PORT="5",
    )
    assert other_ports(told) == [1, 2, 3, 4, 5]
    assert other_ports(load()) == [5552, 1883, 61613, 15674, 15675]


def test_with_tls_they_are_other_ones() -> None:
    assert other_ports(load(AMQP_URL="amqps://a")) == [5551, 8883, 61614, 15673, 15676]
    assert other_ports(load(RABBITMQ_TLS="true", RABBITMQ_MQTT_PORT="7"))[:2] == [5551, 7]


def test_they_move_with_the_first_hosts_port_as_those_of_our_broker_do() -> None:
    for port in (5673, 15672, 30000):
        ports = Ports.load(port, 1, {})
        expected = [ports.stream, ports.mqtt, ports.stomp, ports.web_stomp, ports.web_mqtt]
        assert other_ports(load(RABBITMQ_HOST=f"a:{port},b:1")) == expected
    assert other_ports(load(RABBITMQ_PORT="5673")) == [5553, 1884, 61614, 15675, 15676]
    # Beyond the last port there is none.
    assert load(RABBITMQ_PORT="30000").stomp_port == 61613
    assert load(AMQP_URL="amqps://a:5681").stream_port == 5561


def other_ports(settings: Settings) -> list[int]:
    return [
        settings.stream_port,
        settings.mqtt_port,
        settings.stomp_port,
        settings.web_stomp_port,
        settings.web_mqtt_port,
    ]


def test_the_password_is_never_shown() -> None:
    settings = load(AMQP_URL="amqp://me:hush@localhost/")
    assert "hush" not in repr(settings) + str(settings) + settings.url


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AMQP_URL", "http://localhost"),
        ("AMQP_URL", "amqp://u:hush@localhost:port/"),
        ("RABBITMQ_HOST", ","),
        ("RABBITMQ_HOST", "a:0"),
        ("RABBITMQ_PORT", "http"),
        ("RABBITMQ_PORT", "65536"),
        ("RABBITMQ_STREAM_PORT", "0"),
        ("RABBITMQ_WEB_STOMP_PORT", "http"),
        ("RABBITMQ_HEARTBEAT", "-1"),
        ("RABBITMQ_HEARTBEAT", "1.5"),
        ("RABBITMQ_PREFETCH", "0"),
        ("RABBITMQ_PREFETCH", "2001"),
        ("RABBITMQ_CONNECT_TIMEOUT", "nan"),
        ("RABBITMQ_TLS", "perhaps"),
        ("RABBITMQ_MANAGEMENT_URL", "localhost:15672"),
    ],
)
def test_a_wrong_value_names_its_variable_in_one_line(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**{name: value})
    assert str(caught.value).startswith(name)
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)


def test_tls_files_must_exist_and_belong_together(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="RABBITMQ_CA_FILE"):
        load(RABBITMQ_TLS="true", RABBITMQ_CA_FILE=str(tmp_path / "none.pem"))
    (tmp_path / "cert.pem").touch()
    with pytest.raises(SettingsError, match="RABBITMQ_KEY_FILE"):
        load(RABBITMQ_TLS="true", RABBITMQ_CERT_FILE=str(tmp_path / "cert.pem"))
