"""The conditions of a run: the machine, the versions, the load."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

PACKAGES = ("pika", "aio-pika", "kombu", "celery", "dramatiq", "rstream")


def machine() -> dict[str, str]:
    """Processor, memory, system, and how busy it all was when this was called."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "processor": f"{model or platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load average before": ", ".join(f"{load:.1f}" for load in psutil.getloadavg()),
    }


def versions(broker: str) -> dict[str, str]:
    """The broker, Python, and the libraries that are installed."""
    found = {"RabbitMQ": broker, "Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
