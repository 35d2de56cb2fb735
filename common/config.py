"""Settings from the environment and ``.env``; the real environment wins."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dotenv import dotenv_values

from common.errors import ExitCode, Failure
from robust_pika.errors import InvalidSettings
from robust_pika.settings import AMQP_PORTS, Address, ConnectionSettings, Tls, addresses

__all__ = ["AMQP_PORTS", "OTHER_PORTS", "Address", "Settings", "SettingsError", "Tls", "beside", "port_field"]

ENV_FILE = Path(__file__).resolve().parent.parent / ".env"
DATABASE_FILE = ENV_FILE.with_name(".database.sqlite")
OTHER_PORTS = {
    "RABBITMQ_STREAM_PORT": (5552, 5551),
    "RABBITMQ_MQTT_PORT": (1883, 8883),
    "RABBITMQ_STOMP_PORT": (61613, 61614),
    "RABBITMQ_WEB_STOMP_PORT": (15674, 15673),
    "RABBITMQ_WEB_MQTT_PORT": (15675, 15676),
}
"""RabbitMQ's ports for other protocols, without TLS and with it."""


class SettingsError(Failure):
    """A setting that cannot be used; the text names the variable."""

    exit_code = ExitCode.CONFIG


@dataclass(frozen=True, repr=False)
class Settings(ConnectionSettings):
    """Everything that a script needs to know of its environment. The defaults are those of ``.env.example``.

    The ports are those of the other protocols, on the same hosts as ``addresses`` and with TLS if ``tls`` is set.
    """

    stream_port: int = 5552
    mqtt_port: int = 1883
    stomp_port: int = 61613
    web_stomp_port: int = 15674
    web_mqtt_port: int = 15675
    management_url: str = "http://localhost:15672"
    database_url: str = f"sqlite:///{DATABASE_FILE}"

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
        target = self.by_url(default) if "AMQP_URL" in self.values else self.by_variables(default)
        first, tls = target["addresses"][0], target["tls"] is not None
        if tls:
            target["tls"] = self.tls()
        host = f"[{first.host}]" if ":" in first.host else first.host
        target |= self.other_ports(first.port, tls)
        management = f"http://{host}:{self.port('RABBITMQ_MANAGEMENT_PORT', 15672)}"
        return Settings(
            **target,
            management_url=self.http_url("RABBITMQ_MANAGEMENT_URL", management),
            heartbeat=int(self.number("RABBITMQ_HEARTBEAT", default.heartbeat, 0, 65535, whole=True)),
            prefetch=int(self.number("RABBITMQ_PREFETCH", default.prefetch, 1, 2000, whole=True)),
            connect_timeout=self.number("RABBITMQ_CONNECT_TIMEOUT", default.connect_timeout, 0.1, 3600),
            reconnect_timeout=self.number("RABBITMQ_RECONNECT_TIMEOUT", default.reconnect_timeout, 0.1, 86400),
            blocked_timeout=self.number("RABBITMQ_BLOCKED_TIMEOUT", default.blocked_timeout, 0.1, 86400),
            database_url=self.values.get("DATABASE_URL", default.database_url),
        )

    def by_url(self, default: Settings) -> dict[str, Any]:
        """Where RabbitMQ is and who we are there, from AMQP_URL; the user may come from its own variables."""
        try:
            found = ConnectionSettings.from_url(self.values["AMQP_URL"], **self.credentials(default))
        except InvalidSettings as error:
            raise SettingsError(f"AMQP_URL {error}") from None
        return {name: getattr(found, name) for name in ("addresses", "user", "password", "vhost", "tls")}

    def by_variables(self, default: Settings) -> dict[str, Any]:
        """The same from RABBITMQ_HOST and its companions."""
        tls = self.boolean("RABBITMQ_TLS", False)
        try:
            found = addresses(
                self.values.get("RABBITMQ_HOST", "localhost"), self.port("RABBITMQ_PORT", AMQP_PORTS[tls])
            )
        except InvalidSettings as error:
            raise SettingsError(f"RABBITMQ_HOST {error}") from None
        vhost = self.values.get("RABBITMQ_VHOST", default.vhost)
        return {"addresses": found, "tls": Tls() if tls else None, "vhost": vhost, **self.credentials(default)}

    def credentials(self, default: Settings) -> dict[str, str]:
        return {
            "user": self.values.get("RABBITMQ_USER", default.user),
            "password": self.values.get("RABBITMQ_PASSWORD", default.password),
        }

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
