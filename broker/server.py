"""The RabbitMQ that is installed on this machine: where its programs are, its version, its plugins."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

OLDEST = (3, 10)
ENABLED_PLUGINS = Path(__file__).with_name("enabled_plugins")

# Debian's and RPM's /usr/sbin/rabbitmq-server switches to the user rabbitmq and its data; the one behind it does not.
_FOLDERS = (
    "/usr/lib/rabbitmq/bin",
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
    "/home/linuxbrew/.linuxbrew/opt/rabbitmq/sbin",
)


@dataclass(frozen=True)
class Server:
    """An installed rabbitmq-server: the folder of its programs, its version, the plugins it can enable."""

    folder: Path
    version: str
    plugins: frozenset[str]

    def program(self, name: str) -> str:
        """The path of ``rabbitmqctl``, ``rabbitmq-diagnostics``, …"""
        return str(self.folder / name)

    def usable(self) -> bool:
        """Whether it is new enough for this repository."""
        return tuple(int(number) for number in self.version.split(".")[:2]) >= OLDEST


def find_server() -> Server | None:
    """The machine's newest rabbitmq-server, or None."""
    folders = [Path(folder) for folder in _FOLDERS]
    if path := shutil.which("rabbitmq-server"):
        folders.append(Path(path).resolve().parent)
    for folder in folders:
        home = folder.parent
        for plugins in [*sorted(home.glob("lib/rabbitmq_server-*/plugins"), reverse=True), home / "plugins"]:
            # A plugin is a folder or a .ez archive, named like rabbit-3.10.8.
            names = {match[1]: match[2] for entry in _list(plugins) if (match := _PLUGIN.match(entry))}
            if "rabbit" in names and (folder / "rabbitmq-server").is_file():
                return Server(folder, names["rabbit"], frozenset(names))
    return None


def shared_plugins() -> list[str]:
    """The plugins of the shared ``enabled_plugins``, in its order."""
    return re.findall(r"\w+", ENABLED_PLUGINS.read_text(encoding="utf-8"))


_PLUGIN = re.compile(r"([a-z][a-z0-9_]*)-(\d+(?:\.\d+)+)")


def _list(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
