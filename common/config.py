"""Settings from the environment and ``.env``; the real environment wins."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from dotenv import dotenv_values

from common.errors import ExitCode, Failure

AMQP_URL = re.compile(r"(?i)(?P<scheme>amqps?)://(?P<authority>[^/?#]*)(?:/(?P<path>[^?#]*))?")
ENV_FILE = Path(__file__).resolve().parent.parent / ".env"
DATABASE_FILE = ENV_FILE.with_name(".database.sqlite")
AMQP_PORTS = (5672, 5671)
"""RabbitMQ's own port without TLS and with it; so below."""
OTHER_PORTS = {
    "RABBITMQ_STREAM_PORT": (5552, 5551),
    "RABBITMQ_MQTT_PORT": (1883, 8883),
    "RABBITMQ_STOMP_PORT": (61613, 61614),
    "RABBITMQ_WEB_STOMP_PORT": (15674, 15673),
    "RABBITMQ_WEB_MQTT_PORT": (15675, 15676),
}


class SettingsError(Failure):
    """A setting that cannot be used; the text names the variable."""

    exit_code = ExitCode.CONFIG


@dataclass(frozen=True)
class Address:
    """One broker's host name and port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Tls:
    """Paths of PEM files; without ``ca_file`` the system's authorities are trusted."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True)
class Settings:
    """Everything a script needs to know about its surroundings. The defaults are those of ``.env.example``.

    Times are in seconds; ``prefetch`` is in messages. The ports are those of the other protocols, on the same hosts
    as ``addresses`` and with TLS if ``tls`` is set. ``repr`` leaves the password out.
    """

    addresses: tuple[Address, ...] = (Address("localhost", 5672),)
    user: str = "guest"
    password: str = "guest"
    vhost: str = "/"
    tls: Tls | None = None
    stream_port: int = 5552
    mqtt_port: int = 1883
    stomp_port: int = 61613
    web_stomp_port: int = 15674
    web_mqtt_port: int = 15675
    management_url: str = "http://localhost:15672"
    heartbeat: int = 60
    prefetch: int = 100
    connect_timeout: float = 5.0
    reconnect_timeout: float = 300.0
    blocked_timeout: float = 300.0
    database_url: str = f"sqlite:///{DATABASE_FILE}"

    def __repr__(self) -> str:
        return f"Settings({self.url})"

    @property
    def url(self) -> str:
        """The address as an AMQP URL without the password, for messages and logs."""
        scheme = "amqps" if self.tls else "amqp"
        hosts = ",".join(map(str, self.addresses))
        return f"{scheme}://{quote(self.user, safe='')}@{hosts}/{quote(self.vhost, safe='')}"

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, env_file: Path | None = ENV_FILE) -> Settings:
        """Read ``environ`` (the process's own by default) over ``env_file`` (None: no file).

        Raises SettingsError, naming the variable and how to mend it.
        """
        values = dict(os.environ if environ is None else environ)
        if env_file is not None and env_file.is_file():
            for name, value in dotenv_values(env_file).items():
                if value is not None:
                    values.setdefault(name, value)
        return _Reader(values).settings()


def port_field(variable: str) -> str:
    """The field of Settings that a variable of OTHER_PORTS sets: ``stream_port`` for ``RABBITMQ_STREAM_PORT``."""
    return variable.removeprefix("RABBITMQ_").lower()


def beside(amqp: int, default: int, usual: int = AMQP_PORTS[0]) -> int:
    """The port of a protocol if nobody told: ``default``, moved as far as ``amqp`` is from its ``usual`` place.

    So a second broker on one machine needs no more than another RABBITMQ_PORT.
    """
    moved = default + amqp - usual
    return moved if 1024 < moved < 65536 else default


class _Reader:
    def __init__(self, values: Mapping[str, str]) -> None:
        # An empty value means "not set": that is how shells and Compose unset a variable.
        self.values = {name: value.strip() for name, value in values.items() if value.strip()}

    def settings(self) -> Settings:
        default = Settings()
        tls = self.boolean("RABBITMQ_TLS", False)
        port = self.port("RABBITMQ_PORT", 0)
        user = self.values.get("RABBITMQ_USER", default.user)
        password = self.values.get("RABBITMQ_PASSWORD", default.password)
        vhost = self.values.get("RABBITMQ_VHOST", default.vhost)
        variable, hosts = "RABBITMQ_HOST", self.values.get("RABBITMQ_HOST", "localhost")
        if "AMQP_URL" in self.values:
            variable = "AMQP_URL"
            # Not urlsplit: with several hosts, newer Pythons take an IPv6 address among them for a mistake.
            parts = AMQP_URL.match(self.values["AMQP_URL"])
            if parts is None:
                raise SettingsError("AMQP_URL must begin with amqp:// or amqps://, as in amqp://user:password@host/")
            tls, port = parts["scheme"].lower() == "amqps", 0
            credentials, _, hosts = parts["authority"].rpartition("@")
            hosts = hosts or "localhost"
            if credentials:
                name, _, secret = credentials.partition(":")
                user, password = unquote(name), unquote(secret)
            # RabbitMQ URI specification: no path means the default vhost; "/" alone would be the empty one,
            # which nobody has, so we read it as the default as well.
            vhost = unquote(parts["path"] or "/")
        port = port or AMQP_PORTS[tls]
        addresses = tuple(self.address(variable, item, port) for item in hosts.split(",") if item.strip())
        if not addresses:
            raise SettingsError(f"{variable} names no host; write for example {variable}=localhost")
        host = addresses[0].host
        management = f"http://{f'[{host}]' if ':' in host else host}:{self.port('RABBITMQ_MANAGEMENT_PORT', 15672)}"
        return Settings(
            addresses=addresses,
            user=user,
            password=password,
            vhost=vhost,
            tls=self.tls() if tls else None,
            **self.other_ports(addresses[0].port, tls),
            management_url=self.http_url("RABBITMQ_MANAGEMENT_URL", management),
            heartbeat=int(self.number("RABBITMQ_HEARTBEAT", default.heartbeat, 0, 65535, whole=True)),
            prefetch=int(self.number("RABBITMQ_PREFETCH", default.prefetch, 1, 2000, whole=True)),
            connect_timeout=self.number("RABBITMQ_CONNECT_TIMEOUT", default.connect_timeout, 0.1, 3600),
            reconnect_timeout=self.number("RABBITMQ_RECONNECT_TIMEOUT", default.reconnect_timeout, 0.1, 86400),
            blocked_timeout=self.number("RABBITMQ_BLOCKED_TIMEOUT", default.blocked_timeout, 0.1, 86400),
            database_url=self.values.get("DATABASE_URL", default.database_url),
        )

    def boolean(self, name: str, default: bool) -> bool:
        value = self.values.get(name, "").lower()
        if value in ("1", "true", "yes", "on"):
            return True
        if value in ("0", "false", "no", "off"):
            return False
        if value:
            raise SettingsError(f"{name} must be true or false, not {value!r}")
        return default

    def number(self, name: str, default: float, low: float, high: float, *, whole: bool = False) -> float:
        text = self.values.get(name)
        if text is None:
            return default
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            raise SettingsError(f"{name} must be {kind} from {low:g} to {high:g}, not {text!r}")
        return value

    def port(self, name: str, default: int) -> int:
        return int(self.number(name, default, 1, 65535, whole=True))

    def other_ports(self, amqp: int, tls: bool) -> dict[str, int]:
        """The fields of Settings that are the ports of other protocols."""
        usual = AMQP_PORTS[tls]
        return {
            port_field(variable): self.port(variable, beside(amqp, ports[tls], usual))
            for variable, ports in OTHER_PORTS.items()
        }

    def address(self, variable: str, text: str, port: int) -> Address:
        try:
            parts = urlsplit(f"//{text.strip()}")
            host, own = parts.hostname, parts.port
        except ValueError:
            host, own = None, None
        if not host or (own is not None and own == 0):
            raise SettingsError(f"{variable} has a host that cannot be read: {text!r}; write host or host:port")
        return Address(host, own or port)

    def http_url(self, name: str, default: str) -> str:
        value = self.values.get(name, default).rstrip("/")
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(f"{name} must be a URL such as http://localhost:15672")
        return value

    def file(self, name: str) -> Path | None:
        value = self.values.get(name)
        if value is None:
            return None
        path = Path(value).expanduser()
        if not path.is_file():
            raise SettingsError(f"{name} names a file that is not there: {path}")
        return path

    def tls(self) -> Tls:
        tls = Tls(self.file("RABBITMQ_CA_FILE"), self.file("RABBITMQ_CERT_FILE"), self.file("RABBITMQ_KEY_FILE"))
        if (tls.cert_file is None) != (tls.key_file is None):
            raise SettingsError("RABBITMQ_CERT_FILE and RABBITMQ_KEY_FILE belong together; set both or neither")
        return tls
