"""The pods of the overlays, run by Docker: they form a cluster, and lose nothing when its nodes are replaced."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from broker.compose import Compose, ComposeFailure
from broker.ports import Ports
from common.config import Settings
from deploy import credentials
from deploy.image import DEFAULT
from tests.kubernetes.conftest import ROOT, Manifest, find, pod_of, rendered
from tests.kubernetes.pods import Cluster, docker
from tests.support.report import Report

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("broker.compose"), pytest.mark.timeout(900)]

SECTION = "Failure drills"
NODES = 3
TASKS = 50
IMAGES = ("rabbitmq:4.3-management", "python:3.14-slim")


@pytest.fixture(scope="module")
def image() -> None:
    """Builds the image of the scripts; skipped where Docker, or what it is made of, is missing."""
    try:
        Compose(Settings(), Ports()).check()
    except ComposeFailure as failure:
        pytest.skip(str(failure))
    if os.geteuid():
        pytest.skip("only root can make files that belong to the users of the pods")
    for name in IMAGES:
        if subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode:
            pytest.skip(f"the image {name} is not on this machine")
    docker("build", "--quiet", "--tag", DEFAULT, str(ROOT), limit=600)


def test_the_image_has_the_course_and_nothing_else(image: None) -> None:  # noqa: ARG001
    inside = docker("run", "--rm", DEFAULT, "sh", "-c", "id -u; ls -a").split()
    assert inside[0] == "10001"
    assert {"common", "tour", "work_queue", "README.md"} <= set(inside)
    assert not {".env", ".git", ".venv", ".broker", "tests", "kubernetes"} & set(inside)
    docker("run", "--rm", DEFAULT, "python", "-c", "import aio_pika, paho.mqtt, rstream, starlette, stomp, uvicorn")
    # What a changed script makes anew.
    layers = docker("history", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", DEFAULT).splitlines()
    [size] = [int(layer.split()[0]) for layer in layers if "COPY dir:" in layer or "COPY . ." in layer][:1]
    assert size < 5_000_000


def test_the_nodes_form_a_cluster_and_are_replaced_one_by_one_under_load(image: None, report: Report) -> None:  # noqa: ARG001
    objects = rendered("production")
    secrets = {
        "rabbitmq-credentials": credentials.login(),
        "rabbitmq-erlang-cookie": credentials.cookie(),
        "rabbitmq-tls": credentials.certificate(),
    }
    node = template(objects, "StatefulSet", "rabbitmq")
    probe, stop = (
        node["containers"][0]["livenessProbe"]["exec"]["command"],
        node["containers"][0]["lifecycle"]["preStop"]["exec"]["command"],
    )
    with Cluster(objects, secrets) as cluster:

        def start(number: int) -> str:
            name = f"rabbitmq-{number}"
            own = f"{name}.rabbitmq-nodes.rabbitmq-by-example.svc.cluster.local"
            return cluster.start(node, name, aliases=(own, "rabbitmq"))

        # The one that makes the cluster comes last: the others wait for it.
        nodes = {number: start(number) for number in reversed(range(NODES))}
        for container in nodes.values():
            until(lambda: len(running(container)) == NODES, 120, "three nodes in the cluster")  # noqa: B023
            assert "Ping succeeded" in docker("exec", container, *probe)
        assert "0.6 of available memory, computed to: 0.6442 gb" in ctl(nodes[0], "status")

        worker = cluster.start(template(objects, "Deployment", "work-queue-worker"), "work-queue-worker")
        until(lambda: "waits for tasks" in docker("logs", worker), 60, "the worker to be ready")
        # It declares a plain durable queue, and gets one with a replica on each node.
        until(lambda: quorum(nodes[0], "work_queue.tasks") == NODES, 60, "the queue of tasks to have three replicas")
        receiver = cluster.start(
            template(objects, "Deployment", "send-and-receive-receive"), "send-and-receive-receive"
        )
        until(lambda: "Waiting for messages" in docker("logs", receiver), 60, "the receiver to be ready")
        docker("exec", worker, "python", "-m", "deploy.probe")

        load = template(objects, "CronJob", "load")
        load["containers"][0]["command"] += ["--rate", "200", "--seconds", "45"]
        told: list[str] = []
        loading = threading.Thread(target=lambda: told.append(cluster.start(load, "load", wait=True)))
        loading.start()
        until(lambda: "load." in ctl(nodes[0], "list_queues", "name"), 60, "the load to begin")
        for number, container in nodes.items():
            # What Kubernetes does in a rolling restart: hook, SIGTERM, a new container on the same volume.
            docker("exec", container, *stop, limit=600)
            docker("stop", "--time", "60", container)
            docker("rm", container)
            nodes[number] = start(number)
            until(lambda: len(running(nodes[number])) == NODES, 120, "the node to be back")  # noqa: B023
        loading.join()
        [output] = told or [""]
        last = output.strip().splitlines()[-1]
        report.add(SECTION, f"three nodes replaced one by one:{last.removeprefix(' [x]')}")
        assert re.match(r" \[x\] 9,000 confirmed of 9,000, 9,000 seen, .* 0 missing, ", last), output

        # The plain receiver has ended with one line; Kubernetes would start it again.
        assert docker("inspect", "--format", "{{.State.ExitCode}}", receiver).strip() == "69"
        words = docker("logs", receiver).splitlines()
        assert len(words) == 2, words
        assert words[1].startswith("error: RabbitMQ at rabbitmq:5671 closed the connection: 320 CONNECTION_FORCED"), (
            words
        )
        # The worker is the same process as before, and connected. When it is stopped, it ends with exit code 0.
        assert "connecting again" in docker("logs", worker)
        docker("exec", worker, "python", "-m", "deploy.probe")
        docker("stop", "--time", "40", worker)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", worker).strip() == "0"


def test_one_node_the_smoke_test_and_workers_that_come_and_go(image: None, report: Report) -> None:  # noqa: ARG001
    objects = rendered("local")
    secrets = {"rabbitmq-credentials": credentials.login(), "rabbitmq-erlang-cookie": credentials.cookie()}
    smoke = template(objects, "CronJob", "smoke")
    command = smoke["containers"][0]["command"]
    # The other one is long, and is played by its own test.
    assert command == ["python", "-m", "tour", "send_and_receive", "work_queue"]
    command.remove("work_queue")
    with Cluster(objects, secrets) as cluster:
        own = "rabbitmq-0.rabbitmq-nodes.rabbitmq-by-example.svc.cluster.local"
        node = cluster.start(template(objects, "StatefulSet", "rabbitmq"), "rabbitmq-0", aliases=(own, "rabbitmq"))
        until(lambda: len(running(node)) == 1, 120, "the node to be ready")
        # What `make k8s-status` reads.
        told = json.loads(ctl(node, "cluster_status", "--formatter", "json"))
        assert told["running_nodes"] == told["disk_nodes"] == [f"rabbit@{own}"]
        assert "ok send_and_receive" in cluster.start(smoke, "smoke", wait=True)

        worker = template(objects, "Deployment", "work-queue-worker")
        workers = [cluster.start(worker, "worker-0")]
        # A hundred tasks of a second each would take one worker too long here.
        tasks = template(objects, "CronJob", "work-queue-new-task")
        command = tasks["containers"][0]["command"]
        command[command.index("100")] = str(TASKS)
        cluster.start(tasks, "tasks", wait=True)
        until(lambda: "Done" in docker("logs", workers[0]), 60, "the first task to be done")
        with ThreadPoolExecutor(4) as pool:
            more = list(pool.map(lambda number: cluster.start(worker, f"worker-{number}"), range(1, 5)))
        until(lambda: any("Received" in docker("logs", each) for each in more), 60, "another worker to have a task")
        workers += more
        docker("stop", "--time", "40", *workers[1:], limit=400)
        codes = docker("inspect", "--format", "{{.State.ExitCode}}", *workers[1:]).split()
        # 143: it was told so before it had begun.
        assert set(codes) <= {"0", "143"}
        assert "0" in codes

        def done() -> Counter[str]:
            return Counter(task for each in workers for task in re.findall(r"Done with '(\d+):", docker("logs", each)))

        until(lambda: len(done()) == TASKS, 120, "all tasks to be done")
        counted = done()
        report.add(SECTION, f"workers 1, 5, 1 in mid-work: {TASKS} tasks, {counted.total()} times done")
        # A worker that is stopped finishes and acknowledges the task in hand: no other worker gets it.
        assert counted.total() == TASKS


def template(objects: list[Manifest], kind: str, name: str) -> Manifest:
    """The pod's specification in this object."""
    pod = pod_of(find(objects, kind, name))
    assert pod is not None
    # The test may change it.
    return copy.deepcopy(pod)


def ctl(container: str, *arguments: str) -> str:
    command = f"PATH=/usr/lib/rabbitmq/bin:$PATH exec rabbitmqctl -q {' '.join(arguments)}"
    return docker("exec", container, "sh", "-c", command, check=False)


def quorum(container: str, queue: str) -> int:
    """The number of replicas that a quorum queue has; 0 if it is not there, or of another type."""
    for line in ctl(container, "list_queues", "name", "type", "members").splitlines():
        name, _, rest = line.partition("\t")
        kind, _, members = rest.partition("\t")
        if (name, kind) == (queue, "quorum"):
            return len(re.findall(r"rabbit@", members))
    return 0


def running(container: str) -> set[str]:
    """The nodes that this one sees running, once it serves AMQP itself: its last step."""
    status = ctl(container, "cluster_status")
    own = re.search(r"Node: (\S+), interface: \S+, port: 567[12]\b", status.partition("Listeners")[2])
    part = status.partition("Running Nodes")[2].partition("Versions")[0]
    return set(re.findall(r"rabbit@\S+", part)) if own else set()


def until(condition: Callable[[], bool], limit: float, what: str) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"waited {limit:.0f} s for {what}"
        time.sleep(1)
