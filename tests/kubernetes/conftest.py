"""The manifests as ``kubectl kustomize`` renders them."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ("local", "production")

Manifest = dict[str, Any]


@cache
def rendered(overlay: str) -> list[Manifest]:
    """The objects of an overlay. The test is skipped where kubectl is not installed."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: it renders the manifests")
    result = subprocess.run(
        ["kubectl", "kustomize", str(ROOT / "kubernetes" / "overlays" / overlay)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    # A warning is how kustomize says that something is on its way out.
    assert result.stderr == ""
    return list(yaml.safe_load_all(result.stdout))


def find(objects: list[Manifest], kind: str, name: str) -> Manifest:
    """The object of this kind and name (a generated ConfigMap has a hash behind it)."""
    found = [
        item
        for item in objects
        if item["kind"] == kind
        and (item["metadata"]["name"] == name or item["metadata"]["name"].startswith(f"{name}-"))
    ]
    exact = [item for item in found if item["metadata"]["name"] == name]
    assert len(exact or found) == 1, f"{kind} {name}: {len(found)}"
    return (exact or found)[0]


def pod_of(item: Manifest) -> Manifest | None:
    """The pod's specification in a Deployment, StatefulSet or CronJob; None for what makes no pods."""
    match item["kind"]:
        case "Deployment" | "StatefulSet" | "Job":
            spec: Manifest = item["spec"]["template"]["spec"]
        case "CronJob":
            spec = item["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        case _:
            return None
    return spec


def pods(objects: list[Manifest]) -> list[tuple[str, Manifest]]:
    """Name and pod's specification of everything that makes pods."""
    return [(f"{item['kind']} {item['metadata']['name']}", pod) for item in objects if (pod := pod_of(item))]


@pytest.fixture(params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> list[Manifest]:
    """The objects of each overlay in turn."""
    return rendered(request.param)
