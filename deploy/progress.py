"""Waiting for what was applied, with a line for each step, and the reason when it does not come."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from common.console import say, warn
from common.errors import ExitCode
from deploy.kubectl import NAMESPACE, Json, Kubectl, KubernetesFailure

LOOK_EVERY = 2.0
LOG_LINES = 12
EVENTS = 3

HOPELESS = {
    "InvalidImageName": 0.0,
    "ErrImageNeverPull": 0.0,
    "ErrImagePull": 45.0,
    "CreateContainerConfigError": 30.0,
    "CreateContainerError": 30.0,
    "RunContainerError": 30.0,
    "CrashLoopBackOff": 60.0,
    "Unschedulable": 60.0,
}
"""States of a pod that do not end by themselves, and the seconds for which one may last all the same."""

PREEMPTION = re.compile(r"\.? (?:no new claims to deallocate, )?preemption: ")


class NotReady(KubernetesFailure):
    """A pod does not become ready; the text names it and the reason."""

    exit_code = ExitCode.UNAVAILABLE


@dataclass(frozen=True)
class Pod:
    """A pod: whether it is ready, and if not, why, in Kubernetes' word and in its sentence."""

    name: str
    ready: bool
    reason: str
    message: str
    restarts: int
    machine: str
    claims: tuple[str, ...] = ()
    """The claims of the volumes that it waits for."""

    def why(self, length: int) -> str:
        """The reason in one line of no more than ``length`` characters; what led to it comes last, and is kept."""
        line = f"{self.reason}: {self.message}" if self.message else self.reason
        return (
            line if len(line) <= length else f"{line[: length // 3]} … {line[len(line) - length + length // 3 + 3 :]}"
        )

    @property
    def is_rabbitmq(self) -> bool:
        """Whether it is one of those that all others wait for."""
        return self.name.startswith("rabbitmq-")


def pod(item: Json) -> Pod:
    """Read what Kubernetes says of a pod."""
    status = item.get("status", {})
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    reason, message = status.get("reason") or status.get("phase", "Unknown"), status.get("message", "")
    ready = conditions.get("Ready", {}).get("status") == "True"
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        # After why no machine will do comes what throwing out other pods would bring. There are none to throw out.
        reason, message = scheduled.get("reason", reason), PREEMPTION.split(scheduled.get("message", ""))[0]
    for container in containers:
        state = container.get("state", {})
        last = container.get("lastState", {}).get("terminated") or {}
        if (waiting := state.get("waiting")) and waiting.get("reason") != "PodInitializing":
            reason, message = waiting.get("reason", reason), waiting.get("message", "")
            # It goes to and fro between trying and waiting to try again: one trouble, not two.
            reason = "ErrImagePull" if reason == "ImagePullBackOff" else reason
            if last:
                message = f"the container {container['name']} ended with exit code {last.get('exitCode')}"
                message += f" ({last['reason']})" if last.get("reason") == "OOMKilled" else ""
        elif state.get("running") and not container.get("ready") and not ready and reason == "Running":
            reason = "starting" if not last else "starting again"
        elif (ended := state.get("terminated")) and container in status.get("containerStatuses", []) and not ready:
            reason = f"ended with exit code {ended.get('exitCode')}"
    if reason == "Running" and not ready:
        # Its containers were well when they were last heard of.
        reason = "its machine does not answer"
    if item["metadata"].get("deletionTimestamp"):
        reason, ready = "stopping", False
    restarts = sum(container.get("restartCount", 0) for container in containers)
    return Pod(
        item["metadata"]["name"],
        ready,
        "ready" if ready else reason,
        " ".join(message.split()),
        restarts,
        item.get("spec", {}).get("nodeName", ""),
        tuple(
            volume["persistentVolumeClaim"]["claimName"]
            for volume in item.get("spec", {}).get("volumes", [])
            if "persistentVolumeClaim" in volume
        ),
    )


def pods(kubectl: Kubectl) -> list[Pod]:
    """The pods of the course, but those of Jobs that are over."""
    return [
        pod(item)
        for item in kubectl.items("pods", "--selector", f"app.kubernetes.io/part-of={NAMESPACE}")
        if item.get("status", {}).get("phase") not in ("Succeeded", "Failed")
    ]


def events(kubectl: Kubectl, late: Pod) -> list[str]:
    """What Kubernetes has noted about a pod lately; of its volumes, if about itself there is nothing."""
    for name in (late.name, *late.claims):
        found = kubectl.items("events", "--field-selector", f"involvedObject.name={name}")
        if found:
            found.sort(key=_when)
            return [f"{item.get('reason')}: {' '.join(item.get('message', '').split())}" for item in found[-EVENTS:]]
    return []


def _when(event: Json) -> str:
    times = (event.get("series", {}).get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next((str(time) for time in times if time), "")


class Watch:
    """Looks at the pods again and again; says what has changed, and raises NotReady when one is beyond hope."""

    def __init__(self, kubectl: Kubectl, limit: float) -> None:
        """``limit`` is in seconds, for all of it."""
        self._kubectl = kubectl
        self._limit = limit
        self._started = time.monotonic()
        self._since: dict[tuple[str, str], float] = {}
        self._told: dict[str, str] = {}

    def then(self, limit: float) -> Watch:
        """A watch for what comes next, for ``limit`` seconds from now. It does not repeat what this one has said."""
        following = Watch(self._kubectl, limit)
        following._told = self._told
        return following

    def until_ready(self) -> None:
        """Wait until everything that is applied runs, in its newest form, and is ready. Raises NotReady."""
        while open_ends := self._open_ends():
            self.look(" and ".join(open_ends[:3]))
            time.sleep(LOOK_EVERY)

    def look(self, what: str) -> None:
        """Say which pods have changed. Raises NotReady if one is beyond hope, or if time is up for ``what``."""
        now = time.monotonic()
        # RabbitMQ first: if several are late, the others are because of it.
        found = sorted(pods(self._kubectl), key=lambda each: not each.is_rabbitmq)
        for each in found:
            if self._told.get(each.name) != each.reason:
                self._told[each.name] = each.reason
                say(f"  {now - self._started:4.0f} s  {each.name}: {each.reason}")
        self._since = {
            (each.name, each.reason): self._since.get((each.name, each.reason), now) for each in found if not each.ready
        }
        for each in found:
            grace = HOPELESS.get(each.reason)
            if not each.ready and grace is not None and now - self._since[each.name, each.reason] >= grace:
                self._give_up(each, each.why(300))
        if now - self._started > self._limit:
            late = next((each for each in found if not each.ready), None)
            if late is not None:
                self._give_up(late, f"{late.why(300)}, after {self._limit:.0f} s")
            raise NotReady(f"{what}: not there after {self._limit:.0f} s")

    def _give_up(self, late: Pod, why: str) -> None:
        for line in self._last_lines(late):
            warn(f"{late.name}: {line}")
        raise NotReady(f"the pod {late.name} does not become ready ({why})")

    def _last_lines(self, late: Pod) -> list[str]:
        """The end of its log, of the run before if it has just been started again; else what else tells the reason."""
        options = ["logs", late.name, "--all-containers", f"--tail={LOG_LINES}"]
        for command in ([*options, "--previous"], options) if late.restarts else (options,):
            try:
                lines = self._kubectl.here(*command).splitlines()
            except KubernetesFailure:
                # It never ran: there is no log, and the reason says it all.
                continue
            if lines:
                return lines[-LOG_LINES:]
        return [] if late.message else events(self._kubectl, late)

    def _open_ends(self) -> list[str]:
        """What is not yet as it was asked for."""
        return [
            item["metadata"]["name"] for item in self._kubectl.items("statefulsets,deployments") if not _settled(item)
        ]


def _settled(item: Json) -> bool:
    status, wanted = item.get("status", {}), item["spec"].get("replicas", 1)
    if status.get("observedGeneration", 0) < item["metadata"].get("generation", 0):
        return False
    counts = ["replicas", "updatedReplicas", "availableReplicas"]
    return all(status.get(count, 0) == wanted for count in counts)
