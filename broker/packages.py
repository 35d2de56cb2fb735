"""Installing the system's package rabbitmq-server, where that is allowed, without starting its service."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from common.console import say
from common.errors import ExitCode, Failure

TIMEOUT = 900


class InstallFailure(Failure):
    """The package could not be installed; the text says why."""

    exit_code = ExitCode.UNAVAILABLE


# Debian's packages start what they bring, now and at each boot, unless they are told not to: a service on port 5672
# that nobody asked for. policy-rc.d is Debian's way to tell them.
_APT = r"""
set -e
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  trap 'exit 130' INT TERM HUP
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod 755 "$policy"
fi
had_erlang=; if dpkg -s erlang-base >/dev/null 2>&1; then had_erlang=yes; fi
get() { apt-get -q -y -o DPkg::Lock::Timeout=120 install --no-install-recommends rabbitmq-server; }
get || { apt-get -q update && get; }
if command -v systemctl >/dev/null 2>&1; then
  systemctl disable rabbitmq-server.service || true
  [ "$had_erlang" ] || systemctl disable epmd.socket epmd.service || true
fi
"""


def install(log: Path) -> None:
    """Install rabbitmq-server with the system's package manager; its output goes to ``log``.

    Raises InstallFailure if there is no way that needs no question, or if it failed.
    """
    command = _command()
    if command is None:
        raise InstallFailure("no rabbitmq-server is installed, and installing it needs root or sudo without a password")
    say(f"installing the package rabbitmq-server with {command[0]} (its service stays off)")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        try:
            result = subprocess.run(
                command[1:],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InstallFailure(f"installing rabbitmq-server took more than {TIMEOUT} s; see {log}") from None
    if result.returncode:
        raise InstallFailure(f"rabbitmq-server could not be installed (no network?); see {log}")


def _command() -> list[str] | None:
    """The package manager's name and the command to run, or None."""
    root = os.geteuid() == 0
    if shutil.which("brew") and not root:
        # Homebrew refuses to run as root, and needs no password.
        return ["brew", "brew", "install", "rabbitmq"]
    if not root and not _may_sudo():
        return None
    prefix = [] if root else ["sudo", "-n"]
    if shutil.which("apt-get"):
        return ["apt", *prefix, "sh", "-c", _APT]
    if shutil.which("dnf"):
        return ["dnf", *prefix, "dnf", "-y", "install", "rabbitmq-server"]
    return None


def _may_sudo() -> bool:
    if shutil.which("sudo") is None:
        return False
    return subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
