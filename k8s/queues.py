"""Queues of other systems, where the cluster has them: what Kueue and Volcano have to be told, and what they tell. Pure.

Names of labels, annotations and fields: kueue.x-k8s.io/v1beta2 (Kueue 0.19), scheduling.volcano.sh/v1beta1 (Volcano 1.15).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import names
from .spec import EnvironmentSpec, Role

Document = dict[str, Any]
Object = Mapping[str, Any]

KUEUE, VOLCANO = "kueue", "volcano"
SYSTEMS = (KUEUE, VOLCANO)
GROUPS = {KUEUE: "kueue.x-k8s.io", VOLCANO: "scheduling.volcano.sh"}  # API groups by which discovery knows them

_KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
_KUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"
_KUEUE_GROUP = "kueue.x-k8s.io/pod-group-name"
_KUEUE_COUNT = "kueue.x-k8s.io/pod-group-total-count"
_KUEUE_SERVING = "kueue.x-k8s.io/pod-group-serving"
_KUEUE_ROLE = "kueue.x-k8s.io/role-hash"
_KUEUE_PARENT = "kueue.x-k8s.io/pod-suspending-parent"
_KUEUE_TOPOLOGY = {True: "kueue.x-k8s.io/podset-required-topology", False: "kueue.x-k8s.io/podset-preferred-topology"}
_VOLCANO_GROUP = "scheduling.k8s.io/group-name"
_VOLCANO_QUEUE = "scheduling.volcano.sh/queue-name"


def replicas(spec: EnvironmentSpec) -> int:
    """Pods of an environment: the size of its gang."""
    return sum(role.replicas for role in spec.roles)


def needed(spec: EnvironmentSpec, role: Role) -> int:
    """Pods of a role without which the environment cannot start: all of them, or where each comes by itself the first."""
    return role.replicas if spec.gang else min(1, role.replicas)


def _grouped(spec: EnvironmentSpec) -> bool:
    """Whether Kueue has to let its pods go together. Those that come one by one are workloads of their own."""
    return spec.kind != "notebook" and spec.gang


# --- what they are told --------------------------------------------------------


def pod_labels(spec: EnvironmentSpec) -> dict[str, str]:
    """Labels of each pod. Kueue takes plain pods in groups, so the replicas of all roles wait and start together."""
    order = spec.queue
    if order is None or order.system != KUEUE:
        return {}
    labels = {_KUEUE_QUEUE: order.queue}
    if order.priority:
        labels[_KUEUE_PRIORITY] = names.priority_name(order.priority)
    if _grouped(spec):
        labels[_KUEUE_GROUP] = spec.base_name
    return labels


def pod_annotations(spec: EnvironmentSpec, role: Role) -> dict[str, str]:
    """Annotations of each pod of a role."""
    order = spec.queue
    if order is None:
        return {}
    if order.system == VOLCANO:
        return {_VOLCANO_GROUP: spec.base_name, _VOLCANO_QUEUE: order.queue}
    annotations = {}
    if _grouped(spec):
        # Serving: a replica that ends is made again by its StatefulSet and keeps its place. The role: two roles of one shape stay two pod sets.
        annotations = {_KUEUE_COUNT: str(replicas(spec)), _KUEUE_SERVING: "true", _KUEUE_ROLE: role.name}
        # Kueue leaves pods of Jobs and StatefulSets alone where it manages those kinds by themselves, which would part the roles. This
        # says that the pods are to be held back all the same; the value is nobody's whom Kueue knows.
        annotations[_KUEUE_PARENT] = names.MANAGER
    if order.topology_label:
        annotations[_KUEUE_TOPOLOGY[order.topology_required]] = order.topology_label
    return annotations


def scheduler_name(spec: EnvironmentSpec) -> str:
    """The scheduler its pods have to name; empty: the cluster's default."""
    return VOLCANO if spec.queue and spec.queue.system == VOLCANO else ""


def pod_group(spec: EnvironmentSpec, owner: Document, labels: Mapping[str, str], requests: Mapping[str, str]) -> Document:
    """Volcano's PodGroup of an environment: all replicas or none. `requests`: of all replicas together, as quantities."""
    if spec.queue is None or spec.queue.system != VOLCANO:
        raise ValueError(f"environment {spec.id} is not queued by Volcano")
    body: Document = {"minMember": sum(needed(spec, role) for role in spec.roles), "queue": spec.queue.queue, "minResources": dict(requests)}
    if spec.queue.priority:
        body["priorityClassName"] = names.priority_name(spec.queue.priority)
    if spec.queue.topology_label:
        # Tiers are the cluster's HyperNodes; the lowest is the closest.
        body["networkTopology"] = {"mode": "hard" if spec.queue.topology_required else "soft", "highestTierAllowed": 1}
    metadata = {"name": spec.base_name, "namespace": spec.namespace, "labels": dict(labels), "ownerReferences": [owner]}
    return {"apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "PodGroup", "metadata": metadata, "spec": body}


def priority_class(system: str, install: str, slug: str, value: int) -> Document:
    """A priority class of ours as the queue reads it. Neither preempts by itself: who is stopped, and with what warning, the portal decides."""
    metadata = {"name": names.priority_name(slug), "labels": {names.MANAGED_BY: names.MANAGER, names.INSTALL: install}}
    if system == KUEUE:
        return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "WorkloadPriorityClass", "metadata": metadata, "value": value}
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": metadata,
        "value": value,
        "preemptionPolicy": "Never",
        "description": "Priority class of the portal.",
    }


# --- what they tell ------------------------------------------------------------


def is_held(system: str, pods: Sequence[Object], spec: EnvironmentSpec) -> bool:
    """Whether the queue still holds an environment back: Kueue by a gate on its pods, Volcano by giving none of them a node."""
    live = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    let_go = [pod for pod in live if not (pod["spec"].get("schedulingGates") if system == KUEUE else not pod["spec"].get("nodeName"))]
    if spec.gang:
        return len(live) < replicas(spec) or len(let_go) < len(live)
    roles = {pod["metadata"].get("labels", {}).get(names.ROLE) for pod in let_go}
    return any(role.replicas and role.name not in roles for role in spec.roles)


def workload_of(spec: EnvironmentSpec, workloads: Iterable[Object], pods: Iterable[Object]) -> Object | None:
    """Kueue's Workload of an environment: named as its group, or owned by its only pod."""
    uids = {pod["metadata"]["uid"] for pod in pods}
    for item in workloads:
        metadata = item["metadata"]
        if spec.kind != "notebook" and metadata["name"] == spec.base_name:
            return item
        if uids & {owner["uid"] for owner in metadata.get("ownerReferences", ())}:
            return item
    return None


_KUEUE_REASONS = {
    "WaitingForQuota": "the queue's quota is in use",
    "ExceedsMaxQuota": "it asks for more than the queue may ever have; ask for less, or ask an admin to raise the queue's quota",
    "NoMatchingFlavor": "no resource flavor of the queue fits; ask an admin",
    "TopologyPlacementFailed": "there is room, but not all of it within one topology domain",
    "Inadmissible": "the queue does not take it",
}


def told_by_kueue(order_queue: str, workload: Object | None, pending: Sequence[Object]) -> dict[str, Any]:
    """`Environment.queue` from a Workload and the list of `pendingworkloads` of its LocalQueue. Kueue estimates no times."""
    if workload is None:
        return _told(None, "WaitingForKueue", f"waiting for Kueue to take note of it in queue {order_queue}")
    entry = next((item for item in pending if item["metadata"]["name"] == workload["metadata"]["name"]), None)
    conditions = {item["type"]: item for item in workload.get("status", {}).get("conditions", ())}
    reserved = conditions.get("QuotaReserved", {})
    why = (
        _KUEUE_REASONS.get(reserved.get("reason", ""), "")
        if reserved.get("status") != "True"
        else "its quota is reserved; checks of the queue are still running"
    )
    detail = str(reserved.get("message", "")).strip() if reserved.get("status") == "False" else ""
    position = entry.get("positionInClusterQueue") if entry else None
    words = f"waiting in Kueue's queue {order_queue}"
    if position is not None:
        words += ", next in line" if position == 0 else f", {position} ahead"
    words = ": ".join(part for part in (words, why) if part) + (f" ({detail})" if detail else "")
    return _told(None if position is None else int(position) + 1, str(reserved.get("reason") or "WaitingForKueue"), words)


def told_by_volcano(order_queue: str, group: Object | None) -> dict[str, Any]:
    """`Environment.queue` from a PodGroup. Volcano tells neither position nor times."""
    status = (group or {}).get("status") or {}
    phase = str(status.get("phase", ""))
    waiting = [item for item in status.get("conditions") or () if item.get("type") == "Unschedulable" and item.get("status") == "True"]
    words = f"waiting in Volcano's queue {order_queue}"
    if phase == "Inqueue":
        words += ": let in, its pods are being placed"
    if waiting:
        words += f" ({str(waiting[-1].get('message', '')).strip()})"
    return _told(None, "WaitingForVolcano", words)


def _told(position: int | None, code: str, message: str) -> dict[str, Any]:
    return {"position": position, "ahead": None if position is None else position - 1, "code": code[:60], "message": message[:500], "eta": None}


def pending_path(namespace: str, queue: str) -> str:
    """Where Kueue's visibility API lists what waits in a LocalQueue, in order."""
    return f"/apis/visibility.kueue.x-k8s.io/v1beta2/namespaces/{namespace}/localqueues/{queue}/pendingworkloads"
