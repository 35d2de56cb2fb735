"""The ports of one broker, all on one loopback address."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace

from common.config import beside, whole_number

# Below the range that Linux (32768) and macOS (49152) hand out to outgoing connections: a port from there could be
# gone by the time a node is started again.
_FIRST, _LAST = 20_000, 32_000

ANYWHERE = "0.0.0.0"


@dataclass(frozen=True)
class Ports:
    """Port numbers; the defaults are RabbitMQ's own."""

    amqp: int = 5672
    management: int = 15672
    prometheus: int = 15692
    stream: int = 5552
    mqtt: int = 1883
    stomp: int = 61613
    web_stomp: int = 15674
    web_mqtt: int = 15675
    distribution: int = 25672
    epmd: int = 4369

    @classmethod
    def free(cls, address: str = "127.0.0.1") -> Ports:
        """Ports that nobody holds now, for a throw-away node."""
        names = [field.name for field in fields(cls)]
        return cls(**dict(zip(names, free_ports(address, len(names)), strict=True)))

    @classmethod
    def load(cls, amqp: int, management: int, environ: Mapping[str, str | None]) -> Ports:
        """The ports of ``environ`` (``RABBITMQ_MQTT_PORT``, …) beside these two.

        What it does not tell is RabbitMQ's own port, moved as far as ``amqp`` is from 5672. Raises SettingsError.
        """
        ports = {}
        for name, default in asdict(cls()).items():
            variable = f"RABBITMQ_{name.upper()}_PORT"
            text = (environ.get(variable) or "").strip()
            ports[name] = whole_number(variable, text, 1, 65535) if text else beside(amqp, default)
        return cls(**ports | {"amqp": amqp, "management": management})

    def taken(self, name: str, address: str) -> bool:
        """Whether a broker at ``address`` cannot have its port of this name.

        RabbitMQ does not start if the one for its nodes and tools is in use at any address, though it listens at one.
        """
        port: int = getattr(self, name)
        if is_taken(address, port) or (name == "distribution" and is_taken(ANYWHERE, port)):
            return True
        # macOS lets us have one address beside a program that listens at all of them.
        return is_listening(address, port)

    def settled(self, address: str, keep: Collection[str] = ()) -> Ports:
        """These ports, but each that is taken or used twice is replaced by a free one, unless ``keep`` names it."""
        moved = [name for name in self.in_use(address) if name not in keep]
        used = set(asdict(self).values())
        return replace(self, **dict(zip(moved, free_ports(address, len(moved), used), strict=True)))

    def in_use(self, *addresses: str) -> list[str]:
        """The names of those that a broker at the first address cannot have, or that another name has, too.

        A port at which somebody listens at one of the other addresses counts as well: a client of a host that has
        them all would not know whom it meets.
        """
        seen: set[int] = set()
        found = []
        for name, port in asdict(self).items():
            elsewhere = any(is_listening(address, port) for address in addresses[1:])
            if port in seen or elsewhere or self.taken(name, addresses[0]):
                found.append(name)
            seen.add(port)
        return found


def is_taken(address: str, port: int) -> bool:
    """Whether a server cannot listen at this port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do; without it, connections that have just been closed would count as somebody.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            # Linux lets two sockets bind with SO_REUSEADDR as long as only one listens.
            probe.listen(1)
        except OSError:
            return True
    return False


def is_listening(address: str, port: int, timeout: float = 2.0) -> bool:
    """Whether somebody accepts TCP connections there within ``timeout`` seconds."""
    try:
        with socket.create_connection((address, port), timeout):
            return True
    except OSError:
        return False


def free_ports(address: str, count: int, used: Collection[int] = ()) -> list[int]:
    """Different ports that nobody holds now, apart from ``used``."""
    found: set[int] = set()
    while len(found) < count:
        # At random, because two who look at the same time must not find the same. Anywhere, because each of them may
        # become the one for nodes and tools.
        port = random.randrange(_FIRST, _LAST)
        if port not in used and not is_taken(address, port) and not is_taken(ANYWHERE, port):
            found.add(port)
    return sorted(found)
