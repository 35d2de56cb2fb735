"""Stands in for kubectl where there is no cluster: keeps objects in a folder, and notes how it was called.

It does what an API server and its controllers would do to what the driver asks for, as far as the driver can see it:
what is applied is there, with a generation that counts changes; pods come with their controllers, in the state that
the test has chosen. Rendering goes to the real kubectl.
"""

from __future__ import annotations

import copy
import json
import os
import sys

# Started a great many times: without what only the annotations need.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

STATE, CALLS = (f"{os.environ['FAKE_FOLDER']}/{name}" for name in ("state.json", "calls"))

PLURALS = {
    "nodes": "Node",
    "storageclass": "StorageClass",
    "secret": "Secret",
    "namespace": "Namespace",
    "job": "Job",
    "jobs": "Job",
    "pods": "Pod",
    "statefulset": "StatefulSet",
    "statefulsets": "StatefulSet",
    "deployments": "Deployment",
    "daemonsets": "DaemonSet",
    "services": "Service",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "cronjobs": "CronJob",
    "configmaps": "ConfigMap",
    "networkpolicies": "NetworkPolicy",
    "poddisruptionbudgets": "PodDisruptionBudget",
    "controllerrevisions": "ControllerRevision",
    "events": "Event",
}


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["kustomize"]:
        sys.stdout.write(rendered(arguments[1]))
        return
    with open(CALLS, "a", encoding="utf-8") as file:
        file.write(json.dumps(arguments) + "\n")
    with open(STATE, encoding="utf-8") as file:
        state: dict[str, Any] = json.load(file)
    words = drop(arguments, "--context", "--namespace", "--field-manager", "--selector", "--field-selector", "--output")
    answer(state, words, arguments)
    with open(STATE, "w", encoding="utf-8") as file:
        json.dump(state, file)


def rendered(folder: str) -> str:
    """What the real kubectl renders; once for the same kustomization, because it takes a while."""
    import hashlib  # noqa: PLC0415
    import subprocess  # noqa: PLC0415

    with open(f"{folder}/kustomization.yaml", "rb") as file:
        known = f"{os.environ['FAKE_CACHE']}/{hashlib.sha256(file.read()).hexdigest()}"
    if not os.path.exists(known):
        done = subprocess.run([os.environ["REAL_KUBECTL"], "kustomize", folder], stdout=subprocess.PIPE, check=False)
        if done.returncode:
            sys.exit(done.returncode)
        with open(f"{known}.{os.getpid()}", "wb") as file:
            file.write(done.stdout)
        os.rename(file.name, known)
    with open(known, encoding="utf-8") as text:
        return text.read()


def drop(arguments: list[str], *options: str) -> list[str]:
    """The arguments without these options and their values."""
    kept, skip = [], False
    for argument in arguments:
        if skip or argument in options:
            skip = not skip and argument in options
            continue
        kept.append(argument)
    return kept


def option(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1] if name in arguments else ""


def objects_in(text: str) -> Iterator[dict[str, Any]]:
    # And without Python's site-packages, but where they are needed.
    sys.path.append(os.environ["FAKE_SITE"])
    import yaml  # noqa: PLC0415

    yield from yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def fail(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.exit(1)


def answer(state: dict[str, Any], words: list[str], arguments: list[str]) -> None:  # noqa: PLR0912  one case per command
    objects: dict[str, Any] = state["objects"]
    match words:
        case ["config", "current-context"]:
            if not state["context"]:
                fail("error: current-context is not set")
            print(state["context"])
        case ["get", "--raw", *_]:
            if state.get("unreachable"):
                fail(state["unreachable"])
            print("ok")
        case ["get", "--filename", "-", *_]:
            wanted = [f"{item['kind']}/{item['metadata']['name']}" for item in objects_in(sys.stdin.read())]
            print(json.dumps({"kind": "List", "items": [objects[key] for key in wanted if key in objects]}))
        case ["get", kinds, *rest]:
            get(objects, kinds.split(","), [word for word in rest if not word.startswith("-")], arguments)
        case ["create", "namespace", name]:
            objects[f"Namespace/{name}"] = {"kind": "Namespace", "metadata": {"name": name, "labels": {}}}
        case ["label", "namespace", name, label, *_]:
            key, _, value = label.partition("=")
            objects[f"Namespace/{name}"]["metadata"].setdefault("labels", {})[key] = value
        case ["create", "job", name, source]:
            template = objects[f"CronJob/{source.rpartition('/')[2]}"]["spec"]["jobTemplate"]
            # Its own labels, not those of its pods.
            labels = template.get("metadata", {}).get("labels", {})
            outcome = {"type": state.get("smoke", "Complete"), "status": "True", "reason": "BackoffLimitExceeded"}
            metadata = {"name": name, "labels": labels}
            objects[f"Job/{name}"] = {"kind": "Job", "metadata": metadata, "status": {"conditions": [outcome]}}
        case ["create", "--filename", "-"]:
            item = json.load(sys.stdin)
            objects[f"{item['kind']}/{item['metadata']['name']}"] = item
        case ["apply", *_]:
            if state.get("forbidden"):
                fail(state["forbidden"])
            if "--dry-run=server" in words:
                return
            for item in objects_in(sys.stdin.read()):
                apply(objects, item)
            control(objects, state)
        case ["delete", kinds, *rest]:
            delete(objects, kinds.split(","), [word for word in rest if not word.startswith("-")], arguments)
        case ["logs", *_]:
            if state.get("log") is None:
                fail("Error from server (BadRequest): container is waiting to start")
            print(state["log"])
        case ["exec", *_]:
            print(
                json.dumps({"running_nodes": ["rabbit@rabbitmq-0.rabbitmq-nodes"], "disk_nodes": ["rabbit@rabbitmq-0"]})
            )
        case _:
            fail(f"error: the fake knows no {words}")


def matches(item: dict[str, Any], selector: str) -> bool:
    key, _, value = selector.partition("=")
    return not selector or item["metadata"].get("labels", {}).get(key) == value


def get(objects: dict[str, Any], kinds: list[str], names: list[str], arguments: list[str]) -> None:
    wanted = {PLURALS[kind] for kind in kinds}
    selector = option(arguments, "--selector")
    found = [item for item in objects.values() if item["kind"] in wanted and matches(item, selector)]
    about = option(arguments, "--field-selector").partition("involvedObject.name=")[2]
    found = [item for item in found if not about or item["involvedObject"]["name"] == about]
    if names:
        found = [item for item in found if item["metadata"]["name"] in names]
        if found:
            print(json.dumps(found[0]))
        return
    print(json.dumps({"kind": "List", "items": found}))


def delete(objects: dict[str, Any], kinds: list[str], names: list[str], arguments: list[str]) -> None:
    wanted = {PLURALS[kind] for kind in kinds}
    selector = option(arguments, "--selector")
    for key, item in list(objects.items()):
        if (
            item["kind"] in wanted
            and matches(item, selector)
            and item["metadata"]["name"] in (names or [item["metadata"]["name"]])
        ):
            del objects[key]
            if item["kind"] == "Namespace":
                for other, inside in list(objects.items()):
                    if inside["kind"] not in ("Node", "StorageClass"):
                        del objects[other]


def apply(objects: dict[str, Any], item: dict[str, Any]) -> None:
    key = f"{item['kind']}/{item['metadata']['name']}"
    before = objects.get(key, {})
    asked = copy.deepcopy(item)
    old = before.get("asked")
    generation = before.get("metadata", {}).get("generation", 0) + (old != asked)
    metadata = {**item["metadata"], "generation": generation}
    objects[key] = {**item, "metadata": metadata, "asked": asked, "status": before.get("status", {})}


def control(objects: dict[str, Any], state: dict[str, Any]) -> None:
    """What the controllers do: pods, and a status that counts them."""
    for item in list(objects.values()):
        if item["kind"] not in ("StatefulSet", "Deployment"):
            continue
        name, count = item["metadata"]["name"], item["spec"].setdefault("replicas", 1)
        trouble = state.get("trouble") if name == state.get("troubled") else None
        for number in range(count):
            own = f"{name}-{number}"
            objects[f"Pod/{own}"] = {
                "kind": "Pod",
                "metadata": {"name": own, "labels": item["spec"]["template"]["metadata"]["labels"]},
                "spec": {"nodeName": "machine-1", "volumes": [{"persistentVolumeClaim": {"claimName": f"data-{own}"}}]},
                "status": trouble or {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
            }
        ready = 0 if trouble else count
        item["status"] = {
            "observedGeneration": item["metadata"]["generation"],
            "replicas": count,
            "updatedReplicas": count,
            "availableReplicas": ready,
        }


main()
