"""The status of a pod from the states of its containers. Pure but for the time of a condition's last change."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from k8s.local.documents import Doc, at, meta, now


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Container:
    """What the kubelet knows of one container."""

    spec: Doc
    kind: str  # "init", "sidecar" or "main"
    state: Doc = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last: Doc = field(default_factory=dict)
    restarts: int = 0
    started: bool = False
    probed_ready: bool = False
    container_id: str = ""
    image_id: str = ""

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def running(self) -> bool:
        return "running" in self.state

    @property
    def exit_code(self) -> int | None:
        return at(self.state, "terminated.exitCode")

    @property
    def ready(self) -> bool:
        if self.kind == "init":
            return self.exit_code == 0
        return self.running and self.started and self.probed_ready

    def document(self) -> Doc:
        found: Doc = {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": self.image_id,
            "ready": self.ready,
            "started": self.started and self.running,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last,
        }
        if self.container_id:
            found["containerID"] = self.container_id
        return found


def policy_of(pod: Doc, container: Container) -> str:
    if container.kind == "sidecar":
        return "Always"
    policy = str(container.spec.get("restartPolicy") or pod["spec"].get("restartPolicy") or "Always")
    return "OnFailure" if container.kind == "init" and policy == "Always" else policy


def phase(pod: Doc, containers: list[Container]) -> str:
    """As the kubelet decides it."""
    policy = pod["spec"].get("restartPolicy") or "Always"
    for container in containers:
        if container.kind == "init" and container.exit_code != 0:
            failed = container.exit_code is not None and policy == "Never"
            return "Failed" if failed else "Pending"
        if container.kind == "sidecar" and not container.started and not container.last and "terminated" not in container.state:
            return "Pending"
    waiting = running = stopped = succeeded = 0
    for container in containers:
        if container.kind != "main":
            continue
        code = container.exit_code
        if container.running:
            running += 1
        elif code is not None:
            stopped += 1
            succeeded += code == 0
        elif "terminated" in container.last:
            stopped += 1
        else:
            waiting += 1
    if waiting:
        return "Pending"
    if running:
        return "Running"
    if policy == "Always":
        return "Running"
    if stopped == succeeded:
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def qos_class(pod: Doc) -> str:
    requests_any, guaranteed = False, True
    for container in [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]:
        limits, requests = at(container, "resources.limits", {}), at(container, "resources.requests", {})
        for name in ("cpu", "memory"):
            if name in limits or name in requests:
                requests_any = True
            if name not in limits or str(requests.get(name, limits[name])) != str(limits[name]):
                guaranteed = False
    return "Guaranteed" if requests_any and guaranteed else "Burstable" if requests_any else "BestEffort"


def condition(kind: str, good: bool, reason: str = "", message: str = "") -> Doc:
    found: Doc = {"type": kind, "status": "True" if good else "False"}
    if reason:
        found["reason"] = reason
    if message:
        found["message"] = message
    return found


def merge_conditions(old: list[Doc], new: list[Doc]) -> list[Doc]:
    """`new` with the time of the last change kept where the status is the same; other conditions of `old` are kept."""
    before = {item["type"]: item for item in old}
    merged = []
    for item in new:
        had = before.pop(item["type"], None)
        same = had is not None and had["status"] == item["status"]
        stamp = had["lastTransitionTime"] if had is not None and same and "lastTransitionTime" in had else now()
        merged.append({**item, "lastProbeTime": None, "lastTransitionTime": stamp})
    return merged + list(before.values())


def conditions(pod: Doc, containers: list[Container], found_phase: str, has_network: bool) -> list[Doc]:
    inits = [item.name for item in containers if (item.kind == "init" and item.exit_code != 0) or (item.kind == "sidecar" and not item.started)]
    unready = [item.name for item in containers if item.kind != "init" and not item.ready]
    over = found_phase in ("Succeeded", "Failed")
    why = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(found_phase, "")
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or []]
    passed = {item["type"] for item in at(pod, "status.conditions", []) if item["status"] == "True"}
    missing = [gate for gate in gates if gate not in passed]
    unready_text = f"containers with unready status: [{' '.join(unready)}]"
    good = not unready and not over
    if over:
        init_done = condition("Initialized", True, why if found_phase == "Succeeded" else "")
    elif inits:
        init_done = condition("Initialized", False, "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(inits)}]")
    else:
        init_done = condition("Initialized", True)
    all_ready = condition("ContainersReady", True) if good else condition("ContainersReady", False, why or "ContainersNotReady", "" if over else unready_text)
    if good and missing:
        ready = condition("Ready", False, "ReadinessGatesNotReady", f'corresponding condition of pod readiness gate "{missing[0]}" does not exist.')
    else:
        ready = {**all_ready, "type": "Ready"}
    return [condition("PodReadyToStartContainers", has_network and not over), init_done, ready, all_ready, condition("PodScheduled", True)]


def pod_status(pod: Doc, containers: list[Container], *, ip: str, host_ip: str, started_at: str, failure: Doc | None = None) -> Doc:
    """The whole status. `failure` (reason, message) makes the pod Failed whatever its containers say."""
    old: dict[str, Any] = pod.get("status") or {}
    found_phase = "Failed" if failure else phase(pod, containers)
    status: Doc = {key: value for key, value in old.items() if key in ("nominatedNodeName", "resourceClaimStatuses", "observedGeneration")}
    status.update(
        phase=found_phase,
        conditions=merge_conditions(old.get("conditions") or [], conditions(pod, containers, found_phase, bool(ip))),
        hostIP=host_ip,
        hostIPs=[{"ip": host_ip}],
        startTime=old.get("startTime") or started_at,
        qosClass=old.get("qosClass") or qos_class(pod),
        containerStatuses=[item.document() for item in containers if item.kind == "main"],
    )
    if meta(pod).get("generation"):
        status["observedGeneration"] = meta(pod)["generation"]
    if ip:
        status.update(podIP=ip, podIPs=[{"ip": ip}])
    inits = [item.document() for item in containers if item.kind != "main"]
    if inits:
        status["initContainerStatuses"] = inits
    status.update(failure or {})
    return status
