"""The health check of a consumer in a container: exit code 0 if a connection to another machine is open.

python -m deploy.probe
"""

from __future__ import annotations

import ipaddress
import sys

import psutil


def main() -> None:
    # A consumer here talks to RabbitMQ and to nothing else. A connection of our own to RabbitMQ would not show whether
    # the consumer still has its own. This runs every few seconds beside every consumer, so it imports neither `common`
    # nor pika: they would take twice as long as all the rest.
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_ESTABLISHED and connection.raddr and is_elsewhere(connection.raddr.ip):
            return
    sys.stderr.write("error: no connection to RabbitMQ is open here\n")
    sys.exit(69)  # ExitCode.UNAVAILABLE


def is_elsewhere(address: str) -> bool:
    """Whether this is an address of another machine."""
    return not ipaddress.ip_address(address.partition("%")[0]).is_loopback


if __name__ == "__main__":
    main()
