"""The manifests: valid in several versions of Kubernetes, and as careful as the README says they are."""

from __future__ import annotations

import re

import kubernetes_validate
import pytest

from tests.kubernetes.conftest import OVERLAYS, ROOT, Manifest, find, pod_of, pods, rendered

# In one process, which renders each overlay once.
pytestmark = pytest.mark.xdist_group("kubernetes.manifests")

BETWEEN = [pytest.param(version, marks=pytest.mark.long) for version in ("1.33", "1.34", "1.35", "1.36")]
CONSUMERS = 6
PLAYGROUND = 1


@pytest.mark.parametrize("version", ["1.32", *BETWEEN, "1.37"])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_valid(overlay: str, version: str) -> None:
    for item in rendered(overlay):
        kubernetes_validate.validate(item, version, strict=True)


def test_the_schemas_see_a_mistake() -> None:
    item = find(rendered("local"), "Service", "rabbitmq")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**item, "spec": {**item["spec"], "sellector": {}}}, "1.36", strict=True)


def test_everything_is_in_the_namespace_of_the_course(objects: list[Manifest]) -> None:
    for item in objects:
        metadata = item["metadata"]
        assert metadata.get("namespace", metadata["name"]) == "rabbitmq-by-example"
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "rabbitmq-by-example"


def test_pod_security_is_restricted(objects: list[Manifest]) -> None:
    labels = find(objects, "Namespace", "rabbitmq-by-example")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
    assert len(pods(objects)) > CONSUMERS
    for name, pod in pods(objects):
        own = pod["securityContext"]
        assert own["runAsNonRoot"] is True, name
        assert own["runAsUser"] > 0, name
        assert own["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), name
        for volume in pod["volumes"]:
            assert set(volume) - {"name"} <= allowed, name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name


def test_images_have_a_version_and_containers_a_limit(objects: list[Manifest]) -> None:
    for name, pod in pods(objects):
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            image, _, tag = container["image"].rpartition(":")
            assert image, name
            assert tag not in ("", "latest"), name
            for kind in ("requests", "limits"):
                assert set(container["resources"][kind]) == {"cpu", "memory"}, name


def test_what_goes_on_for_ever_has_probes_and_time_to_stop(objects: list[Manifest]) -> None:
    for item in objects:
        if item["kind"] in ("Deployment", "StatefulSet"):
            pod = pod_of(item)
            assert pod is not None
            for container in pod["containers"]:
                assert {"readinessProbe", "livenessProbe"} <= set(container), item["metadata"]["name"]
            assert pod["terminationGracePeriodSeconds"] >= 40


def test_nobody_gets_a_token_or_the_variables_of_services(objects: list[Manifest]) -> None:
    for name, pod in pods(objects):
        assert pod["automountServiceAccountToken"] is False, name
        # With them, RABBITMQ_PORT is "tcp://…".
        assert pod["enableServiceLinks"] is False, name


def test_no_secret_is_in_the_manifests(objects: list[Manifest]) -> None:
    assert [item["metadata"]["name"] for item in objects if item["kind"] == "Secret"] == []
    for name, pod in pods(objects):
        for container in pod["containers"]:
            for variable in container.get("env", []):
                if re.search("PASS|SECRET|COOKIE|TOKEN", variable["name"]):
                    assert "secretKeyRef" in variable["valueFrom"], name


def test_labels_lead_to_pods(objects: list[Manifest]) -> None:
    made = [
        (item["spec"]["jobTemplate"]["spec"] if item["kind"] == "CronJob" else item["spec"])["template"]["metadata"][
            "labels"
        ]
        for item in objects
        if pod_of(item)
    ]
    for item in objects:
        match item["kind"]:
            case "Service":
                wanted = item["spec"]["selector"]
            case "Deployment" | "StatefulSet" | "PodDisruptionBudget":
                wanted = item["spec"]["selector"]["matchLabels"]
            case "NetworkPolicy" if item["spec"]["podSelector"]:
                wanted = item["spec"]["podSelector"]["matchLabels"]
            case _:
                continue
        name = f"{item['kind']} {item['metadata']['name']}"
        met = [labels for labels in made if wanted.items() <= labels.items()]
        assert met, name
        if item["kind"] != "NetworkPolicy":
            assert len(met) == 1, name


def test_the_ports_of_services_and_policies_exist(objects: list[Manifest]) -> None:
    pod = pod_of(find(objects, "StatefulSet", "rabbitmq"))
    assert pod is not None
    ports = {port["name"] for port in pod["containers"][0]["ports"]}
    service = find(objects, "Service", "rabbitmq")
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for item in objects:
        if item["kind"] == "NetworkPolicy":
            rules = [*item["spec"].get("ingress", []), *item["spec"].get("egress", [])]
            named = {port["port"] for rule in rules for port in rule["ports"] if isinstance(port["port"], str)}
            assert named <= ports


def test_the_configuration_is_that_of_everywhere(objects: list[Manifest]) -> None:
    data = find(objects, "ConfigMap", "rabbitmq-config")["data"]
    assert sorted(data) == ["enabled_plugins", "rabbitmq.conf"]
    for name, text in data.items():
        assert text == (ROOT / "broker" / name).read_text(encoding="utf-8")


def test_the_consumers_run_scripts_that_are_there_and_leave_their_number_alone(objects: list[Manifest]) -> None:
    deployments = [item for item in objects if item["kind"] == "Deployment"]
    assert len(deployments) == CONSUMERS + PLAYGROUND
    for item in deployments:
        # Who scales has the last word.
        assert "replicas" not in item["spec"]
    for name, pod in pods(objects):
        command = pod["containers"][0]["command"]
        if command[0] == "python" and command[1] != "-m":
            assert (ROOT / command[1]).is_file(), name


def test_the_workers_are_the_robust_ones_and_their_queues_have_replicas(objects: list[Manifest]) -> None:
    worker = pod_of(find(objects, "Deployment", "work-queue-worker"))
    assert worker is not None
    assert worker["containers"][0]["command"] == ["python", "robust_clients/worker.py"]
    configuration = find(objects, "ConfigMap", "rabbitmq-kubernetes")["data"]["kubernetes.conf"]
    assert "\ndefault_queue_type = quorum\n" in configuration


def test_producers_never_start_by_themselves(objects: list[Manifest]) -> None:
    jobs = [item for item in objects if item["kind"] == "CronJob"]
    assert {"smoke", "load", "work-queue-new-task"} <= {item["metadata"]["name"] for item in jobs}
    for item in jobs:
        assert item["spec"]["suspend"] is True
        assert item["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0


def test_one_node_may_be_missing_and_no_more() -> None:
    objects = rendered("production")
    assert find(objects, "StatefulSet", "rabbitmq")["spec"]["replicas"] == 3
    assert find(objects, "PodDisruptionBudget", "rabbitmq")["spec"]["maxUnavailable"] == 1
    assert find(rendered("local"), "StatefulSet", "rabbitmq")["spec"]["replicas"] == 1


def test_production_has_tls_and_nothing_without() -> None:
    objects = rendered("production")
    assert [port["port"] for port in find(objects, "Service", "rabbitmq")["spec"]["ports"]] == [5671, 15672, 15692]
    for name, pod in pods(objects):
        script = pod["containers"][0]
        if script["name"] == "script":
            assert {"name": "RABBITMQ_TLS", "value": "true"} in script["env"], name
            volume = next(volume for volume in pod["volumes"] if volume["name"] == "tls")
            # The certificate of the authority, not RabbitMQ's key.
            assert [item["key"] for item in volume["secret"]["items"]] == ["ca.crt"]
