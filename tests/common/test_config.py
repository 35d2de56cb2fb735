"""Settings: what wins, what is refused and how it is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as budget
from hypothesis import strategies as st

from broker.ports import Ports
from common.config import Address, Settings, SettingsError
from common.environment import variables
from extras.management import Management


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
    # After the last port comes the first one that everybody may have; no two of them meet.
    assert load(RABBITMQ_PORT="30000").stomp_port == 61613 + 30000 - 5672 - 65535 + 1024
    for port in (5, 3000, 27999, 65535):
        assert len(set(vars(Ports.load(port, 1, {})).values())) == len(vars(Ports()))
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
        ("RABBITMQ_HOST", "a..b"),
        ("RABBITMQ_HOST", "."),
        ("RABBITMQ_HOST", f"{'a' * 64}.example"),
        ("RABBITMQ_HOST", "a" * 300),
        ("RABBITMQ_HOST", "::1"),
        ("RABBITMQ_HOST", "[::1"),
        ("RABBITMQ_HOST", "[rabbit]"),
        ("RABBITMQ_HOST", "a b"),
        ("RABBITMQ_HOST", "a:٣"),
        ("RABBITMQ_HOST", "a:65536"),
        ("RABBITMQ_HOST", "a,b/c"),
        ("RABBITMQ_HOST", "amqp://u:hush@localhost"),
        ("RABBITMQ_HOST", "u:hush@localhost"),
        ("AMQP_URL", "amqp://u:hush"),
        ("AMQP_URL", "u:hush@localhost"),
        ("AMQP_URL", "amqp://u:hush@a..b/"),
        ("AMQP_URL", "amqp://u:hush%00@localhost/"),
        ("AMQP_URL", "amqp://u:hush%ff@localhost/"),
        ("RABBITMQ_PORT", "http"),
        ("RABBITMQ_PORT", "65536"),
        ("RABBITMQ_PORT", "5_672"),
        ("RABBITMQ_PORT", "５６７２"),
        ("RABBITMQ_PORT", "9" * 5000),
        ("RABBITMQ_STREAM_PORT", "0"),
        ("RABBITMQ_WEB_STOMP_PORT", "http"),
        ("RABBITMQ_HEARTBEAT", "-1"),
        ("RABBITMQ_HEARTBEAT", "1.5"),
        ("RABBITMQ_PREFETCH", "0"),
        ("RABBITMQ_PREFETCH", "2001"),
        ("RABBITMQ_CONNECT_TIMEOUT", "nan"),
        ("RABBITMQ_TLS", "perhaps"),
        ("RABBITMQ_MANAGEMENT_URL", "localhost:15672"),
        ("RABBITMQ_MANAGEMENT_URL", "http://[::1"),
        ("RABBITMQ_MANAGEMENT_URL", "http://a:99999"),
        ("RABBITMQ_MANAGEMENT_URL", "http://u:hush/1@a:15672"),
        ("RABBITMQ_MANAGEMENT_URL", "http://u:hush 1@a:15672"),
        ("DATABASE_URL", "postgresql://u:hush@1@host/d"),
    ],
)
def test_a_wrong_value_names_its_variable_in_one_line(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**{name: value})
    assert str(caught.value).startswith(name)
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("password", ["hush#1", "hush/1", "hush?1", "5672/1", "hush@1#", "h@ush/1", "#", "hush/1@2"])
def test_a_password_that_is_not_percent_encoded_is_not_shown(password: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(AMQP_URL=f"amqp://guest:{password}@localhost/")
    assert str(caught.value) == (
        "AMQP_URL has a / ? # or @ that ends a part of it too early; in the user, password and virtual host, "
        "write / as %2F, ? as %3F, # as %23 and @ as %40"
    )


def test_an_at_sign_in_the_password_alone_does_no_harm() -> None:
    settings = load(AMQP_URL="amqp://guest:hu@sh@localhost/")
    assert (settings.password, settings.where) == ("hu@sh", "localhost:5672")


def test_an_ipv6_address_needs_brackets() -> None:
    with pytest.raises(SettingsError, match=r"^RABBITMQ_HOST has .*; write host or host:port, and an IPv6 .* \[::1\]$"):
        load(RABBITMQ_HOST="fe80::1")
    assert load(RABBITMQ_HOST="[fe80::1%eth0]").where == "[fe80::1%eth0]:5672"


def test_user_password_and_vhost_are_taken_as_they_are() -> None:
    """As Docker Compose does, too."""
    settings = load(RABBITMQ_USER=" u", RABBITMQ_PASSWORD="hush \n", RABBITMQ_VHOST=" ", RABBITMQ_PORT=" 7 ")
    assert (settings.user, settings.password, settings.vhost) == (" u", "hush \n", " ")
    assert settings.addresses[0].port == 7
    assert load(RABBITMQ_USER="", RABBITMQ_PASSWORD="") == Settings()


def test_a_virtual_host_that_amqp_cannot_name() -> None:
    assert load(RABBITMQ_VHOST="ä" * 127).vhost == "ä" * 127
    with pytest.raises(SettingsError, match=r"virtual host.* 255 bytes"):
        load(RABBITMQ_VHOST="ä" * 128)


def test_a_host_name_that_is_not_ascii() -> None:
    assert load(RABBITMQ_HOST="hütte.example").management_url == "http://xn--htte-0ra.example:15672"


@pytest.mark.parametrize("value", ["none.pem", "~nobody-of-this-name/ca.pem", "a" * 400, "."])
def test_a_file_that_cannot_be_read_is_named(value: str) -> None:
    with pytest.raises(SettingsError, match=r"^RABBITMQ_CA_FILE names a file that cannot be read: .*\(.+\)$"):
        load(RABBITMQ_TLS="true", RABBITMQ_CA_FILE=value)


# Three letters that are in none of our own words, nor in anything else that is tried.
SECRET_LETTERS = "ZXJ"
TEXT = st.text(st.characters(exclude_characters=f"{SECRET_LETTERS}\0", exclude_categories=["Cs"]), max_size=12)
VALUES = st.fixed_dictionaries(
    {
        "secret": st.text(f"{SECRET_LETTERS}7#/?@:%[]$ '\"\\ä\u3000", min_size=1, max_size=12),
        "host": st.one_of(st.text("ab.:[]-1% ,/@ä\n", max_size=12), st.sampled_from(["localhost", "[::1]", "a" * 64])),
        "port": st.text("0123456789_ ５-", max_size=6),
        "more": TEXT,
    }
)
TEMPLATES = {
    "AMQP_URL": "amqp://me:{secret}@{host}/{more}",
    "RABBITMQ_MANAGEMENT_URL": "http://me:{secret}@{host}:{port}",
    "DATABASE_URL": "postgresql://me:{secret}@{host}/{more}",
    "RABBITMQ_HOST": "{host}",
    "RABBITMQ_PORT": "{port}",
    "RABBITMQ_USER": "{more}",
    "RABBITMQ_PASSWORD": "{secret}",
    "RABBITMQ_VHOST": "{more}",
    "RABBITMQ_MQTT_PORT": "{port}",
    "RABBITMQ_EPMD_PORT": "{more}",
    "RABBITMQ_HEARTBEAT": "{more}",
    "RABBITMQ_TLS": "{more}",
    "RABBITMQ_CA_FILE": "{more}",
    "RABBITMQ_CONNECT_TIMEOUT": "{port}",
}


def told(environ: dict[str, str], env_file: Path | None) -> list[str]:
    """What may be shown of these settings, or the one line that says why they cannot be used."""
    try:
        settings = Settings.load(environ, env_file)
        ports = Ports.load(settings.addresses[0].port, 1, variables(environ, env_file))
    except SettingsError as error:
        return [str(error)]
    with Management(settings) as management:
        return [repr(settings), str(settings), settings.url, settings.where, repr(ports), management.url]


@pytest.mark.parametrize("name", TEMPLATES)
@budget(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=VALUES, in_file=st.booleans())
def test_whatever_is_set_there_is_one_line_and_no_password(
    tmp_path: Path, name: str, values: dict[str, str], in_file: bool
) -> None:
    given_values = {"RABBITMQ_PASSWORD": values["secret"], name: TEMPLATES[name].format(**values)}
    if in_file:
        content = "".join(f"{variable}={value}\n" for variable, value in given_values.items())
        (tmp_path / ".env").write_bytes(content.encode())
        lines = told({}, tmp_path / ".env")
    else:
        lines = told(given_values, None)
    for line in lines:
        assert line.isprintable()
        assert not set(SECRET_LETTERS) & set(line)


def test_tls_files_must_exist_and_belong_together(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="RABBITMQ_CA_FILE"):
        load(RABBITMQ_TLS="true", RABBITMQ_CA_FILE=str(tmp_path / "none.pem"))
    (tmp_path / "cert.pem").touch()
    with pytest.raises(SettingsError, match="RABBITMQ_KEY_FILE"):
        load(RABBITMQ_TLS="true", RABBITMQ_CERT_FILE=str(tmp_path / "cert.pem"))
