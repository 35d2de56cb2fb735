"""Whether this container has a connection to RabbitMQ open: the health check of workers. Exit code 0: it has.

python -m deploy.probe
"""

from __future__ import annotations

import psutil

from common import console
from common.config import Settings
from common.connection import BrokerUnavailable


def main() -> None:
    console.parser(__doc__).parse_args()
    settings = Settings.load()
    ports = {address.port for address in settings.addresses}
    # Asking RabbitMQ itself would be a new connection at each look, and would say nothing about the worker's own.
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_ESTABLISHED and connection.raddr and connection.raddr.port in ports:
            return
    raise BrokerUnavailable(f"no connection to {settings.url} is open here")


if __name__ == "__main__":
    console.run(main)
