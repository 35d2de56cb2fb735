"""Calling kubectl: what it says becomes an answer, or one readable line."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from common.errors import ExitCode, Failure

Json = dict[str, Any]

NAMESPACE = "rabbitmq-by-example"
MANAGER = "rabbitmq-by-example"
"""Whose fields they are, in Kubernetes' books: server-side apply tells what we set from what others set."""

TIMEOUT = 60.0


class KubernetesFailure(Failure):
    """Kubernetes is not there, or it did not do what it was asked for; ``complaint`` is all that a program said."""

    exit_code = ExitCode.UNAVAILABLE

    def __init__(self, text: str, complaint: str = "") -> None:
        super().__init__(text)
        self.complaint = complaint


class MissingTool(KubernetesFailure):
    """A program that is needed is not installed."""

    exit_code = ExitCode.CONFIG


class Kubectl:
    """kubectl, for one context. Every method raises KubernetesFailure with one line."""

    def __init__(self, context: str) -> None:
        self.context = context

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = TIMEOUT) -> str:
        """The output of ``kubectl`` with these arguments; ``timeout`` is in seconds."""
        return output_of(["kubectl", "--context", self.context, *arguments], stdin=stdin, timeout=timeout)

    def here(self, *arguments: str, stdin: str | None = None, timeout: float = TIMEOUT) -> str:
        """As ``run``, in the namespace of the course."""
        return self.run("--namespace", NAMESPACE, *arguments, stdin=stdin, timeout=timeout)

    def read(self, *arguments: str, stdin: str | None = None) -> Json | None:
        """What ``kubectl get`` says about one object (or a list of them); None if it is not there."""
        text = self.here("get", *arguments, "--ignore-not-found", "--output", "json", stdin=stdin)
        if not text.strip():
            return None
        try:
            found = json.loads(text)
        except ValueError:
            raise KubernetesFailure(f"kubectl get {arguments[0]} answered what is no JSON") from None
        return found if isinstance(found, dict) else None

    def items(self, *arguments: str, stdin: str | None = None) -> list[Json]:
        """The objects of such a list; one object is a list of one."""
        found = self.read(*arguments, stdin=stdin)
        if found is None:
            return []
        return list(found["items"]) if found.get("kind", "").endswith("List") else [found]

    def follow(self, *arguments: str, timeout: float) -> None:
        """Let ``kubectl`` print to our output, until it is done or ``timeout`` seconds are over. It may fail."""
        command = ["kubectl", "--context", self.context, "--namespace", NAMESPACE, *arguments]
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, timeout=timeout, check=False)
        except (subprocess.TimeoutExpired, OSError):
            return


def need(program: str, why: str) -> None:
    """Raise MissingTool, with ``why``, unless the program is installed."""
    if shutil.which(program) is None:
        raise MissingTool(f"{program} is not installed; {why}")


def output_of(command: Sequence[str], *, stdin: str | None = None, timeout: float = TIMEOUT) -> str:
    """The standard output of a program. Raises KubernetesFailure with the last line of its complaint."""
    what = _summary(command)
    try:
        result = subprocess.run(
            command,
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise KubernetesFailure(f"{what} took more than {timeout:g} s") from None
    except OSError as error:
        raise KubernetesFailure(f"{command[0]} cannot be run: {error.strerror}") from None
    if result.returncode:
        complaint = result.stderr or result.stdout
        lines = [line.strip() for line in complaint.splitlines() if line.strip()]
        raise KubernetesFailure(f"{what} failed: {lines[-1][:400] if lines else 'no reason given'}", complaint)
    return result.stdout


def _summary(command: Sequence[str]) -> str:
    """The first words of a command, without those options that all calls of kubectl have."""
    words = list(command)
    for option in ("--context", "--namespace"):
        if option in words:
            del words[words.index(option) : words.index(option) + 2]
    return " ".join(words[:4])
