"""The image of the course: built here, and brought to where the cluster finds it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from common.console import say, warn
from deploy.kubectl import KubernetesFailure, need, output_of

ROOT = Path(__file__).resolve().parent.parent
NAME = "rabbitmq-by-example"
DEFAULT = f"{NAME}:dev"
BUILD_TIMEOUT = 1200.0


def bring(context: str, wanted: str | None) -> str:
    """Build the image and make it known to the cluster of ``context``; its name there.

    ``wanted`` is a name in a registry: it is pushed there. Without it, the image is put on the machines of a local
    cluster, under a name that changes with its content, so that a changed script is a new image. Where neither can be
    done, the name is the default one, and a warning says what the machines must have. Raises KubernetesFailure.
    """
    if not _has_docker():
        name = wanted or DEFAULT
        warn(f"no Docker here, so nothing is built: the cluster must find the image {name} by itself")
        return name
    load = _loader(context)
    if wanted is None and load is None:
        warn(
            f"images of this machine cannot be put into {context!r}: its machines must have {DEFAULT}, "
            "or name one in a registry: make k8s IMAGE=registry.example.com/rabbitmq-by-example:1"
        )
        return DEFAULT
    say("building the image")
    output_of(["docker", "build", "--quiet", "--tag", wanted or DEFAULT, str(ROOT)], timeout=BUILD_TIMEOUT)
    if wanted:
        say(f"pushing {wanted}")
        output_of(["docker", "push", "--quiet", wanted], timeout=BUILD_TIMEOUT)
        return wanted
    identity = output_of(["docker", "image", "inspect", "--format", "{{.Id}}", DEFAULT]).strip()
    name = f"{NAME}:{identity.removeprefix('sha256:')[:12]}"
    output_of(["docker", "tag", DEFAULT, name])
    if load:
        say(f"loading {name} into the cluster")
        output_of([*load, name], timeout=BUILD_TIMEOUT)
    return name


def _has_docker() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        result = subprocess.run(
            ["docker", "info"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
        )
    except (subprocess.TimeoutExpired, OSError):
        return False
    return result.returncode == 0


def _loader(context: str) -> list[str] | None:
    """The command that puts an image into a local cluster; empty if it sees Docker's images anyway; None: no way."""
    kind, _, cluster = context.partition("-")
    match kind:
        case "kind":
            need("kind", "it made this cluster, and only it can put an image there")
            return ["kind", "load", "docker-image", "--name", cluster]
        case "k3d":
            need("k3d", "it made this cluster, and only it can put an image there")
            return ["k3d", "image", "import", "--cluster", cluster]
        case "minikube":
            need("minikube", "it made this cluster, and only it can put an image there")
            return ["minikube", "image", "load"]
    return [] if context in ("docker-desktop", "docker-for-desktop", "orbstack") else None


def parts(image: str) -> tuple[str, str]:
    """Name and tag of an image. Raises KubernetesFailure if it has no tag: "latest" would be another one tomorrow."""
    name, _, tag = image.rpartition(":")
    if not name or "/" in tag or tag == "latest":
        raise KubernetesFailure(
            f"the image {image!r} needs a tag that says which one it is, such as {image.split(':', maxsplit=1)[0]}:1"
        )
    return name, tag
