"""The deployment on a real cluster: the one that KUBECONFIG names. It is deployed, broken, counted, and taken away.

    KUBECONFIG=~/.kube/config python -m pytest tests/kubernetes/test_cluster.py

YES=1 agrees to a cluster that is not on this machine; IMAGE, OVERLAY and STORAGE_CLASS are those of `make k8s`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from deploy.kubectl import NAMESPACE
from deploy.target import is_local
from tests.support.process import Finished, run_script, wait_until
from tests.support.report import Report

pytestmark = [pytest.mark.xdist_group("kubernetes.cluster"), pytest.mark.timeout(3600)]

SECTION = "Kubernetes"
RATE, SECONDS = 200, 60
SELECTOR = "app.kubernetes.io/name=rabbitmq"


def kubectl(*arguments: str, limit: float = 120, check: bool = True) -> str:
    """Run kubectl in the namespace of the course; its output."""
    command = ["kubectl", "--namespace", NAMESPACE, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    assert result.returncode == 0 or not check, f"{' '.join(command)}: {result.stderr}"
    return result.stdout


def deploy(command: str, *arguments: str) -> Finished:
    done = run_script("-m", "deploy", command, "--yes", *arguments, environ=dict(os.environ), limit=2400)
    assert "Traceback" not in done.err
    return done


def choices() -> list[str]:
    """What the environment chooses, as for `make k8s`."""
    options = {"IMAGE": "--image", "OVERLAY": "--overlay", "STORAGE_CLASS": "--storage-class"}
    return [word for name, option in options.items() if os.environ.get(name) for word in (option, os.environ[name])]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """What `python -m deploy up` has said on a cluster that had nothing of the course; it has nothing afterwards."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster to deploy to")
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    context = kubectl("config", "current-context", check=False).strip()
    if not context or not kubectl("get", "--raw", "/readyz", "--request-timeout=10s", check=False):
        pytest.skip(f"the cluster that KUBECONFIG names ({context or 'none'}) does not answer")
    if not is_local(context) and os.environ.get("YES") != "1":
        pytest.skip(f"the cluster {context!r} is not on this machine; YES=1 agrees to use it")
    if kubectl("get", "namespace", NAMESPACE, "--ignore-not-found"):
        pytest.skip(f"{context!r} has the namespace {NAMESPACE} already, and this test would delete it")
    try:
        done = deploy("up", *choices())
        assert done.code == 0, done.out + done.err
        yield done.out
    finally:
        gone = deploy("down")
    assert gone.code == 0, gone.err
    assert kubectl("get", "namespace", NAMESPACE, "--ignore-not-found") == ""
    volumes = json.loads(kubectl("get", "persistentvolumes", "--output", "json"))["items"]
    claims = [volume["spec"].get("claimRef", {}).get("namespace") for volume in volumes]
    reclaimed = [claim for claim, volume in zip(claims, volumes, strict=True) if volume["status"]["phase"] == "Bound"]
    assert NAMESPACE not in reclaimed


@pytest.fixture
def nodes(cluster: str) -> list[dict[str, Any]]:
    """The pods of a RabbitMQ of three nodes, all of them ready."""
    wait_for_nodes()
    pods: list[dict[str, Any]] = json.loads(kubectl("get", "pods", "--selector", SELECTOR, "--output", "json"))["items"]
    if len(pods) < 3:
        pytest.skip("one node of RabbitMQ: there is no other to take over (OVERLAY=production has three)")
    assert "the examples did what their READMEs say" in cluster
    return pods


def wait_for_nodes() -> None:
    kubectl("rollout", "status", "statefulset/rabbitmq", "--timeout=900s", limit=930)


def generations() -> dict[str, str]:
    """What is deployed, and what changes when somebody changes it."""
    kinds = "statefulsets,deployments,cronjobs,services,networkpolicies,poddisruptionbudgets,configmaps,secrets"
    items = json.loads(kubectl("get", kinds, "--output", "json"))["items"]
    return {
        f"{item['kind']} {item['metadata']['name']}": str(
            item["metadata"].get("generation") or item["metadata"]["resourceVersion"]
        )
        for item in items
    }


def under_load(disturb: Callable[[], object], what: str, report: Report) -> None:
    """Publish and consume for a minute, and disturb it meanwhile: nothing is lost."""
    job = f"load-{uuid.uuid4().hex[:6]}"
    kubectl("create", "job", job, "--from=cronjob/load")
    try:
        deadline = time.monotonic() + 120
        # Its first line comes after ten seconds: both ends are at work then.
        while "[*]" not in kubectl("logs", f"job/{job}", check=False):
            assert time.monotonic() < deadline, "the load does not begin"
            time.sleep(1)
        disturb()
        kubectl("wait", f"job/{job}", "--for=condition=complete", "--timeout=400s", limit=430, check=False)
        last = kubectl("logs", f"job/{job}", "--tail=1").strip()
        report.add(SECTION, f"{what}: {last.removeprefix('[x] ')}")
        total = f"{RATE * SECONDS:,}"
        assert re.match(rf"\[x\] {total} confirmed of {total}, {total} seen, .* 0 missing, ", last)
    finally:
        kubectl("delete", "job", job, "--wait=false")


def test_a_second_run_changes_nothing(cluster: str) -> None:
    assert "everything is ready" in cluster
    before = generations()
    pods = kubectl("get", "pods", "--output", "jsonpath={.items[*].metadata.uid}")
    again = deploy("up", *choices())
    assert again.code == 0, again.err
    assert re.search(r"0 new, 0 changed, \d+ as they were", again.out), again.out
    assert "the examples have passed with this deployment" in again.out
    assert generations() == before
    assert kubectl("get", "pods", "--output", "jsonpath={.items[*].metadata.uid}") == pods


def test_status(cluster: str) -> None:
    assert cluster
    told = deploy_status()
    assert "rabbitmq-0" in told
    assert "RabbitMQ's nodes that run: rabbitmq-0" in told


def deploy_status() -> str:
    done = run_script("-m", "deploy", "status", environ=dict(os.environ), limit=120)
    assert done.code == 0, done.err
    return done.out


def test_a_pod_is_deleted(nodes: list[dict[str, Any]], report: Report) -> None:
    name = nodes[0]["metadata"]["name"]
    under_load(lambda: kubectl("delete", "pod", name, "--wait=false"), "a pod deleted", report)
    wait_for_nodes()


def test_a_pod_is_killed(nodes: list[dict[str, Any]], report: Report) -> None:
    name = nodes[1]["metadata"]["name"]
    under_load(lambda: kubectl("delete", "pod", name, "--grace-period=0", "--force"), "a pod killed", report)
    wait_for_nodes()


def test_a_machine_is_drained(nodes: list[dict[str, Any]], report: Report) -> None:
    machine = nodes[2]["spec"]["nodeName"]
    if len({pod["spec"]["nodeName"] for pod in nodes}) < 3:
        pytest.skip("the nodes of RabbitMQ are not on three machines")
    # The load itself stays: a Job that is thrown out has failed, and would tell nothing.
    ours = f"--pod-selector=app.kubernetes.io/part-of={NAMESPACE},app.kubernetes.io/name!=load"

    def drain() -> None:
        kubectl("drain", machine, "--ignore-daemonsets", "--delete-emptydir-data", ours, "--timeout=600s", limit=630)

    try:
        under_load(drain, "a machine drained", report)
    finally:
        kubectl("uncordon", machine)
    wait_for_nodes()


def test_a_rolling_restart(nodes: list[dict[str, Any]], report: Report) -> None:
    assert nodes
    under_load(lambda: kubectl("rollout", "restart", "statefulset/rabbitmq"), "a rolling restart", report)
    wait_for_nodes()


def messages(queue: str) -> list[int]:
    """How many messages the queue has, with those that are being worked on; of no queue if it is not there."""
    command = "PATH=/usr/lib/rabbitmq/bin:$PATH exec rabbitmqctl -q list_queues name messages"
    listed = kubectl("exec", "rabbitmq-0", "--", "sh", "-c", command)
    return [int(count) for count in re.findall(rf"^{re.escape(queue)}\s+(\d+)$", listed, re.MULTILINE)]


def restarts(name: str) -> int:
    """How often Kubernetes has started the containers of a Deployment again."""
    template = "jsonpath={.items[*].status.containerStatuses[*].restartCount}"
    return sum(map(int, kubectl("get", "pods", "-l", f"app.kubernetes.io/name={name}", "-o", template).split()))


def test_a_plain_script_ends_and_is_started_again_and_the_worker_goes_on(cluster: str) -> None:
    assert cluster
    wait_for_nodes()
    plain, robust = "send-and-receive-receive", "work-queue-worker"
    before = restarts(plain), restarts(robust)
    kubectl("rollout", "restart", "statefulset/rabbitmq")
    wait_for_nodes()
    wait_until(lambda: restarts(plain) > before[0], 120, every=2)
    for name in (plain, robust):
        kubectl("rollout", "status", f"deployment/{name}", "--timeout=300s", limit=330)
    told = kubectl("logs", f"deployment/{plain}", "--previous")
    assert re.search(r"^error: .*RabbitMQ", told, re.MULTILINE), told
    assert "Traceback" not in told
    assert restarts(robust) == before[1]
    assert "connecting again" in kubectl("logs", f"deployment/{robust}")


def test_workers_come_and_go_in_mid_work(cluster: str, tmp_path: Path, report: Report) -> None:
    assert cluster
    worker = "deployment/work-queue-worker"
    job = f"tasks-{uuid.uuid4().hex[:6]}"
    kubectl("scale", worker, "--replicas=10")
    kubectl("rollout", "status", worker, "--timeout=300s", limit=330)
    kubectl("create", "job", job, "--from=cronjob/work-queue-new-task")
    since = kubectl("get", "job", job, "--output", "jsonpath={.metadata.creationTimestamp}")
    kubectl("wait", f"job/{job}", "--for=condition=complete", "--timeout=120s", limit=150)
    with ExitStack() as open_ends:
        # What a pod has printed goes with it, so somebody has to listen.
        for pod in kubectl(
            "get", "pods", "--selector", "app.kubernetes.io/name=work-queue-worker", "-o", "name"
        ).split():
            file = open_ends.enter_context((tmp_path / pod.rpartition("/")[2]).open("wb"))
            command = ["kubectl", "--namespace", NAMESPACE, "logs", pod, "--follow", f"--since-time={since}"]
            follower = open_ends.enter_context(subprocess.Popen(command, stdout=file))
            open_ends.callback(follower.kill)
        wait_until(lambda: len(done(tmp_path)) >= 10, 60)
        kubectl("scale", worker, "--replicas=1")
        before = len(done(tmp_path))
        wait_until(lambda: messages("work_queue.tasks") == [0], 300, every=2)
        wait_until(lambda: len(done(tmp_path)) >= 100, 60)
    assert before < 100, "the workers were through before nine of them were stopped"
    # Nothing is lost, and nothing is done twice.
    assert sorted(done(tmp_path)) == list(range(1, 101))
    report.add(SECTION, f"10 workers to 1: 100 tasks of 100 done once, {before} of them before the nine were stopped")


def done(folder: Path) -> list[int]:
    """The numbers of the tasks that the workers say are done."""
    told = "".join(file.read_text(encoding="utf-8") for file in folder.iterdir())
    return [int(number) for number in re.findall(r"Done with '(\d+): ", told)]


def test_the_data_outlives_the_deployment(cluster: str) -> None:
    assert cluster
    if not is_local(kubectl("config", "current-context").strip()):
        pytest.skip("whoever agrees beforehand to a cluster elsewhere (YES=1) agrees to the data's end as well")
    kubectl("scale", "deployment/send-and-receive-receive", "--replicas=0")
    receivers = "app.kubernetes.io/name=send-and-receive-receive"
    kubectl("wait", "--for=delete", "pods", "--selector", receivers, "--timeout=120s", limit=150)
    job = f"send-{uuid.uuid4().hex[:6]}"
    kubectl("create", "job", job, "--from=cronjob/send-and-receive-send")
    kubectl("wait", f"job/{job}", "--for=condition=complete", "--timeout=120s", limit=150)
    assert messages("send_and_receive.hello") == [1]
    # Nobody at the terminal says that the data may go.
    down = run_script("-m", "deploy", "down", environ=dict(os.environ), limit=900)
    assert down.code == 0, down.err
    assert "the data and the password stay" in down.out
    assert kubectl("get", "pods,statefulsets,services,jobs,controllerrevisions", "--output", "name") == ""
    again = deploy("up", *choices())
    assert again.code == 0, again.err
    received = wait_until(lambda: kubectl("logs", "deployment/send-and-receive-receive").splitlines()[1:])
    assert received == [" [x] Received 'Hello World!'"]
