"""Runs pods of the manifests with Docker: not a Kubernetes, but the same images, users, files, variables and commands.

What a pod is told to be (its user, its read-only file system, its volumes, its environment) is what its container is
here; its names in the DNS are its aliases in a network of the test's own.
"""

from __future__ import annotations

import base64
import os
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any

from tests.kubernetes.conftest import Manifest, find

NAMESPACE = "rabbitmq-by-example"
UNITS = {"Mi": 2**20, "Gi": 2**30}


def docker(*arguments: str, limit: float = 120, check: bool = True) -> str:
    """Run ``docker``; its output, standard error included. Raises AssertionError unless it succeeds."""
    result = subprocess.run(
        ["docker", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
        check=False,
    )
    assert result.returncode == 0 or not check, f"docker {' '.join(arguments)}: {result.stdout}"
    return result.stdout


class Cluster:
    """Pods of ``objects`` with these secrets (name → key → text); used with ``with``, which leaves nothing behind."""

    def __init__(self, objects: list[Manifest], secrets: dict[str, dict[str, str]]) -> None:
        self._objects = objects
        self._secrets = secrets
        self._name = f"rabbitmq-by-example-test-{uuid.uuid4().hex[:8]}"
        self._folder = tempfile.TemporaryDirectory(prefix="pods.")
        self._containers: list[str] = []

    def __enter__(self) -> Cluster:
        docker("network", "create", self._name)
        return self

    def __exit__(self, *_error: object) -> None:
        for container in self._containers:
            docker("rm", "--force", "--volumes", container, check=False)
        docker("network", "rm", self._name, check=False)
        self._folder.cleanup()

    def start(
        self,
        pod: Manifest,
        name: str,
        *,
        aliases: tuple[str, ...] = (),
        publish: dict[int, int] | None = None,
        wait: bool = False,
    ) -> str:
        """Start a pod: its init containers, one by one, and then its one container, whose name is returned.

        ``publish`` is container port → port of this machine. With ``wait`` it is run to its end, and must succeed.
        """
        folder = Path(self._folder.name) / name
        for container in pod.get("initContainers", []):
            docker(*self._run(pod, container, folder, name, ["run", "--rm"]))
        [container] = pod["containers"]
        own = f"{self._name}-{name}"
        options = ["run", "--name", own, "--network", self._name, *([] if wait else ["--detach"])]
        for alias in aliases:
            options += ["--network-alias", alias]
        for inside, outside in (publish or {}).items():
            options += ["--publish", f"127.0.0.1:{outside}:{inside}"]
        self._containers.append(own)
        output = docker(*self._run(pod, container, folder, name, options), limit=600)
        return output if wait else own

    def _run(self, pod: Manifest, container: Manifest, folder: Path, name: str, options: list[str]) -> list[str]:
        security = pod["securityContext"]
        memory = quantity(container["resources"]["limits"]["memory"])
        options = [
            *options,
            "--hostname",
            name,
            "--user",
            f"{security['runAsUser']}:{security['runAsGroup']}",
            "--read-only",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            f"--memory={memory}",
            # Something else is process 1.
            *(["--init"] if pod.get("shareProcessNamespace") else []),
        ]
        for variable in container.get("env", []):
            options += ["--env", f"{variable['name']}={self._value(variable, container, name)}"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for mount in container["volumeMounts"]:
            source = self._volume(volumes.get(mount["name"]), folder / mount["name"], security.get("fsGroup"))
            options += ["--volume", f"{source}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}"]
        first, *rest = container["command"]
        return [*options, "--entrypoint", first, container["image"], *rest]

    def _value(self, variable: Manifest, container: Manifest, name: str) -> str:
        if "value" in variable:
            text = str(variable["value"])
            return text.replace("$(POD_NAME)", name).replace("$(POD_NAMESPACE)", NAMESPACE)
        match variable["valueFrom"]:
            case {"fieldRef": {"fieldPath": path}}:
                return {"metadata.name": name, "metadata.namespace": NAMESPACE}[path]
            case {"secretKeyRef": {"name": secret, "key": key}}:
                return self._secrets[secret][key]
            case {"resourceFieldRef": {"resource": "limits.memory"}}:
                return str(quantity(container["resources"]["limits"]["memory"]))
        raise AssertionError(variable)

    def _volume(self, volume: Manifest | None, folder: Path, group: int | None) -> Path:
        """The folder that stands for a volume, made and filled if it is not there; None is a claim's."""
        if folder.exists():
            return folder
        folder.mkdir(parents=True)
        match volume:
            case None | {"emptyDir": _}:
                os.chown(folder, 0, group or 0)
                # As Kubernetes makes them: an emptyDir is everybody's, a claim is its group's.
                folder.chmod(0o777 if volume or group is None else 0o2770)
            case {"secret": secret}:
                items = secret.get("items") or [
                    {"key": key, "path": key} for key in self._secrets[secret["secretName"]]
                ]
                for item in items:
                    file = folder / item["path"]
                    file.write_text(self._secrets[secret["secretName"]][item["key"]], encoding="ascii")
                    os.chown(file, 0, group or 0)
                    # With a group, Kubernetes lets it read whatever the mode says.
                    file.chmod(secret.get("defaultMode", 0o644) | (0o440 if group else 0))
            case {"projected": {"sources": sources}}:
                for source in sources:
                    self._project(source["configMap"], folder)
            case _:
                raise AssertionError(volume)
        return folder

    def _project(self, source: dict[str, Any], folder: Path) -> None:
        data = find(self._objects, "ConfigMap", source["name"])["data"]
        for item in source.get("items") or [{"key": key, "path": key} for key in data]:
            file = folder / item["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(data[item["key"]], encoding="utf-8")


def quantity(text: str) -> int:
    """Bytes of a quantity such as 512Mi."""
    return int(text[:-2]) * UNITS[text[-2:]]


def decoded(secret: Manifest) -> dict[str, str]:
    """The texts of a Secret."""
    texts = dict(secret.get("stringData", {}))
    return texts | {key: base64.b64decode(value).decode() for key, value in secret.get("data", {}).items()}
