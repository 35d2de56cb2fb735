"""The manifests, for one cluster: which overlay, which image, which storage class."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from deploy.image import NAME, ROOT, parts
from deploy.kubectl import MANAGER, Json, Kubectl, KubernetesFailure, output_of

OVERLAYS = ("local", "production")
Versions = dict[tuple[str, str], str]
"""Kind and name of an object → what changes when somebody changes it."""

FOLDER = ROOT / "kubernetes" / "overlays"
OVERLAY_LABEL = "rabbitmq-by-example/overlay"
"""By which every object, the namespace too, says from which overlay it is."""


def render(overlay: str, image: str, storage_class: str | None = None) -> str:
    """The YAML of an overlay, with this image for the scripts and this storage class for the volumes."""
    name, tag = parts(image)
    # The temporary folder's real name: kustomize counts the steps from there to ours.
    with tempfile.TemporaryDirectory(prefix="kustomize.", dir=os.path.realpath(tempfile.gettempdir())) as folder:
        own: Json = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(FOLDER / overlay, folder)],
            "images": [{"name": NAME, "newName": name, "newTag": tag}],
        }
        if storage_class is not None:
            operation = {
                "op": "add",
                "path": "/spec/volumeClaimTemplates/0/spec/storageClassName",
                "value": storage_class,
            }
            target = {"kind": "StatefulSet", "name": "rabbitmq"}
            own["patches"] = [{"target": target, "patch": json.dumps([operation])}]
        # JSON is YAML.
        (Path(folder) / "kustomization.yaml").write_text(json.dumps(own), encoding="utf-8")
        return output_of(["kubectl", "kustomize", folder])


def check(kubectl: Kubectl, yaml: str) -> None:
    """Raise KubernetesFailure if the cluster would refuse any of it. Changes nothing.

    `apply` goes from object to object: of a refusal in the midst, the first half would be there, and not fit the rest.
    """
    try:
        _apply(kubectl, yaml, "--dry-run=server")
    except KubernetesFailure as failure:
        if "updates to statefulset spec" in failure.complaint:
            raise KubernetesFailure(
                "RabbitMQ runs with volumes of another size or class, and those cannot be changed; "
                "choose the STORAGE_CLASS that it has, or take it away first: make k8s-down"
            ) from None
        raise


def _apply(kubectl: Kubectl, yaml: str, *options: str) -> None:
    kubectl.run(
        *("apply", "--server-side", "--force-conflicts", "--field-manager", MANAGER, *options, "--filename", "-"),
        stdin=yaml,
        timeout=180,
    )


def apply(kubectl: Kubectl, yaml: str, before: Versions) -> tuple[int, int, int]:
    """Make the cluster have what the YAML says; how many objects are new, changed, and as they were ``before``.

    Raises KubernetesFailure.
    """
    _apply(kubectl, yaml)
    after = versions(kubectl, yaml)
    new = len(after.keys() - before.keys())
    changed = sum(1 for key in after.keys() & before.keys() if after[key] != before[key])
    return new, changed, len(after) - new - changed


def versions(kubectl: Kubectl, yaml: str) -> Versions:
    """What of the YAML's objects is there."""
    found = {}
    for item in kubectl.items("--filename", "-", stdin=yaml):
        metadata = item["metadata"]
        # The generation counts changes of what is asked for; objects without one have no state of their own either.
        found[item["kind"], metadata["name"]] = str(metadata.get("generation") or metadata.get("resourceVersion"))
    return found
