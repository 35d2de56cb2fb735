"""A virtual host of its own for each run, so that it neither sees nor disturbs the queues of anybody else.

So with the database: it is a new file, unless DATABASE_URL names one.
"""

from __future__ import annotations

import os
import re
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from common.config import OTHER_PORTS, Settings, port_field
from extras.management import Management, NoVhost

# Deleting one with quorum queues takes the broker some seconds when it is busy.
_TIMEOUT = 60.0


@contextmanager
def fresh_vhost(settings: Settings, label: str) -> Iterator[Settings]:
    """``settings`` with a new virtual host, whose name begins with ``label``; it is deleted afterwards.

    So is a new SQLite file, if the database is the default one.

    Raises a ManagementFailure if the management API cannot be reached or refuses.
    """
    name = f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', label)[:80]}.{uuid.uuid4().hex[:8]}"
    own = replace(settings, vhost=name)
    with (
        tempfile.TemporaryDirectory(prefix="database.", ignore_cleanup_errors=True) as folder,
        Management(settings, timeout=_TIMEOUT) as api,
    ):
        if settings.database_url == Settings().database_url:
            own = replace(own, database_url=f"sqlite:///{Path(folder) / 'database.sqlite'}")
        try:
            api.create_vhost(name, "made for one run, deleted after it")
            if api.user != settings.user:
                api.set_permissions(settings.user, name)
            yield own
        finally:
            with suppress(NoVhost):
                api.delete_vhost(name)


def environment(settings: Settings, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """``environ`` (this process's by default) for a child process that is to use ``settings`` and nothing else.

    Every other variable of RabbitMQ's is left out, so that the child has the defaults.
    """
    inherited = os.environ if environ is None else environ
    values = {name: value for name, value in inherited.items() if not name.startswith(("RABBITMQ_", "AMQP_URL"))}
    hosts = ",".join(map(str, settings.addresses))
    credentials = f"{quote(settings.user, safe='')}:{quote(settings.password, safe='')}"
    scheme = "amqps" if settings.tls else "amqp"
    values["AMQP_URL"] = f"{scheme}://{credentials}@{hosts}/{quote(settings.vhost, safe='')}"
    values.update({variable: str(getattr(settings, port_field(variable))) for variable in OTHER_PORTS})
    values["RABBITMQ_MANAGEMENT_URL"] = settings.management_url
    values["DATABASE_URL"] = settings.database_url
    if settings.tls:
        files = {
            "RABBITMQ_CA_FILE": settings.tls.ca_file,
            "RABBITMQ_CERT_FILE": settings.tls.cert_file,
            "RABBITMQ_KEY_FILE": settings.tls.key_file,
        }
        values.update({name: str(path) for name, path in files.items() if path})
    return values
