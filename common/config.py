"""Settings from the environment and ``.env``; the real environment wins."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.environment import SettingsError, as_path, variables
from robust_pika.errors import InvalidSettings
from robust_pika.settings import AMQP_PORTS, Address, ConnectionSettings, Tls, addresses

__all__ = [
    "AMQP_PORTS",
    "OTHER_PORTS",
    "Address",
    "Settings",
    "SettingsError",
    "Tls",
    "beside",
    "port_field",
    "whole_number",
]

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

MOST_VHOST_BYTES = 255
"""AMQP's limit for a name."""

_HTTP_URL = re.compile(r"(https?://)([^\s/?#@]*@)?([^\s/?#@]+)((?:/[^\s?#@]*)?)", re.IGNORECASE)


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
        return _Reader(variables(os.environ if environ is None else environ, env_file)).settings()


def port_field(variable: str) -> str:
    """The field of Settings that a variable of OTHER_PORTS sets: ``stream_port`` for ``RABBITMQ_STREAM_PORT``."""
    return variable.removeprefix("RABBITMQ_").lower()


def beside(amqp: int, default: int, usual: int = AMQP_PORTS[0]) -> int:
    """The port of a protocol if nobody told: ``default``, moved as far as ``amqp`` is from its ``usual`` place.

    So a second broker on one machine needs no more than another RABBITMQ_PORT. After 65535 comes 1025.
    """
    moved = default + amqp - usual
    return moved if 1024 < moved < 65536 else 1025 + (moved - 1025) % 64511


def whole_number(name: str, text: str, low: int, high: int) -> int:
    """The value of a variable that is a whole number. Raises SettingsError."""
    # int() would also take 5_672 and the digits of other scripts, which Docker Compose does not.
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise SettingsError(f"{name} must be a whole number from {low} to {high}, not {text[:40]!r}")
    return int(text)


class _Reader:
    def __init__(self, values: Mapping[str, str]) -> None:
        # An empty value means "not set": that is how shells and Compose unset a variable.
        self.raw = {name: value for name, value in values.items() if value}
        self.values = {name: value.strip() for name, value in values.items() if value.strip()}

    def settings(self) -> Settings:
        default = Settings()
        target = self.by_url(default) if "AMQP_URL" in self.values else self.by_variables(default)
        first, tls = target["addresses"][0], target["tls"] is not None
        if len(target["vhost"].encode()) > MOST_VHOST_BYTES:
            raise SettingsError(f"the virtual host's name has more than {MOST_VHOST_BYTES} bytes in UTF-8")
        if tls:
            target["tls"] = self.tls()
        host = f"[{first.host}]" if ":" in first.host else first.host
        target |= self.other_ports(first.port, tls)
        management = f"http://{host}:{self.port('RABBITMQ_MANAGEMENT_PORT', 15672)}"
        return Settings(
            **target,
            management_url=self.http_url("RABBITMQ_MANAGEMENT_URL", management),
            heartbeat=self.whole("RABBITMQ_HEARTBEAT", default.heartbeat, 0, 65535),
            prefetch=self.whole("RABBITMQ_PREFETCH", default.prefetch, 1, 2000),
            connect_timeout=self.number("RABBITMQ_CONNECT_TIMEOUT", default.connect_timeout, 0.1, 3600),
            reconnect_timeout=self.number("RABBITMQ_RECONNECT_TIMEOUT", default.reconnect_timeout, 0.1, 86400),
            blocked_timeout=self.number("RABBITMQ_BLOCKED_TIMEOUT", default.blocked_timeout, 0.1, 86400),
            database_url=self.database_url(default.database_url),
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
        vhost = self.raw.get("RABBITMQ_VHOST", default.vhost)
        return {"addresses": found, "tls": Tls() if tls else None, "vhost": vhost, **self.credentials(default)}

    def credentials(self, default: Settings) -> dict[str, str]:
        return {
            "user": self.raw.get("RABBITMQ_USER", default.user),
            "password": self.raw.get("RABBITMQ_PASSWORD", default.password),
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

    def number(self, name: str, default: float, low: float, high: float) -> float:
        text = self.values.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise SettingsError(f"{name} must be a number from {low:g} to {high:g}, not {text[:40]!r}")
        return value

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        text = self.values.get(name)
        return default if text is None else whole_number(name, text, low, high)

    def port(self, name: str, default: int) -> int:
        return self.whole(name, default, 1, 65535)

    def other_ports(self, amqp: int, tls: bool) -> dict[str, int]:
        """The fields of Settings that are the ports of other protocols."""
        usual = AMQP_PORTS[tls]
        return {
            port_field(variable): self.port(variable, beside(amqp, ports[tls], usual))
            for variable, ports in OTHER_PORTS.items()
        }

    def http_url(self, name: str, default: str) -> str:
        parts = _HTTP_URL.fullmatch(self.values.get(name, default))
        try:
            if parts is None:
                raise InvalidSettings
            scheme, credentials, place, path = parts.groups(default="")
            Address.parse(place, 80)
        except InvalidSettings:
            raise SettingsError(
                f"{name} must be a URL such as http://localhost:15672; "
                "in a user and a password, write / as %2F, ? as %3F, # as %23 and @ as %40"
            ) from None
        if not place.isascii():
            # The form that every HTTP library takes.
            host, colon, port = place.partition(":")
            place = f"{host.encode('idna').decode()}{colon}{port}"
        return f"{scheme.lower()}{credentials}{place}{path}".rstrip("/")

    def database_url(self, default: str) -> str:
        value = self.values.get("DATABASE_URL", default)
        if not value.startswith("sqlite") and value.partition("?")[0].count("@") > 1:
            # The first one would end the password, and the rest of it would be shown as the host.
            raise SettingsError("DATABASE_URL has more than one @; in the user and password, write it as %40")
        return value

    def file(self, name: str) -> Path | None:
        value = self.values.get(name)
        if value is None:
            return None
        try:
            path = as_path(value).expanduser()
            if path.is_file():
                path.open("rb").close()
                return path
            why = "no such file"
        except OSError as error:
            why = str(error.strerror)
        except RuntimeError:
            why = "no such user"
        raise SettingsError(f"{name} names a file that cannot be read: {value[:200]} ({why})")

    def tls(self) -> Tls:
        tls = Tls(self.file("RABBITMQ_CA_FILE"), self.file("RABBITMQ_CERT_FILE"), self.file("RABBITMQ_KEY_FILE"))
        if (tls.cert_file is None) != (tls.key_file is None):
            raise SettingsError("RABBITMQ_CERT_FILE and RABBITMQ_KEY_FILE belong together; set both or neither")
        return tls
