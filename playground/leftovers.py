"""What a server that was killed has left behind: processes, virtual hosts, users. Found by name, and removed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil
from tenacity import Retrying, retry_if_exception_type, stop_before_delay, wait_random_exponential

from common.config import Settings
from extras.management import Management, ManagementFailure, ManagementUnavailable
from playground.identity import MARK, Identity

# Deleting a virtual host with quorum queues takes the broker some seconds when it is busy.
_TIMEOUT = 60.0
_LIMIT = 10.0


def marked(variable: str, wanted: Callable[[str], bool]) -> Iterator[psutil.Process]:
    """The processes of this user whose environment has ``variable`` with a value that is ``wanted``; not this one."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            value = process.environ().get(variable) if process.pid != os.getpid() else None
            if value is not None and wanted(value):
                yield process


def kill(wanted: Callable[[str], bool]) -> int:
    """Kill the processes whose mark is ``wanted``, until none is left; return how many there were."""
    count = 0
    deadline = time.monotonic() + _LIMIT
    while found := list(marked(MARK, wanted)):
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        count += len(found)
        # One may have started another in the meantime: look again.
        _, alive = psutil.wait_procs(found, timeout=1.0)
        if alive and time.monotonic() > deadline:
            break
    return count


def sweep(settings: Settings) -> list[str]:
    """Remove what dead servers of this machine have left; return the names of the virtual hosts that went.

    RabbitMQ may start at the same time as the server does: as the scripts do, it waits for ``settings.connect_timeout``
    seconds. Raises a ManagementFailure if the management API cannot be reached or refuses.
    """
    kill(_dead)
    gone = []
    retrying = Retrying(
        stop=stop_before_delay(settings.connect_timeout),
        wait=wait_random_exponential(multiplier=0.1, max=5),
        retry=retry_if_exception_type(ManagementUnavailable),
        reraise=True,
    )
    with Management(settings, timeout=_TIMEOUT) as api:
        for vhost in retrying(api.vhosts):
            if _dead(vhost.name):
                _delete(vhost.name, api.delete_vhost, lambda: [item.name for item in api.vhosts()])
                gone.append(vhost.name)

        def users() -> list[str]:
            return [user["name"] for user in api.request("GET", "users")]

        for user in filter(_dead, users()):
            _delete(user, api.delete_user, users)
    return gone


def _delete(name: str, delete: Callable[[str], None], there: Callable[[], list[str]]) -> None:
    """Delete it. Raises the ManagementFailure if it is there still."""
    try:
        delete(name)
    except ManagementFailure:
        # Another server may sweep at the same time; RabbitMQ has several answers to the later one.
        if name in there():
            raise


def _dead(name: str) -> bool:
    identity = Identity.of(name)
    return identity is not None and identity.dead
