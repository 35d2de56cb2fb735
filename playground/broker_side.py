"""What a session has on the broker: a virtual host of its own, and a user for each terminal.

The firehose tells of each message which *user* published or got it. A user for each terminal is how the page knows,
at once and for certain, which process that was: a connection is known to the management API only after some seconds,
and its port is not that of the process if the broker runs in a container.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import replace

from common.config import Settings
from common.errors import Failure, RobustPikaError, described
from extras.management import Management, NotFound
from robust_pika.explaining import explain

# Deleting a virtual host with quorum queues takes the broker some seconds when it is busy.
_TIMEOUT = 60.0


def what_is_wrong(error: BaseException, settings: Settings) -> str:
    """The line that a reader sees, whoever raised it: the management API, the library or pika."""
    known = error if isinstance(error, (Failure, RobustPikaError)) else explain(error, settings)
    return described(known)[0]


class BrokerSide:
    """The virtual host ``name`` and the users whose names begin with it. Its methods wait for the broker.

    All of them raise a ManagementFailure if the management API cannot be reached or refuses.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings = replace(settings, vhost=name)
        self.api = Management(self.settings, timeout=_TIMEOUT)
        self._users: dict[str, Settings] = {}
        self._tags = ""

    @property
    def vhost(self) -> str:
        """The name of the virtual host."""
        return self.settings.vhost

    def open(self) -> None:
        """Make the virtual host."""
        tags = self.api.request("GET", "whoami").get("tags", "")
        self._tags = tags if isinstance(tags, str) else ",".join(tags)
        self.api.create_vhost(self.vhost, "a session of the playground; it is deleted when that ends")
        if self.api.user != self.settings.user:
            self.api.set_permissions(self.settings.user, self.vhost)

    def settings_for(self, terminal: str) -> Settings:
        """Settings with the terminal's own user, who may do in this virtual host what the configured one may."""
        if terminal not in self._users:
            user, password = f"{self.vhost}.{terminal}", secrets.token_urlsafe(18)
            self.api.create_user(user, password, self._tags)
            self.api.set_permissions(user, self.vhost)
            self._users[terminal] = replace(self.settings, user=user, password=password)
        return self._users[terminal]

    def terminal_of(self, user: str) -> str | None:
        """The terminal whose user this is."""
        prefix = f"{self.vhost}."
        return user.removeprefix(prefix) if user.startswith(prefix) else None

    def close(self) -> None:
        """Delete all of it. What cannot be deleted now, the next server's start finds."""
        try:
            for own in self._users.values():
                with suppress(NotFound):
                    self.api.delete_user(own.user)
            with suppress(NotFound):
                self.api.delete_vhost(self.vhost)
        finally:
            self.api.close()

    def discard(self) -> Failure | None:
        """close(), for those who can do nothing about a failure: it is returned."""
        try:
            self.close()
        except Failure as failure:
            return failure
        return None
