"""What ``python -m deploy`` does."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from common.console import say, warn
from common.errors import ExitCode
from deploy import credentials, image, manifests, target
from deploy.kubectl import NAMESPACE, Json, Kubectl, KubernetesFailure
from deploy.progress import Watch, events, pods

NODES = 3
READY_LIMIT = 900.0
SMOKE_LIMIT = 900.0
GONE_LIMIT = 300.0
PATIENCE = 30
"""Seconds that RabbitMQ gets to close its files when it is taken away: there is no majority to wait for any more."""

OURS = f"app.kubernetes.io/part-of={NAMESPACE}"


class SmokeFailure(KubernetesFailure):
    """The examples did not do on the cluster what their READMEs say."""

    exit_code = ExitCode.DATA


@dataclass(frozen=True)
class Wishes:
    """What the reader may choose; None is up to us. ``limit`` is in seconds."""

    overlay: str | None = None
    image: str | None = None
    storage_class: str | None = None
    yes: bool = False
    limit: float = READY_LIMIT


def up(wishes: Wishes) -> None:
    """Make the cluster have the course, whatever it has of it now, and try it. Raises KubernetesFailure."""
    if wishes.image:
        image.parts(wishes.image)
    kubectl = target.find_cluster(make=True)
    target.agree(kubectl.context, "Deploy to it?", yes=wishes.yes)
    _check_namespace(kubectl)
    overlay = _overlay(kubectl, wishes.overlay)
    target.check_storage(kubectl, wishes.storage_class)
    brought = image.bring(kubectl.context, wishes.image)
    yaml = manifests.render(overlay, brought, wishes.storage_class)
    before = manifests.versions(kubectl, yaml)
    with _said_what_stays():
        _make_namespace(kubectl)
        manifests.check(kubectl, yaml)
        credentials.make_missing(kubectl, tls=overlay == "production")
        say(f"applying kubernetes/overlays/{overlay}")
        new, changed, same = manifests.apply(kubectl, yaml, before)
        say(f"  {new} new, {changed} changed, {same} as they were")
        watch = Watch(kubectl, wishes.limit)
        watch.until_ready()
        say("everything is ready")
        _smoke(kubectl, yaml, watch)
    _say_what_next(kubectl, overlay)


def status() -> None:
    """Print what is deployed and how it is. Raises KubernetesFailure if nothing is."""
    kubectl = target.find_cluster(make=False)
    say(f"the cluster is {kubectl.context!r}")
    found = pods(kubectl)
    if not found:
        raise KubernetesFailure(f"nothing of the course is deployed to {kubectl.context!r}; deploy it with: make k8s")
    width = max(len(each.name) for each in found)
    for each in found:
        again = f", started again {each.restarts} times" if each.restarts else ""
        where = f" on {each.machine}" if each.machine else ""
        say(f"  {each.name:<{width}}  {each.why(200)}{where}{again}")
        if each.is_rabbitmq and not each.ready and not each.message:
            for line in events(kubectl, each)[-1:]:
                say(f"  {'':<{width}}  {line[:200]}")
    for item in kubectl.items("jobs"):
        say(f"  Job {item['metadata']['name']}: {_outcome(item) or 'running'}")
    for item in kubectl.items("persistentvolumeclaims"):
        size = item.get("status", {}).get("capacity", {}).get("storage", "no volume yet")
        say(f"  volume {item['metadata']['name']}: {size}")
    try:
        say(_nodes(kubectl, next((each.name for each in found if each.is_rabbitmq and each.ready), "rabbitmq-0")))
    except KubernetesFailure as failure:
        say(f"  RabbitMQ does not answer: {failure}")


def down(*, yes: bool) -> None:
    """Take the course away; its data only if the reader agrees, or with ``yes``. Raises KubernetesFailure."""
    kubectl = target.find_cluster(make=False)
    found = _namespace(kubectl)
    if found is None:
        say(f"nothing of the course is deployed to {kubectl.context!r}")
        _remove_cluster(kubectl, yes=yes)
        return
    _check_namespace(kubectl)
    target.agree(kubectl.context, "Take the course away from it?", yes=yes)
    data = yes or target.ask("Delete RabbitMQ's data as well, and with it every message?")
    # First those who need RabbitMQ for saying that they are done with what they have in hand.
    say("stopping the examples")
    _delete(kubectl, "deployments,cronjobs,jobs")
    say("stopping RabbitMQ")
    # Without their controller, and told how little time they have: the hook that waits for a majority would wait long.
    kubectl.here("delete", "statefulset", "rabbitmq", "--cascade=orphan", "--ignore-not-found")
    selector = "app.kubernetes.io/name=rabbitmq"
    kubectl.here(
        *("delete", "pods", "--selector", selector, f"--grace-period={PATIENCE}", "--ignore-not-found"),
        timeout=GONE_LIMIT,
    )
    if data:
        say(f"deleting the namespace {NAMESPACE}")
        kubectl.run("delete", "namespace", NAMESPACE, "--wait", f"--timeout={GONE_LIMIT:.0f}s", timeout=GONE_LIMIT + 30)
        say("everything is gone, the data too")
        _remove_cluster(kubectl, yes=yes)
        return
    # The revisions are what a StatefulSet leaves behind that has gone without its pods.
    _delete(kubectl, "statefulsets,services,configmaps,networkpolicies,poddisruptionbudgets,controllerrevisions")
    say("RabbitMQ and the examples are gone; the data and the password stay, and make k8s goes on with them")


def _delete(kubectl: Kubectl, kinds: str) -> None:
    """Delete what is ours of these kinds, and wait until it is gone, its pods too."""
    kubectl.here("delete", kinds, "--selector", OURS, "--cascade=foreground", "--wait", timeout=GONE_LIMIT)


@contextmanager
def _said_what_stays() -> Iterator[None]:
    """Whatever ends the work within, the reader learns that something is there now."""
    stays = (
        "what is deployed so far stays: look at it with make k8s-status, go on with make k8s, "
        "or take it away with make k8s-down"
    )
    try:
        yield
    except KubernetesFailure as failure:
        raise type(failure)(f"{failure}; {stays}") from None
    except KeyboardInterrupt:
        warn(f"stopped; {stays}")
        raise


def _overlay(kubectl: Kubectl, wanted: str | None) -> str:
    """The one that is wanted; else the one whose data is there; else what the number of machines suggests.

    Raises KubernetesFailure if the data of another one is there: the size of a volume cannot be changed, and one node
    of three would wait for the others for ever.
    """
    there = (_namespace(kubectl) or {"metadata": {}})["metadata"].get("labels", {}).get(manifests.OVERLAY_LABEL)
    if there in manifests.OVERLAYS and kubectl.items("persistentvolumeclaims"):
        if wanted not in (None, there):
            raise KubernetesFailure(
                f"RabbitMQ's data is there, from OVERLAY={there}, and {wanted} cannot go on with it; "
                f"leave it at {there}, or take it away first, with its data: make k8s-down"
            )
        say(f"it goes on with what is there (OVERLAY={there})")
        return str(there)
    if wanted is not None:
        return wanted
    count, taking = target.machines(kubectl)
    overlay = "production" if count >= NODES else "local"
    nodes = "three nodes" if overlay == "production" else "one node"
    say(f"it has {count} machine(s), {taking} for pods: RabbitMQ gets {nodes} (OVERLAY={overlay})")
    return overlay


def _namespace(kubectl: Kubectl) -> Json | None:
    return kubectl.read("namespace", NAMESPACE)


def _is_ours(namespace: Json) -> bool:
    return bool(namespace["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") == NAMESPACE)


def _check_namespace(kubectl: Kubectl) -> None:
    """Raise KubernetesFailure if the namespace is somebody else's."""
    found = _namespace(kubectl)
    if found is None or _is_ours(found):
        return
    if found.get("status", {}).get("phase") == "Terminating":
        raise KubernetesFailure(f"the namespace {NAMESPACE} is just being deleted; wait, and run this again")
    kinds = "deployments,statefulsets,daemonsets,cronjobs,jobs,pods,services,persistentvolumeclaims"
    others = [f"{item['kind'].lower()} {item['metadata']['name']}" for item in kubectl.items(kinds)]
    if others:
        raise KubernetesFailure(
            f"the namespace {NAMESPACE} exists with something else in it ({', '.join(others[:3])}); "
            "move that elsewhere, or choose another cluster"
        )


def _make_namespace(kubectl: Kubectl) -> None:
    """The secrets come before everything else, and need the namespace."""
    found = _namespace(kubectl)
    if found is None:
        kubectl.run("create", "namespace", NAMESPACE)
    elif found.get("status", {}).get("phase") == "Terminating":
        raise KubernetesFailure(f"the namespace {NAMESPACE} is just being deleted; wait, and run this again")
    if found is None or not _is_ours(found):
        # Ours from now on: a run that fails half-way is taken up, or taken away, by the next.
        kubectl.run("label", "namespace", NAMESPACE, OURS)


def _smoke(kubectl: Kubectl, yaml: str, before: Watch) -> None:
    """Play two examples in the cluster. What has passed with just this deployment is not tried again."""
    name = f"smoke-{hashlib.sha256(yaml.encode()).hexdigest()[:10]}"
    found = kubectl.read("job", name)
    if found is not None and _outcome(found) == "passed":
        say(f"the examples have passed with this deployment (Job {name})")
        return
    say(f"playing send_and_receive and work_queue in the cluster (Job {name})")
    # One that failed, or an older deployment's: neither says anything about now.
    kubectl.here("delete", "jobs", "--selector", "app.kubernetes.io/name=smoke", "--wait", timeout=GONE_LIMIT)
    if found is not None:
        kubectl.here("delete", "job", name, "--ignore-not-found", "--wait", timeout=GONE_LIMIT)
    kubectl.here("create", "job", name, "--from=cronjob/smoke")
    watch = before.then(SMOKE_LIMIT)
    started = time.monotonic()
    followed = False
    while not (outcome := _outcome(kubectl.read("job", name))):
        running = any(
            item.get("status", {}).get("phase") == "Running"
            for item in kubectl.items("pods", "--selector", f"job-name={name}")
        )
        if running and not followed:
            followed = True
            kubectl.follow("logs", "--follow", f"job/{name}", timeout=SMOKE_LIMIT)
            continue
        watch.look(f"the Job {name}")
        time.sleep(1)
    if outcome != "passed":
        say(kubectl.here("logs", f"job/{name}", "--tail=20").rstrip())
        raise SmokeFailure(
            f"the examples did not do what their READMEs say (Job {name}, {outcome}); all they said: "
            f"kubectl -n {NAMESPACE} logs job/{name}"
        )
    say(f"the examples did what their READMEs say ({time.monotonic() - started:.0f} s)")


def _outcome(job: Json | None) -> str:
    """ "passed", or why it failed, or empty while it is running."""
    for condition in (job or {}).get("status", {}).get("conditions", []):
        if condition.get("status") == "True":
            if condition["type"] == "Complete":
                return "passed"
            if condition["type"] == "Failed":
                return f"failed, {condition.get('reason', 'no reason given')}"
    return ""


def _nodes(kubectl: Kubectl, pod: str) -> str:
    """Which of RabbitMQ's nodes are in the cluster, in the words of the one in ``pod``."""
    command = "PATH=/usr/lib/rabbitmq/bin:$PATH exec rabbitmqctl -q cluster_status --formatter json"
    text = kubectl.here("exec", pod, "--container", "rabbitmq", "--", "sh", "-c", command)
    try:
        answer = json.loads(text)
    except ValueError:
        raise KubernetesFailure("rabbitmqctl answered what is no JSON") from None
    names = [str(node).removeprefix("rabbit@").partition(".")[0] for node in answer.get("running_nodes", [])]
    return f"  RabbitMQ's nodes that run: {', '.join(sorted(names))} (of {len(answer.get('disk_nodes', []))})"


def _remove_cluster(kubectl: Kubectl, *, yes: bool) -> None:
    if kubectl.context != f"kind-{target.KIND_CLUSTER}":
        return
    question = f"Delete the cluster {kubectl.context!r} too, which make k8s has made?"
    if (yes or target.ask(question)) and target.remove_kind(kubectl.context):
        say(f"deleted the cluster {kubectl.context!r}")


def _say_what_next(kubectl: Kubectl, overlay: str) -> None:
    scope = f"kubectl --context {kubectl.context} -n {NAMESPACE}"
    say("")
    say("RabbitMQ's management UI, at http://localhost:15672 while this runs:")
    say(f"  {scope} port-forward service/rabbitmq 15672")
    say(f"Its user is {credentials.USER}, and this prints the password:")
    say(f"  {scope} get secret rabbitmq-credentials -o go-template='{{{{.data.password | base64decode}}}}'")
    say("The playground, at http://localhost:8080 while this runs:")
    say(f"  {scope} port-forward deployment/playground 8080")
    say("A hundred tasks, and ten workers for them:")
    say(f"  {scope} create job --from=cronjob/work-queue-new-task tasks-1")
    say(f"  {scope} scale deployment/work-queue-worker --replicas=10")
    if overlay == "local":
        say("One node of RabbitMQ cannot show the loss of a node; on three machines: make k8s OVERLAY=production")
    say("How it is, and how it goes away: make k8s-status, make k8s-down")
