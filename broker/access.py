"""Making a broker of ours accept the user, password and virtual host of the settings.

RabbitMQ creates them when its data folder is empty; this is for settings that were changed later.
"""

from __future__ import annotations

from typing import Protocol

from common.config import Settings


class Ctl(Protocol):
    """Runs ``rabbitmqctl`` on the broker and returns its output."""

    def __call__(self, *arguments: str, stdin: str = "") -> str: ...


def mend_access(ctl: Ctl, settings: Settings) -> None:
    """Give the user its password, the administrator tag, the virtual host, and all permissions in it."""
    user, vhost = settings.user, settings.vhost
    users = [line.split("\t")[0] for line in ctl("list_users", "--no-table-headers").splitlines()]
    # From standard input: the arguments of a process can be read by everybody on the machine.
    ctl("change_password" if user in users else "add_user", user, stdin=f"{settings.password}\n")
    ctl("set_user_tags", user, "administrator")
    if vhost not in ctl("list_vhosts", "--no-table-headers", "name").splitlines():
        ctl("add_vhost", vhost)
    ctl("set_permissions", "-p", vhost, user, ".*", ".*", ".*")
