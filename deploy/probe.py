"""Whether this container has a connection to RabbitMQ open: the health check of consumers. Exit code 0: it has.

python -m deploy.probe
"""

from __future__ import annotations

import sys

import psutil

from common.config import Settings
from common.errors import ExitCode, Failure


def main() -> None:
    # Asking RabbitMQ itself would be a new connection at each look, and would say nothing about the consumer's own.
    # This runs every few seconds beside every consumer: it imports little.
    try:
        settings = Settings.load()
    except Failure as failure:
        sys.exit(f"error: {failure}")
    ports = {address.port for address in settings.addresses}
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_ESTABLISHED and connection.raddr and connection.raddr.port in ports:
            return
    sys.stderr.write(f"error: no connection to {settings.url} is open here\n")
    sys.exit(ExitCode.UNAVAILABLE)


if __name__ == "__main__":
    main()
