"""Which cluster is meant, whether it may be touched, and what it has."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

from common.console import say
from common.errors import ExitCode
from deploy.kubectl import Json, Kubectl, KubernetesFailure, MissingTool, need, output_of

KIND_CLUSTER = "rabbitmq-by-example"
LOCAL = re.compile(
    r"kind-.*|minikube|docker-desktop|docker-for-desktop|k3d-.*|rancher-desktop|colima.*|orbstack|microk8s"
)
"""Contexts of clusters that live on the reader's own machine, as the tools that make them call them."""

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


class Refused(KubernetesFailure):
    """The cluster is not to be touched: nobody has agreed."""

    exit_code = ExitCode.USAGE


def find_cluster(*, make: bool) -> Kubectl:
    """The cluster that kubectl points at. With ``make``, kind makes one if there is none. Raises KubernetesFailure."""
    need("kubectl", "see https://kubernetes.io/docs/tasks/tools/")
    try:
        context = output_of(["kubectl", "config", "current-context"]).strip()
    except KubernetesFailure:
        context = ""
    if not context:
        context = _kind() if make else ""
    if not context:
        own = ", or install kind (https://kind.sigs.k8s.io), and one is made for you" if make else ""
        raise KubernetesFailure(f"kubectl knows no cluster; choose one with: kubectl config use-context NAME{own}")
    kubectl = Kubectl(context)
    try:
        kubectl.run("get", "--raw", "/readyz", "--request-timeout=15s")
    except KubernetesFailure as failure:
        raise KubernetesFailure(
            f"the cluster {context!r} does not answer ({_reason(failure)}); start it, "
            "or choose another: kubectl config use-context NAME"
        ) from None
    return kubectl


def is_local(context: str) -> bool:
    """Whether a cluster of this name is one on the reader's own machine."""
    return LOCAL.fullmatch(context) is not None


def agree(context: str, question: str, *, yes: bool) -> None:
    """Name the cluster, and ask the question about it, unless it is local or ``yes``. Raises Refused."""
    say(f"the cluster is {context!r}")
    if is_local(context) or yes:
        return
    if not ask(f"{context!r} is not on this machine. {question}"):
        raise Refused(f"nothing was done to the cluster {context!r}; YES=1 agrees beforehand")


def ask(question: str) -> bool:
    """Whether the reader says yes. Nobody at the terminal says no."""
    if not sys.stdin or not sys.stdin.isatty():
        return False
    sys.stdout.write(f"{question} [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def machines(kubectl: Kubectl) -> tuple[int, int]:
    """How many machines the cluster has, and how many of them take any pod."""
    nodes = kubectl.items("nodes")
    return len(nodes), sum(1 for node in nodes if not _closed(node))


def check_storage(kubectl: Kubectl, name: str | None) -> None:
    """Raise KubernetesFailure unless volumes can be had: of the class ``name``, or of a default one."""
    classes = {
        item["metadata"]["name"]: item["metadata"].get("annotations", {}) for item in kubectl.items("storageclass")
    }
    known = ", ".join(sorted(classes)) or "none at all"
    if name is not None:
        if name not in classes:
            raise KubernetesFailure(f"the cluster has no storage class {name!r}; it has: {known}")
    elif not any(notes.get(DEFAULT_CLASS) == "true" for notes in classes.values()):
        raise KubernetesFailure(
            "the cluster has no default storage class, so RabbitMQ would get no volumes; "
            f"name one with STORAGE_CLASS=NAME (it has: {known})"
        )


def remove_kind(context: str) -> bool:
    """Delete the cluster if it is the one that we made; whether it was."""
    if context != f"kind-{KIND_CLUSTER}" or shutil.which("kind") is None:
        return False
    output_of(["kind", "delete", "cluster", "--name", KIND_CLUSTER], timeout=180)
    return True


def _kind() -> str:
    """The context of a cluster that kind has made for us, now or before; empty without kind."""
    if shutil.which("kind") is None:
        return ""
    if shutil.which("docker") is None:
        raise MissingTool("kind is installed, but it needs Docker to make a cluster")
    if KIND_CLUSTER in output_of(["kind", "get", "clusters"]).split():
        output_of(["kind", "export", "kubeconfig", "--name", KIND_CLUSTER])
    else:
        say("kubectl knows no cluster: making one with kind (some minutes the first time)")
        command = ["kind", "create", "cluster", "--name", KIND_CLUSTER, "--wait", "180s"]
        try:
            output_of(command, timeout=600)
        except KubernetesFailure:
            # Half a cluster would be in the way of the next try.
            subprocess.run(
                ["kind", "delete", "cluster", "--name", KIND_CLUSTER], capture_output=True, timeout=180, check=False
            )
            raise
    return f"kind-{KIND_CLUSTER}"


def _closed(node: Json) -> bool:
    spec = node.get("spec", {})
    taints = [taint.get("effect") for taint in spec.get("taints", [])]
    return bool(spec.get("unschedulable")) or "NoSchedule" in taints or "NoExecute" in taints


def _reason(failure: Exception) -> str:
    return str(failure).partition("failed: ")[2] or str(failure)
