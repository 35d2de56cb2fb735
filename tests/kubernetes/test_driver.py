"""``python -m deploy``: what it asks of kubectl, in which order, and what it says when something is missing.

There is no cluster here: a stand-in for kubectl keeps what it is given (fake_kubectl.py). What the manifests do in a
cluster is another test's matter.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import image, progress, target
from deploy.kubectl import Kubectl, KubernetesFailure
from tests.kubernetes.conftest import ROOT
from tests.support.process import Finished, run_script

pytestmark = pytest.mark.long

CLASS = {
    "kind": "StorageClass",
    "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
}
COURSE = "rabbitmq-by-example"


def machine(number: int) -> dict[str, Any]:
    return {"kind": "Node", "metadata": {"name": f"machine-{number}"}, "spec": {}}


@dataclass
class Fake:
    """A cluster that is only remembered, with the programs that a driver finds on such a machine."""

    folder: Path
    environ: dict[str, str]

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        return found

    def set(self, **values: Any) -> None:
        (self.folder / "state.json").write_text(json.dumps(self.state | values), encoding="utf-8")

    def put(self, *items: dict[str, Any]) -> None:
        objects = self.state["objects"]
        self.set(objects=objects | {f"{item['kind']}/{item['metadata']['name']}": item for item in items})

    def names(self, kind: str) -> list[str]:
        return sorted(key.partition("/")[2] for key in self.state["objects"] if key.startswith(f"{kind}/"))

    @property
    def calls(self) -> list[list[str]]:
        file = self.folder / "calls"
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []

    def changed(self) -> list[list[str]]:
        """The calls that change something in a cluster."""
        verbs = ("apply", "create", "delete", "label")
        return [
            call for call in self.calls if any(word in verbs for word in call[:6]) and "--dry-run=server" not in call
        ]

    def add(self, name: str, script: str) -> None:
        file = self.folder / "bin" / name
        file.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def run(self, *arguments: str) -> Finished:
        done = run_script("-m", "deploy", *arguments, environ=self.environ, limit=120)
        assert "Traceback" not in done.err
        for secret in ("rabbitmq-credentials", "rabbitmq-erlang-cookie"):
            made = self.state["objects"].get(f"Secret/{secret}", {}).get("stringData", {})
            for key in ("password", "cookie"):
                if key in made:
                    assert made[key] not in done.out + done.err
                    assert not any(made[key] in word for call in self.calls for word in call)
        return done


@pytest.fixture
def fake(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Fake:
    """A machine with kubectl, and nothing else that the driver might use, and a local cluster of one node."""
    real = shutil.which("kubectl")
    if real is None:
        pytest.skip("kubectl is not installed: it renders the manifests")
    base = tmp_path_factory.getbasetemp()
    programs = tmp_path / "bin"
    programs.mkdir()
    openssl = shutil.which("openssl")
    if openssl:
        (programs / "openssl").symlink_to(openssl)
    environ = {
        "PATH": str(programs),
        "HOME": str(tmp_path),
        "FAKE_FOLDER": str(tmp_path),
        "REAL_KUBECTL": real,
        # The folder of all workers of this run, if there are several.
        "FAKE_CACHE": str(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base),
        "FAKE_SITE": str(Path(yaml.__file__).parents[1]),
    }
    environ |= {name: os.environ[name] for name in ("LANG",) if name in os.environ}
    made = Fake(tmp_path, environ)
    (tmp_path / "state.json").write_text(json.dumps({"context": "kind-test", "objects": {}}), encoding="utf-8")
    made.add("kubectl", f'exec "{sys.executable}" -I -S "{Path(__file__).with_name("fake_kubectl.py")}" "$@"')
    made.put(machine(1), CLASS)
    return made


def test_from_nothing_and_again(fake: Fake) -> None:
    first = fake.run("up")
    assert first.code == 0, first.err
    assert "the cluster is 'kind-test'" in first.out
    assert "the examples did what their READMEs say" in first.out
    assert "26 new, 0 changed, 0 as they were" in first.out
    # In this order: what a pod needs is there before the pod.
    order = [name for call in fake.changed() for name in ("namespace", "apply", "job") if name in call[2:7]]
    assert order.index("namespace") < order.index("apply") < order.index("job")
    assert fake.names("Secret") == ["rabbitmq-credentials", "rabbitmq-erlang-cookie"]
    before, calls = fake.state["objects"], len(fake.changed())

    second = fake.run("up")
    assert second.code == 0, second.err
    assert "0 new, 0 changed, 26 as they were" in second.out
    assert "the examples have passed with this deployment" in second.out
    assert fake.state["objects"] == before
    # An apply that finds everything as it is, and nothing else.
    assert [call[2] for call in fake.changed()[calls:]] == ["apply"]


def test_status_and_down(fake: Fake) -> None:
    nothing = fake.run("status")
    assert nothing.code == 69
    assert nothing.err == "error: nothing of the course is deployed to 'kind-test'; deploy it with: make k8s\n"
    assert fake.run("up").code == 0
    told = fake.run("status")
    assert told.code == 0
    assert "rabbitmq-0" in told.out
    assert "ready on machine-1" in told.out
    assert "RabbitMQ's nodes that run: rabbitmq-0 (of 1)" in told.out

    # Nobody at the terminal agrees to lose the data.
    kept = fake.run("down")
    assert kept.code == 0, kept.err
    assert "the data and the password stay" in kept.out
    # The consumers go first: without RabbitMQ they could not say what they are done with.
    deleted = [call[call.index("delete") + 1] for call in fake.changed() if "delete" in call]
    kinds = [name for call in deleted for name in call.split(",")]
    assert kinds.index("deployments") < kinds.index("pods") < kinds.index("services")
    assert fake.names("Secret") == ["rabbitmq-credentials", "rabbitmq-erlang-cookie"]
    assert [fake.names(kind) for kind in ("StatefulSet", "Deployment", "Service", "CronJob", "Job")] == [[]] * 5

    assert fake.run("up").code == 0
    gone = fake.run("down", "--yes")
    assert gone.code == 0, gone.err
    assert sorted(fake.state["objects"]) == ["Node/machine-1", "StorageClass/standard"]
    assert fake.run("down").out.startswith("nothing of the course is deployed")


def test_a_node_that_is_away_is_not_the_one_that_is_asked(fake: Fake) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is missing: it makes the certificate")
    fake.put(machine(2), machine(3))
    assert fake.run("up").code == 0
    away = fake.state["objects"]["Pod/rabbitmq-0"]
    fake.put(away | {"status": {"phase": "Running", "conditions": []}})
    assert fake.run("status").code == 0
    asked = [call[call.index("exec") + 1] for call in fake.calls if "exec" in call]
    assert asked == ["rabbitmq-1"]


def test_three_machines_get_three_nodes_and_tls(fake: Fake) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is missing: it makes the certificate")
    tainted = machine(3)
    tainted["spec"]["taints"] = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]
    fake.put(machine(2), tainted)
    done = fake.run("up")
    assert done.code == 0, done.err
    assert "it has 3 machine(s), 2 for pods: RabbitMQ gets three nodes (OVERLAY=production)" in done.out
    assert fake.state["objects"]["StatefulSet/rabbitmq"]["spec"]["replicas"] == 3
    secret = fake.state["objects"]["Secret/rabbitmq-tls"]
    assert secret["type"] == "kubernetes.io/tls"
    assert sorted(secret["stringData"]) == ["ca.crt", "tls.crt", "tls.key"]


def test_a_storage_class_and_an_image_of_the_readers_choice(fake: Fake) -> None:
    fake.put({"kind": "StorageClass", "metadata": {"name": "fast"}})
    done = fake.run("up", "--storage-class", "fast", "--image", "registry.example.com:5000/course:7")
    assert done.code == 0, done.err
    objects = fake.state["objects"]
    claim = objects["StatefulSet/rabbitmq"]["spec"]["volumeClaimTemplates"][0]
    assert claim["spec"]["storageClassName"] == "fast"
    worker = objects["Deployment/work-queue-worker"]["spec"]["template"]["spec"]["containers"][0]
    assert worker["image"] == "registry.example.com:5000/course:7"


def test_the_image_is_built_and_loaded_under_the_name_of_its_content(fake: Fake) -> None:
    fake.add(
        "docker",
        f'echo "$@" >> "{fake.folder}/docker"; case "$1 $2" in "image inspect") echo sha256:0123456789abcdef;; esac',
    )
    fake.add("kind", f'echo "$@" >> "{fake.folder}/kind"')
    done = fake.run("up")
    assert done.code == 0, done.err
    assert (fake.folder / "kind").read_text() == f"load docker-image --name test {COURSE}:0123456789ab\n"
    built = (fake.folder / "docker").read_text()
    assert f"build --quiet --tag {COURSE}:dev {ROOT}\n" in built
    worker = fake.state["objects"]["Deployment/work-queue-worker"]["spec"]["template"]["spec"]["containers"][0]
    assert worker["image"] == f"{COURSE}:0123456789ab"


def test_without_a_cluster_kind_makes_one_and_down_removes_it(fake: Fake) -> None:
    fake.set(context="")
    alone = fake.run("up")
    assert alone.code == 69
    assert alone.err.startswith("error: kubectl knows no cluster; choose one with: kubectl config use-context NAME")
    fake.add("docker", 'test "$1" != info')
    fake.add("kind", f'echo "$@" >> "{fake.folder}/kind"')
    done = fake.run("up")
    assert done.code == 0, done.err
    assert f"create cluster --name {COURSE} --wait 180s" in (fake.folder / "kind").read_text()
    fake.set(context=f"kind-{COURSE}")
    gone = fake.run("down", "--yes")
    assert gone.code == 0, gone.err
    assert (fake.folder / "kind").read_text().endswith(f"delete cluster --name {COURSE}\n")


def test_a_cluster_elsewhere_is_not_touched_without_a_yes(fake: Fake) -> None:
    fake.set(context="company-production")
    done = fake.run("up")
    assert (done.code, done.out) == (2, "the cluster is 'company-production'\n")
    assert done.err == "error: nothing was done to the cluster 'company-production'; YES=1 agrees beforehand\n"
    assert fake.changed() == []
    agreed = fake.run("up", "--yes")
    assert agreed.code == 0, agreed.err


def test_what_is_asked_at_a_terminal(fake: Fake) -> None:
    assert fake.run("up").code == 0
    fake.set(context="company-production")

    def answer(*lines: str) -> str:
        terminal, theirs = pty.openpty()
        try:
            os.write(terminal, "".join(f"{line}\n" for line in lines).encode())
            command = [sys.executable, "-m", "deploy", "down"]
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=fake.environ,
                stdin=theirs,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        finally:
            os.close(terminal)
            os.close(theirs)
        return done.stdout + done.stderr

    calls = len(fake.changed())
    told = answer("n")
    assert "'company-production' is not on this machine. Take the course away from it? [y/N] " in told
    assert "nothing was done to the cluster 'company-production'" in told
    assert fake.changed()[calls:] == []
    told = answer("y", "n")
    assert "Delete RabbitMQ's data as well, and with it every message? [y/N] " in told
    assert "the data and the password stay" in told
    assert "everything is gone, the data too" in answer("y", "y")


WAITING = {"phase": "Pending", "conditions": []}


def waiting(reason: str, message: str, **last: Any) -> dict[str, Any]:
    container = {"name": "script", "ready": False, "restartCount": 3 if last else 0}
    container |= {"state": {"waiting": {"reason": reason, "message": message}}}
    if last:
        container["lastState"] = {"terminated": last}
    return WAITING | {"containerStatuses": [container]}


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (waiting("ErrImageNeverPull", "not here"), "(ErrImageNeverPull: not here)"),
        (waiting("ImagePullBackOff", "not found"), "(ErrImagePull: not found, after 3 s)"),
        (
            WAITING
            | {
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "no room\non 3. no new claims to deallocate, preemption: 0/3 nodes are available",
                    }
                ]
            },
            "(Unschedulable: no room on 3, after 3 s)",
        ),
        (
            waiting("CrashLoopBackOff", "back-off", exitCode=77),
            "(CrashLoopBackOff: the container script ended with exit code 77, after 3 s)",
        ),
    ],
)
def test_a_pod_that_does_not_become_ready_is_named_with_its_reason(
    fake: Fake, trouble: dict[str, Any], words: str
) -> None:
    fake.set(troubled="work-queue-worker", trouble=trouble, log="error: RabbitMQ refused user 'course'")
    done = fake.run("up", "--timeout", "3")
    assert done.code == 69
    warned, failed = done.err.splitlines()[-2:]
    assert warned == " [!] work-queue-worker-0: error: RabbitMQ refused user 'course'"
    assert failed.startswith("error: the pod work-queue-worker-0 does not become ready ")
    assert words in failed
    assert "take it away with make k8s-down" in failed


def test_a_volume_that_does_not_come_is_the_reason(fake: Fake) -> None:
    """Kubernetes says nothing about the pod then: what it waits for is among the events of the claim."""
    fake.set(troubled="rabbitmq", trouble=WAITING)
    fake.put(
        {
            "kind": "Event",
            "metadata": {"name": "2"},
            "involvedObject": {"name": "data-rabbitmq-0"},
            "reason": "ExternalProvisioning",
            "message": "Waiting for a volume\nto be created",
            "lastTimestamp": "2026-01-01T00:00:02Z",
        },
        {
            "kind": "Event",
            "metadata": {"name": "1"},
            "involvedObject": {"name": "data-rabbitmq-0"},
            "reason": "WaitForFirstConsumer",
            "message": "waiting for first consumer",
            "lastTimestamp": "2026-01-01T00:00:01Z",
        },
    )
    done = fake.run("up", "--timeout", "2")
    assert done.code == 69
    assert done.err.splitlines()[-3:-1] == [
        " [!] rabbitmq-0: WaitForFirstConsumer: waiting for first consumer",
        " [!] rabbitmq-0: ExternalProvisioning: Waiting for a volume to be created",
    ]
    assert "the pod rabbitmq-0 does not become ready (Pending, after 2 s)" in done.err
    assert "  ExternalProvisioning: Waiting for a volume to be created\n" in fake.run("status").out


def test_of_several_pods_that_are_late_it_is_rabbitmq_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    late = [progress.Pod(name, False, "starting", "", 0, "machine-1") for name in ("dead-letters-cook-1", "rabbitmq-0")]
    monkeypatch.setattr(progress, "pods", lambda _: late)
    monkeypatch.setattr(progress.Watch, "_last_lines", lambda *_: [])
    with pytest.raises(progress.NotReady, match=r"the pod rabbitmq-0 does not become ready \(starting, after -1 s\)"):
        progress.Watch(Kubectl("kind-test"), -1).look("all")


def test_of_a_long_reason_the_end_is_kept() -> None:
    message = f'Back-off pulling image "a:1": ErrImagePull: {"failed to do request: " * 20}no such host'
    why = progress.Pod("a", False, "ErrImagePull", message, 0, "").why(200)
    assert len(why) == 200
    assert why.startswith('ErrImagePull: Back-off pulling image "a:1": ')
    assert why.endswith(" no such host")
    assert progress.Pod("a", False, "ErrImagePull", "not found", 0, "").why(200) == "ErrImagePull: not found"


def test_what_is_mended_goes_on_from_there(fake: Fake) -> None:
    fake.set(troubled="rabbitmq", trouble=waiting("InvalidImageName", "cannot be read"))
    assert fake.run("up").code == 69
    fake.set(trouble=None)
    again = fake.run("up")
    assert again.code == 0, again.err
    assert "0 new, 0 changed" in again.out


def test_examples_that_fail_in_the_cluster(fake: Fake) -> None:
    fake.set(smoke="Failed", log="FAILED work_queue")
    done = fake.run("up")
    assert done.code == 65
    assert "FAILED work_queue" in done.out
    assert "failed, BackoffLimitExceeded" in done.err
    fake.set(smoke="Complete")
    again = fake.run("up")
    assert again.code == 0, again.err
    assert len(fake.names("Job")) == 1


def test_the_job_of_an_older_deployment_does_not_stay(fake: Fake) -> None:
    assert fake.run("up", "--image", "registry.example.com/course:1").code == 0
    first = fake.names("Job")
    assert fake.run("up", "--image", "registry.example.com/course:2").code == 0
    assert len(fake.names("Job")) == 1
    assert fake.names("Job") != first


def test_what_is_missing_is_told_before_anything_is_changed(fake: Fake) -> None:
    def refused(code: int, *arguments: str) -> str:
        done = fake.run("up", *arguments)
        assert done.code == code
        assert fake.changed() == []
        assert len(done.err.splitlines()) == 1
        return done.err

    assert "has no storage class 'fast'; it has: standard" in refused(69, "--storage-class", "fast")
    objects = fake.state["objects"]
    fake.set(objects={"Node/machine-1": machine(1)})
    assert "no default storage class, so RabbitMQ would get no volumes" in refused(69)
    fake.set(objects=objects)
    somebody = {"kind": "Namespace", "metadata": {"name": COURSE, "labels": {}}}
    fake.put(somebody, {"kind": "Deployment", "metadata": {"name": "shop"}, "spec": {}})
    assert "exists with something else in it (deployment shop)" in refused(69)
    # `make k8s-down` would delete it with the namespace.
    fake.set(objects=objects)
    fake.put(somebody, {"kind": "CronJob", "metadata": {"name": "backup"}, "spec": {}})
    assert "exists with something else in it (cronjob backup)" in refused(69)
    fake.set(objects=objects)
    assert "needs a tag" in refused(69, "--image", "registry.example.com:5000/course")
    fake.set(unreachable="The connection to the server 127.0.0.1:6443 was refused")
    assert "the cluster 'kind-test' does not answer (The connection to the server" in refused(69)
    (fake.folder / "bin" / "kubectl").unlink()
    assert refused(78) == "error: kubectl is not installed; see https://kubernetes.io/docs/tasks/tools/\n"


def test_volumes_that_cannot_be_changed(fake: Fake) -> None:
    assert fake.run("up").code == 0
    before, calls = fake.state["objects"], len(fake.changed())
    fake.set(
        forbidden='The StatefulSet "rabbitmq" is invalid: spec: Forbidden: updates to statefulset spec for fields '
        "other than 'replicas' are forbidden"
    )
    done = fake.run("up", "--storage-class", "standard")
    assert done.code == 69
    assert "volumes of another size or class" in done.err
    # It would not do to change the Service and the consumers, and then to find out.
    assert fake.changed()[calls:] == []
    assert fake.state["objects"] == before


def test_a_deployment_keeps_its_overlay_when_machines_come(fake: Fake) -> None:
    assert fake.run("up").code == 0
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "data-rabbitmq-0", "labels": {}}}
    fake.put(machine(2), machine(3), claim)
    again = fake.run("up")
    assert again.code == 0, again.err
    assert "it goes on with what is there (OVERLAY=local)" in again.out
    assert "0 new, 0 changed, 26 as they were" in again.out

    # Also when only the data is left of it.
    assert fake.run("down").code == 0
    calls = len(fake.changed())
    other = fake.run("up", "--overlay", "production")
    assert other.code == 69
    assert "data is there, from OVERLAY=local, and production cannot go on with it" in other.err
    assert fake.changed()[calls:] == []


def test_wrong_words_on_the_command_line(fake: Fake) -> None:
    done = fake.run("up", "--overlay", "huge")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("kind-x", True),
        ("minikube", True),
        ("k3d-a", True),
        ("docker-desktop", True),
        ("gke_p_kind-x", False),
        ("", False),
    ],
)
def test_which_clusters_are_local(name: str, local: bool) -> None:
    assert target.is_local(name) is local


def test_an_image_without_a_tag_is_refused() -> None:
    assert image.parts("host:5000/a/b:1") == ("host:5000/a/b", "1")
    for wrong in ("a", "host:5000/a", "a:latest", ":1"):
        with pytest.raises(KubernetesFailure):
            image.parts(wrong)


def test_what_one_watch_has_told_the_next_does_not_tell_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = "Pending"
    monkeypatch.setattr(
        progress, "pods", lambda _: [progress.pod({"metadata": {"name": "a"}, "status": {"phase": phase}})]
    )
    watch = progress.Watch(Kubectl("kind-test"), 60)
    watch.look("a")
    assert capsys.readouterr().out == "     0 s  a: Pending\n"
    following = watch.then(60)
    following.look("a")
    assert capsys.readouterr().out == ""
    phase = "Unknown"
    following.look("a")
    assert capsys.readouterr().out == "     0 s  a: Unknown\n"


def test_a_pod_that_is_being_stopped_is_not_ready() -> None:
    item = {
        "metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }
    assert (progress.pod(item).ready, progress.pod(item).reason) == (False, "stopping")


def test_a_pod_that_runs_and_is_not_ready() -> None:
    def reason(state: str, **container: Any) -> str:
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}
        init = {"name": "prepare", "ready": True, "state": {"terminated": {"exitCode": 0}}}
        containers = [{"name": "a", "state": {state: {"exitCode": 69}}, **container}]
        statuses = {"initContainerStatuses": [init], "containerStatuses": containers}
        return progress.pod({"metadata": {"name": "a"}, "status": status | statuses}).reason

    assert reason("running", ready=False) == "starting"
    assert reason("running", ready=False, lastState={"terminated": {"exitCode": 69}}) == "starting again"
    assert reason("terminated", ready=False) == "ended with exit code 69"
    # Kubernetes leaves the containers as they were when a machine is lost.
    assert reason("running", ready=True) == "its machine does not answer"
