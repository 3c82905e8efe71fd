"""What is there, in words: (spec, objects as the cluster lists them) -> snapshot for the row, and a verdict. Pure.

The snapshot has the form that docs/architecture.md gives for `Environment.observed`. Findings about single pods are in `k8s.diagnosis`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from . import diagnosis, names, operators, runs
from .diagnosis import Finding
from .hub import trouble
from .spec import EnvironmentSpec, Role

Object = Mapping[str, Any]


class Phase(StrEnum):
    """How far an environment is from what its spec asks for."""

    GONE = "gone"  # nothing runs; it has to be started
    PROGRESSING = "progressing"
    READY = "ready"
    DEGRADED = "degraded"  # usable, but not all of it is there
    FAILED = "failed"  # waiting will not help
    COMPLETED = "completed"  # what it was to run has ended with 0


@dataclass(frozen=True, kw_only=True)
class Server:
    """A named server as JupyterHub's API tells it. `failure`: why its last spawn failed, in the Hub's words."""

    ready: bool = False
    pending: str = ""
    url: str = ""
    failure: str = ""

    @property
    def active(self) -> bool:
        return self.ready or bool(self.pending)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the cluster and the Hub list for one environment."""

    pods: Sequence[Object] = ()
    sets: Sequence[Object] = ()
    jobs: Sequence[Object] = ()
    custom: Object | None = None  # the operator's object
    events: Sequence[Object] = ()  # Warnings of the namespace; those about other objects are passed over
    claim: Object | None = None
    server: Server | None = None
    lost_nodes: frozenset[str] = frozenset()  # nodes of its pods that do not answer, or are gone


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`reason` is a stable code, `message` says the same in words with what to do."""

    phase: Phase
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """`without_room`: seconds for which a pod has found no node, the longest of them."""

    verdict: Verdict
    snapshot: dict[str, Any]
    findings: tuple[Finding, ...] = field(default=())
    without_room: float = 0.0


_WELL = (Phase.READY, Phase.COMPLETED)
STEPS = (
    ("quota", "Quota reserved"),
    ("queue", "Admitted by the queue"),
    ("pod", "Placed on a node"),
    ("volume", "Home volume attached"),
    ("network", "Network address given"),
    ("image", "Image pulled"),
    ("start", "Processes started"),
    ("ready", "Ready"),
)


def observe(spec: EnvironmentSpec, seen: Seen, *, now: datetime, was_ready: bool) -> Observation:
    """Compare what is there with `spec`. `was_ready`: it was up before: a cluster in this run, a notebook at the last look."""
    findings = _findings(spec, seen, now)
    verdict = _notebook_verdict(seen, findings, was_ready) if spec.kind == "notebook" else _cluster_verdict(spec, seen, findings, was_ready, now)
    snapshot: dict[str, Any] = {
        "replicas": _replicas(spec, seen.pods),
        "endpoints": _endpoints(spec, seen.pods),
        "steps": _steps(spec, seen, verdict, findings),
        "snippet": spec.connect_snippet,
    }
    if spec.kind == "notebook":
        snapshot["hub_url"] = seen.server.url if seen.server and seen.server.ready else ""
    without = [(now - since).total_seconds() for pod in _needed(spec, seen.pods) if (since := diagnosis.without_room_since(pod))]
    return Observation(verdict=verdict, snapshot=snapshot, findings=tuple(findings), without_room=max(without, default=0.0))


def _needed(spec: EnvironmentSpec, pods: Sequence[Object]) -> Sequence[Object]:
    """Pods without which it cannot start: all of them, or where each comes by itself those of roles that have none on a node."""
    if spec.gang:
        return pods
    placed = {pod["metadata"].get("labels", {}).get(names.ROLE) for pod in pods if pod["spec"].get("nodeName")}
    return [pod for pod in pods if pod["metadata"].get("labels", {}).get(names.ROLE) not in placed]


def _findings(spec: EnvironmentSpec, seen: Seen, now: datetime) -> list[Finding]:
    """Everything that is wrong or worth waiting for, the gravest first."""
    once = {role.name for role in spec.roles if role.once}
    steady = [pod for pod in seen.pods if pod["metadata"].get("labels", {}).get(names.ROLE) not in once]
    found = [finding for pod in steady if (finding := diagnosis.lost_finding(pod, seen.lost_nodes) or diagnosis.pod_finding(pod, now))]
    found += [finding for role in spec.roles if role.once for finding in runs.findings(role, seen.pods, seen.lost_nodes, now)]
    single = [item for item in (seen.claim, seen.custom) if item]
    own = {item["metadata"]["uid"] for item in (*seen.pods, *seen.sets, *seen.jobs, *single)}
    events = [event for event in seen.events if event.get("involvedObject", {}).get("uid") in own]
    found.extend(f for item in (*seen.sets, *seen.jobs) if (f := diagnosis.create_finding(item, events, pods=_pods_of_set(item, seen.pods), now=now)))
    if seen.custom and (finding := diagnosis.operator_finding(seen.custom, events)):
        found.append(finding)
    if seen.claim and (finding := diagnosis.claim_finding(seen.claim, events, now=now)):
        found.append(finding)
    found.extend(finding for pod in seen.pods if (finding := diagnosis.mount_finding(pod, events)))
    return sorted(found, key=lambda finding: not finding.fatal)


def _pods_of_set(item: Object, pods: Sequence[Object]) -> int:
    role = item["metadata"].get("labels", {}).get(names.ROLE)
    return sum(1 for pod in pods if pod["metadata"].get("labels", {}).get(names.ROLE) == role)


# --- verdicts ----------------------------------------------------------------


def _cluster_verdict(spec: EnvironmentSpec, seen: Seen, findings: Sequence[Finding], was_ready: bool, now: datetime) -> Verdict:
    if not seen.sets and not seen.jobs and not seen.pods and seen.custom is None:
        return Verdict(phase=Phase.GONE)
    said = operators.standing(spec.operator.status, seen.custom) if spec.operator and seen.custom else operators.Standing()
    if ended := _end_by_operator(spec, said) or _end_of_runs(spec, seen, now):
        return ended
    ready = {role.name: _ready_count(role, seen) for role in spec.roles}
    if all(ready[role.name] >= role.replicas for role in spec.roles):
        return _ready_for_operator(spec, said, was_ready)
    # A cluster that has been up and still has its fixed roles can be used while workers come, go, or fail one by one, and while a run is tried again.
    steady = [role for role in spec.roles if not role.once]
    usable = was_ready and all(ready[role.name] >= (1 if role.scalable and role.replicas else role.replicas) for role in steady)
    if not spec.gang:
        usable = all(ready[role.name] >= min(1, role.replicas) for role in (steady if was_ready else spec.roles))
    if findings:
        worst = findings[0]
        if worst.fatal and not usable and (not was_ready or worst.restarts >= diagnosis.PATIENCE_RESTARTS or not worst.restarts):
            return Verdict(phase=Phase.FAILED, reason=worst.code, message=worst.text)
        phase = Phase.DEGRADED if usable else Phase.PROGRESSING
        return Verdict(phase=phase, reason=worst.code, message=worst.text)
    have, want = sum(min(ready[role.name], role.replicas) for role in spec.roles), sum(role.replicas for role in spec.roles)
    return Verdict(phase=Phase.DEGRADED if usable else Phase.PROGRESSING, reason="ReplicasStarting", message=f"{have} of {want} replicas are ready.")


def _end_by_operator(spec: EnvironmentSpec, said: operators.Standing) -> Verdict | None:
    """The end that the operator tells of, in its own words."""
    what = f"{spec.operator.kind} {spec.base_name}" if spec.operator else ""
    words = f": {said.words.rstrip('.')}" if said.words else ""
    if said.phase == operators.FAILED:
        return Verdict(phase=Phase.FAILED, reason="OperatorFailed", message=f"{what} has failed{words}. Read the logs of its replicas, then retry.")
    if said.phase == operators.COMPLETED and spec.success:
        return Verdict(phase=Phase.COMPLETED, reason="Completed", message=f"{what} has run to its end{words}.")
    return None


def _ready_for_operator(spec: EnvironmentSpec, said: operators.Standing, was_ready: bool) -> Verdict:
    """All replicas are ready; whether the operator says so too, where it would."""
    if spec.operator is None or said.phase == operators.READY or not any(rule.phase == operators.READY for rule in spec.operator.status):
        return Verdict(phase=Phase.READY)
    message = f"All replicas are ready; {spec.operator.kind} {spec.base_name} does not say so yet."
    return Verdict(phase=Phase.DEGRADED if was_ready else Phase.PROGRESSING, reason="OperatorNotReady", message=message)


def _end_of_runs(spec: EnvironmentSpec, seen: Seen, now: datetime) -> Verdict | None:
    """The end that roles that run once bring: the success of the one that counts, or the failure of any."""
    for role in spec.roles:
        if role.once and role.name == spec.success and role.replicas and runs.succeeded(role, seen.pods, seen.jobs) >= role.replicas:
            what = "it" if role.replicas == 1 else f"all {role.replicas} replicas"
            return Verdict(phase=Phase.COMPLETED, reason="Completed", message=f"{role.name} has run to its end: {what} ended with exit code 0.")
    for role in spec.roles:
        if role.once and (failure := runs.failure(role, seen.pods, seen.jobs, now)):
            return Verdict(phase=Phase.FAILED, reason=failure.code, message=failure.text)
    return None


def _notebook_verdict(seen: Seen, findings: Sequence[Finding], was_ready: bool) -> Verdict:
    server = seen.server or Server()
    live = [pod for pod in seen.pods if not pod["metadata"].get("deletionTimestamp")]
    ended = [pod for pod in live if pod.get("status", {}).get("phase") in ("Failed", "Succeeded")]
    worst = findings[0] if findings else None
    lost = server.ready and not live  # the Hub looks at its servers every few seconds only; the list of pods is newer
    stopping = server.pending == "stop" and not live
    if was_ready and (ended or lost or stopping or not server.active):
        # It was in use and went away: the observer starts it again. The finding says why it ended, if a pod is left to tell.
        if worst:
            return Verdict(phase=Phase.GONE, reason=worst.code, message=worst.text)
        return Verdict(phase=Phase.GONE, reason="ServerLost", message="The notebook server is no longer there.")
    if server.ready and not ended and not lost:
        return Verdict(phase=Phase.READY)
    if worst and worst.fatal:
        return Verdict(phase=Phase.FAILED, reason=worst.code, message=worst.text)
    if not server.active or lost or stopping or (ended and not server.pending):
        if worst and worst.taken:
            return Verdict(phase=Phase.GONE, reason=worst.code, message=worst.text)
        if server.failure == trouble.DELETED:
            return Verdict(phase=Phase.GONE, reason="ServerLost", message=server.failure)
        if server.failure:
            return _spawn_failed(server.failure)
        return Verdict(phase=Phase.GONE)
    if worst:
        return Verdict(phase=Phase.PROGRESSING, reason=worst.code, message=worst.text)
    return Verdict(phase=Phase.PROGRESSING, reason="ServerStarting", message="The notebook server is starting.")


def _spawn_failed(said: str) -> Verdict:
    if "exceeded quota" in said:
        remedy = "Stop something of this team, or ask an admin to raise the quota."
        return Verdict(phase=Phase.FAILED, reason="ClusterQuota", message=f"The namespace's quota is used up: {said} {remedy}")
    return Verdict(phase=Phase.FAILED, reason="SpawnFailed", message=f"JupyterHub could not start the server: {said}")


# --- replicas and endpoints --------------------------------------------------


def _of_role(role: Role, pods: Sequence[Object]) -> list[Object]:
    return [pod for pod in pods if pod["metadata"].get("labels", {}).get(names.ROLE) == role.name]


def _ready_count(role: Role, seen: Seen) -> int:
    """Replicas that can be used, or have done their work."""
    if role.once:
        return runs.satisfied(role, seen.pods, seen.jobs)
    return sum(1 for pod in _of_role(role, seen.pods) if diagnosis.is_ready(pod))


def expected_names(spec: EnvironmentSpec, role: Role) -> list[str]:
    """Names of a role's pods; those of one that runs once go on with random letters."""
    if spec.kind == "notebook":
        return [spec.base_name]
    return [f"{names.role_name(spec.base_name, role.name)}-{index}" for index in range(role.replicas)]


def _replicas(spec: EnvironmentSpec, pods: Sequence[Object]) -> list[dict[str, Any]]:
    """One entry per pod that is there or should be, roles in the template's order."""
    rows: list[dict[str, Any]] = []
    for role in spec.roles:
        present = {pod["metadata"]["name"]: pod for pod in _of_role(role, pods)}
        wanted = expected_names(spec, role)
        if spec.operator and role.name in spec.operator.roles:
            wanted = []  # the operator names them
        elif role.once:  # their pods have random names: the newest try of each, and earlier ones after them
            for index, each in runs.tries(role, pods).items():
                if index < len(wanted):
                    wanted[index] = each[-1]["metadata"]["name"]
        rows.extend(_replica(name, role, present.get(name)) for name in [*wanted, *sorted(set(present) - set(wanted))])
    return rows


def _replica(name: str, role: Role, pod: Object | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name,
        "role": role.name,
        "state": "pending",
        "ready": False,
        "restarts": 0,
        "node": "",
        "address": "",
        "reason": "",
        "message": "",
        "containers": [role.name],
        "simulated": False,
    }
    if pod is None:
        return row
    status = pod.get("status", {})
    finding = diagnosis.pod_finding(pod) if status.get("phase") != "Succeeded" or not role.once else None
    row.update(
        state=diagnosis.replica_state(pod),
        ready=diagnosis.is_ready(pod),
        restarts=sum(container.get("restartCount", 0) for container in status.get("containerStatuses", ())),
        node=pod["spec"].get("nodeName", ""),
        address=status.get("podIP", ""),
        reason=finding.code if finding else "",
        message=finding.message if finding else "",
        containers=[container["name"] for container in pod["spec"]["containers"]],
        simulated=pod["metadata"].get("annotations", {}).get(names.SIMULATED) == "true",
    )
    return row


def role_host(spec: EnvironmentSpec, role: str) -> str:
    """The name under which a role is reached inside the cluster."""
    return f"{names.role_name(spec.base_name, role)}.{spec.namespace}.{spec.service_domain}"


def replica_host(spec: EnvironmentSpec, role: str, index: int) -> str:
    """The name of one replica inside the cluster; StatefulSets and Jobs give the same."""
    return f"{names.role_name(spec.base_name, role)}-{index}.{role_host(spec, role)}"


def _endpoints(spec: EnvironmentSpec, pods: Sequence[Object]) -> list[dict[str, Any]]:
    rows = []
    for role in spec.roles:
        host = role_host(spec, role.name)
        addresses = [pod["status"]["podIP"] for pod in _of_role(role, pods) if diagnosis.is_ready(pod) and pod.get("status", {}).get("podIP")]
        for port in role.ports:
            if port.endpoint is None:
                continue
            # What a browser opens is named by address, since cluster names resolve inside pods only; what code connects to, by its lasting name.
            shown = addresses[0] if addresses and port.endpoint.scheme in ("http", "https") else host
            rows.append(
                {
                    "name": port.name,
                    "role": role.name,
                    "title": port.endpoint.title,
                    "url": f"{port.endpoint.scheme}://{shown}:{port.number}{port.endpoint.path}",
                    "address": f"{host}:{port.number}",
                }
            )
    return rows


# --- steps -------------------------------------------------------------------


def _steps(spec: EnvironmentSpec, seen: Seen, verdict: Verdict, findings: Sequence[Finding]) -> list[dict[str, str]]:
    """The way to readiness: what is done, what is under way, what waits for it, and what failed."""
    done = _done(spec, seen, verdict)
    worst = findings[0] if findings else None
    rows = []
    reached = True
    for key, title in STEPS:
        if key == "volume" and spec.home is None:
            continue
        message = worst.text if worst and worst.step == key and verdict.phase not in _WELL else ""
        if verdict.phase in _WELL or (reached and done[key] and not message):
            state = "done"
        elif worst and worst.fatal and worst.step == key and verdict.phase is Phase.FAILED:
            state, reached = "failed", False
        elif reached:
            state, reached = ("failed" if verdict.phase is Phase.FAILED and not message and not worst else "active"), False
        else:
            state = "waiting"
        rows.append({"key": key, "title": title, "state": state, "message": message})
    return rows


def _done(spec: EnvironmentSpec, seen: Seen, verdict: Verdict) -> dict[str, bool]:
    wanted = sum(role.replicas for role in spec.roles)
    once = {role.name: runs.tries(role, seen.pods) for role in spec.roles if role.once}
    newest = [pod for pod in seen.pods if pod["metadata"].get("labels", {}).get(names.ROLE) not in once]
    newest += [each[-1] for tries in once.values() for each in tries.values()]
    live = [pod for pod in newest if not pod["metadata"].get("deletionTimestamp")]
    statuses = [pod.get("status", {}) for pod in live]

    def enough(count: int) -> bool:
        return wanted > 0 and count >= wanted

    return {
        "quota": True,
        "queue": enough(sum(1 for pod in live if not pod["spec"].get("schedulingGates"))),
        "pod": enough(sum(1 for pod in live if pod["spec"].get("nodeName"))),
        "volume": spec.home is None or (seen.claim or {}).get("status", {}).get("phase") == "Bound",
        "network": enough(sum(1 for status in statuses if status.get("podIP"))),
        "image": enough(sum(1 for status in statuses if diagnosis.all_containers(status, lambda c: bool(c.get("imageID")) or diagnosis.has_started(c)))),
        "start": enough(sum(1 for status in statuses if diagnosis.all_containers(status, _is_under_way))),
        "ready": verdict.phase in _WELL,
    }


def _is_under_way(container: Object) -> bool:
    """True when a container runs, or has ended with 0."""
    state = container.get("state", {})
    return "running" in state or state.get("terminated", {}).get("exitCode") == 0
