"""Where RabbitMQ is, who we are there, and how long to wait."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote

from robust_pika.errors import InvalidSettings

AMQP_PORTS = (5672, 5671)
"""RabbitMQ's port without TLS and with it."""

_URL = re.compile(r"(?i)(?P<scheme>amqps?)://(?P<authority>[^/?#]*)(?P<rest>(?:/(?P<path>[^?#]*))?.*)", re.DOTALL)
_HOST = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<name>[^\s:/?#@\[\]\\%]{1,253}))(?::(?P<port>[0-9]{0,5}))?")

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
        """Read ``host`` or ``host:port``; ``port`` is the default. Raises InvalidSettings.

        Its text does not quote what was given: in a URL with a mistake, that may be the beginning of the password.
        """
        parts = _HOST.fullmatch(text.strip())
        own = int(parts["port"] or port) if parts else 0
        if parts is None or not 0 < own < 65536 or not _is_host(parts["ipv6"], parts["name"]):
            raise InvalidSettings(
                "has a host that cannot be read; write host or host:port, and an IPv6 address in brackets: [::1]"
            )
        return cls(parts["ipv6"] or parts["name"], own)


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
        if "@" in parts["rest"] or "#" in parts["rest"]:
            # Most likely a password that goes on behind the first of these characters.
            raise InvalidSettings(
                "has a / ? # or @ that ends a part of it too early; in the user, password and virtual host, "
                "write / as %2F, ? as %3F, # as %23 and @ as %40"
            )
        tls = parts["scheme"].lower() == "amqps"
        credentials, _, hosts = parts["authority"].rpartition("@")
        fields: dict[str, object] = {"tls": Tls() if tls else None}
        if credentials:
            user, _, password = credentials.partition(":")
            fields |= {"user": _decoded(user), "password": _decoded(password)}
        fields["addresses"] = addresses(hosts or "localhost", AMQP_PORTS[tls])
        # Without a path the virtual host is the default one. A path of "/" alone would be the virtual host with the
        # empty name, which does not exist, so it is read as the default, too.
        fields["vhost"] = _decoded(parts["path"] or "/")
        return cls(**{**more, **fields})  # type: ignore[arg-type]  # the names and types are those of the fields


def addresses(hosts: str, port: int) -> tuple[Address, ...]:
    """Read ``host:port,host2``. Raises InvalidSettings."""
    found = tuple(Address.parse(item, port) for item in hosts.split(",") if item.strip())
    if not found:
        raise InvalidSettings("names no host; write for example localhost")
    return found


def _is_host(ipv6: str | None, name: str | None) -> bool:
    """Whether a socket can be asked for it: Python looks names up in the encoding of internationalized ones."""
    try:
        if ipv6 is not None:
            ipaddress.IPv6Address(ipv6)
        else:
            (name or "").encode("idna")
    except ValueError:
        return False
    return name is None or name.isprintable()


def _decoded(text: str) -> str:
    """A part of a URL without its percent-encoding. Raises InvalidSettings."""
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        decoded = "\0"
    if "\0" in decoded:
        raise InvalidSettings("has percent-encoded bytes that are no text in UTF-8; write ä, for example, as %C3%A4")
    return decoded
