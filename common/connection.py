"""Connecting the examples: the library's ``connect``, and what this broker's version can do."""

from __future__ import annotations

import re

from common.errors import Unsupported
from robust_pika.connecting import Channel, Connection, connect

__all__ = ["Channel", "Connection", "connect", "require", "server_version"]


def server_version(connection: Connection) -> tuple[int, int, int]:
    """The broker's version, from the properties it sent when the connection was opened."""
    raw = connection.server_properties.get("version", "0.0.0")
    digits = [int(number) for number in re.findall(r"\d+", raw.decode() if isinstance(raw, bytes) else str(raw))]
    major, minor, patch = [*digits, 0, 0, 0][:3]
    return major, minor, patch


def require(connection: Connection, minimum: tuple[int, ...], what: str) -> None:
    """Raise Unsupported, with one line, if the broker is older than ``minimum``."""
    version = server_version(connection)
    if version < minimum:
        needed, found = (".".join(map(str, numbers)) for numbers in (minimum, version))
        raise Unsupported(f"{what} needs RabbitMQ {needed} or later; this broker is {found}")
