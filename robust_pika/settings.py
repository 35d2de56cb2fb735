"""Where RabbitMQ is, who we are there, and how long to wait."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote, urlsplit

from robust_pika.errors import InvalidSettings

AMQP_PORTS = (5672, 5671)
"""RabbitMQ's port without TLS and with it."""

_URL = re.compile(r"(?i)(?P<scheme>amqps?)://(?P<authority>[^/?#]*)(?:/(?P<path>[^?#]*))?")

Own = TypeVar("Own", bound="ConnectionSettings")


@dataclass(frozen=True)
class Address:
    """A host name and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, port: int) -> Address:
        """Read ``host`` or ``host:port``; ``port`` is the default. Raises InvalidSettings."""
        try:
            parts = urlsplit(f"//{text.strip()}")
            host, own = parts.hostname, parts.port
        except ValueError:
            host, own = None, None
        if not host or own == 0:
            raise InvalidSettings(f"has a host that cannot be read: {text!r}; write host or host:port")
        return cls(host, own or port)


@dataclass(frozen=True)
class Tls:
    """Paths of PEM files; without ``ca_file`` the system's authorities are trusted."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True)
class ConnectionSettings:
    """What is needed to connect. All times are in seconds; ``prefetch`` is a number of messages.

    ``addresses`` are tried in turn. ``heartbeat`` 0 switches heartbeats off. A first connection is tried for
    ``connect_timeout``, a lost one for ``reconnect_timeout``; ``blocked_timeout`` bounds the wait for a broker that is
    short of memory or disk. ``repr`` leaves the password out.
    """

    addresses: tuple[Address, ...] = (Address("localhost", 5672),)
    user: str = "guest"
    password: str = "guest"
    vhost: str = "/"
    tls: Tls | None = None
    heartbeat: int = 60
    prefetch: int = 100
    connect_timeout: float = 5.0
    reconnect_timeout: float = 300.0
    blocked_timeout: float = 300.0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url})"

    @property
    def url(self) -> str:
        """The address as an AMQP URL without the password, for messages and logs."""
        scheme = "amqps" if self.tls else "amqp"
        hosts = ",".join(map(str, self.addresses))
        return f"{scheme}://{quote(self.user, safe='')}@{hosts}/{quote(self.vhost, safe='')}"

    @property
    def where(self) -> str:
        """The addresses in one text."""
        return ", ".join(map(str, self.addresses))

    @classmethod
    def from_url(cls: type[Own], url: str, **more: object) -> Own:
        """Read ``amqp://user:password@host:port,host2/vhost``; ``amqps`` switches TLS on.

        ``more`` are fields that the URL does not set.
        Raises InvalidSettings (https://www.rabbitmq.com/docs/uri-spec).
        """
        # Not urlsplit: with several hosts, newer Pythons refuse an IPv6 address among them.
        parts = _URL.match(url)
        if parts is None:
            raise InvalidSettings("must begin with amqp:// or amqps://, as in amqp://user:password@host/")
        tls = parts["scheme"].lower() == "amqps"
        credentials, _, hosts = parts["authority"].rpartition("@")
        fields: dict[str, object] = {"tls": Tls() if tls else None}
        if credentials:
            user, _, password = credentials.partition(":")
            fields |= {"user": unquote(user), "password": unquote(password)}
        fields["addresses"] = addresses(hosts or "localhost", AMQP_PORTS[tls])
        # Without a path the virtual host is the default one. A path of "/" alone would be the virtual host with the
        # empty name, which does not exist, so it is read as the default, too.
        fields["vhost"] = unquote(parts["path"] or "/")
        return cls(**{**more, **fields})  # type: ignore[arg-type]  # the names and types are those of the fields


def addresses(hosts: str, port: int) -> tuple[Address, ...]:
    """Read ``host:port,host2``. Raises InvalidSettings."""
    found = tuple(Address.parse(item, port) for item in hosts.split(",") if item.strip())
    if not found:
        raise InvalidSettings("names no host; write for example localhost")
    return found
