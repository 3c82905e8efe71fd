"""Gives pods to nodes: pure predicates with the reasons in Kubernetes' own words, a score, and the loop around them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from .client import Client
from .documents import Doc, at, labels_of, meta, name_of, namespace_of, now
from .kubelet.devices import SIMULATED
from .quantity import parse

log = logging.getLogger(__name__)
COMPONENT = "default-scheduler"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
Amounts = dict[str, Decimal]
_REPEAT = 60.0  # seconds between two events that say the same


@dataclass
class NodeState:
    """A node and what its pods have taken of it."""

    node: Doc
    used: Amounts = field(default_factory=dict)
    pods: list[Doc] = field(default_factory=list)

    @property
    def labels(self) -> Mapping[str, str]:
        return labels_of(self.node)

    def add(self, pod: Doc) -> None:
        self.pods.append(pod)
        for name, amount in requests(pod["spec"]).items():
            self.used[name] = self.used.get(name, Decimal(0)) + amount


def requests(spec: Doc) -> Amounts:
    """What a pod needs: its containers and sidecars together, or an init container if that needs more; plus overhead."""
    total: Amounts = {}
    for container in spec["containers"]:
        _add(total, _of(container))
    sidecars: Amounts = {}
    most: Amounts = {}
    for container in spec.get("initContainers") or []:
        if container.get("restartPolicy") == "Always":
            _add(sidecars, _of(container))
            _most(most, sidecars)
        else:
            peak = dict(sidecars)
            _add(peak, _of(container))
            _most(most, peak)
    _add(total, sidecars)
    _most(total, most)
    _add(total, {name: parse(amount) for name, amount in (spec.get("overhead") or {}).items()})
    return total


def _of(container: Doc) -> Amounts:
    wanted = {**at(container, "resources.limits", {}), **at(container, "resources.requests", {})}
    return {name: parse(amount) for name, amount in wanted.items()}


def _add(total: Amounts, more: Amounts) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, Decimal(0)) + amount


def _most(total: Amounts, other: Amounts) -> None:
    for name, amount in other.items():
        total[name] = max(total.get(name, Decimal(0)), amount)


# --- predicates -------------------------------------------------------------------------------------------------------


def expression_matches(labels: Mapping[str, str], item: Mapping[str, Any]) -> bool:
    """One match expression of a node or label selector."""
    key, operator, values = item["key"], item["operator"], item.get("values") or []
    value = labels.get(key)
    if operator == "In":
        return value in values
    if operator == "NotIn":
        return value not in values
    if operator == "Exists":
        return key in labels
    if operator == "DoesNotExist":
        return key not in labels
    try:
        number, bound = int(value or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return number > bound if operator == "Gt" else number < bound


def term_matches(node: Doc, term: Mapping[str, Any]) -> bool:
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False
    own = {"metadata.name": name_of(node)}
    return all(expression_matches(labels_of(node), item) for item in expressions) and all(expression_matches(own, item) for item in fields)


def selector_matches(labels: Mapping[str, str], selector: Mapping[str, Any] | None) -> bool:
    """A LabelSelector; None matches nothing, the empty one everything."""
    if selector is None:
        return False
    return all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items()) and all(
        expression_matches(labels, item) for item in selector.get("matchExpressions") or []
    )


def tolerates(tolerations: Iterable[Mapping[str, Any]], taint: Mapping[str, Any]) -> bool:
    for item in tolerations:
        if item.get("effect") and item["effect"] != taint["effect"]:
            continue
        if item.get("key") and item["key"] != taint["key"]:
            continue
        if (item.get("operator") or "Equal") == "Exists" or (item.get("key") and (item.get("value") or "") == (taint.get("value") or "")):
            return True
    return False


def unfit(pod: Doc, state: NodeState, everywhere: list[NodeState]) -> list[str]:
    """Why a pod cannot go to a node; empty when it can. The first kind of reason counts, as in the real scheduler."""
    spec, node = pod["spec"], state.node
    tolerations = spec.get("tolerations") or []
    if at(node, "spec.unschedulable") and not tolerates(tolerations, {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}):
        return ["node(s) were unschedulable"]
    for taint in at(node, "spec.taints", []):
        if taint["effect"] in ("NoSchedule", "NoExecute") and not tolerates(tolerations, taint):
            return [f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value') or ''}}}"]
    if not _selected(spec, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    short = _insufficient(spec, state)
    return short or _pod_affinity(pod, state, everywhere)


def _selected(spec: Doc, node: Doc) -> bool:
    if any(labels_of(node).get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    required = at(spec, "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(term_matches(node, term) for term in required.get("nodeSelectorTerms") or [])


def _insufficient(spec: Doc, state: NodeState) -> list[str]:
    allocatable = at(state.node, "status.allocatable", {})
    if len(state.pods) + 1 > parse(allocatable.get("pods", "110")):
        return ["Too many pods"]
    short = []
    for name, amount in requests(spec).items():
        if amount and state.used.get(name, Decimal(0)) + amount > parse(allocatable.get(name, "0")):
            if name == "ephemeral-storage" and name not in allocatable:
                continue
            short.append(f"Insufficient {name}")
    return short


def _same_place(pod: Doc, term: Mapping[str, Any], state: NodeState, everywhere: list[NodeState]) -> tuple[bool, bool]:
    """Whether a pod that the term means is in the same topology domain as `state`, and whether there is one anywhere."""
    key = term["topologyKey"]
    spaces = term.get("namespaces") or [namespace_of(pod)]
    here = anywhere = False
    for other in everywhere:
        for item in other.pods:
            if namespace_of(item) in spaces and selector_matches(labels_of(item), term.get("labelSelector")):
                anywhere = True
                here = here or (key in state.labels and other.labels.get(key) == state.labels.get(key))
    return here, anywhere


def _pod_affinity(pod: Doc, state: NodeState, everywhere: list[NodeState]) -> list[str]:
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    for term in at(pod, f"spec.affinity.podAffinity.{required}", []):
        here, anywhere = _same_place(pod, term, state, everywhere)
        first_of_its_kind = not anywhere and selector_matches(labels_of(pod), term.get("labelSelector"))
        if not here and not first_of_its_kind:
            return ["node(s) didn't match pod affinity rules"]
    for term in at(pod, f"spec.affinity.podAntiAffinity.{required}", []):
        if _same_place(pod, term, state, everywhere)[0]:
            return ["node(s) didn't match pod anti-affinity rules"]
    return []


def score(pod: Doc, state: NodeState) -> tuple[int, int, Decimal]:
    """Higher is better: taints that had rather not, the pod's own preferences, room."""
    spec, node = pod["spec"], state.node
    disliked = sum(1 for taint in at(node, "spec.taints", []) if taint["effect"] == "PreferNoSchedule" and not tolerates(spec.get("tolerations") or [], taint))
    liked = sum(
        int(item["weight"])
        for item in at(spec, "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution", [])
        if term_matches(node, item["preference"])
    )
    allocatable = at(node, "status.allocatable", {})
    room = Decimal(0)
    for name in ("cpu", "memory"):
        whole = parse(allocatable.get(name, "0"))
        room += (whole - state.used.get(name, Decimal(0))) / whole if whole else Decimal(0)
    return -disliked, liked, room


def choose(pod: Doc, states: list[NodeState]) -> tuple[NodeState | None, str]:
    """The node for a pod, or why there is none."""
    reasons: Counter[str] = Counter()
    helpful = 0
    fitting = []
    for state in states:
        why = unfit(pod, state, states)
        if why:
            reasons.update(why)
            helpful += why[0].startswith(("Insufficient", "Too many"))
        else:
            fitting.append(state)
    if fitting:
        return max(fitting, key=lambda state: (score(pod, state), name_of(state.node))), ""
    count = len(states)
    if not count:
        return None, "no nodes available to schedule pods"
    listed = ", ".join(sorted(f"{number} {reason}" for reason, number in reasons.items()))
    victims = [(helpful, "No preemption victims found for incoming pod"), (count - helpful, "Preemption is not helpful for scheduling")]
    after = ", ".join(f"{number} {text}" for number, text in victims if number)
    return None, f"0/{count} nodes are available: {listed}. preemption: 0/{count} nodes are available: {after}."


# --- the loop ---------------------------------------------------------------------------------------------------------


class Scheduler:
    """Schedules whenever something changed. There is no preemption."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._dirty = asyncio.Event()
        self._told: dict[str, tuple[str, float]] = {}

    async def run(self) -> None:
        work = asyncio.create_task(self._work())
        try:
            async for _ in self.client.changes("Pod", "Node", "PersistentVolumeClaim"):
                self._dirty.set()
        finally:
            work.cancel()

    async def _work(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                self.schedule()
            except Exception:
                log.exception("scheduler")
            await asyncio.sleep(0)

    def schedule(self) -> None:
        """One pass over everything that waits, the most important and oldest first."""
        pods = self.client.list("Pod")
        waiting = [pod for pod in pods if _waits(pod)]
        if not waiting:
            self._told.clear()
            return
        states = {name_of(node): NodeState(node) for node in self.client.list("Node")}
        for pod in pods:
            state = states.get(pod["spec"].get("nodeName") or "")
            if state is not None and at(pod, "status.phase") not in ("Succeeded", "Failed"):
                state.add(pod)
        waiting.sort(key=lambda pod: (-int(pod["spec"].get("priority") or 0), meta(pod).get("creationTimestamp", ""), int(meta(pod)["resourceVersion"])))
        for pod in waiting:
            why = self._claims(pod)
            state, reason = (None, why) if why else choose(pod, list(states.values()))
            if state is None:
                self._refuse(pod, reason)
                continue
            self._select_node(pod, state)
            self._bind(pod, name_of(state.node))
            state.add(pod)

    def _claims(self, pod: Doc) -> str:
        """Why its claims keep a pod from being scheduled; empty when they do not."""
        for name in claims_of(pod):
            claim = self.client.get("PersistentVolumeClaim", namespace_of(pod), name)
            if claim is None:
                why = f'persistentvolumeclaim "{name}" not found'
            elif meta(claim).get("deletionTimestamp"):
                why = f'persistentvolumeclaim "{name}" is being deleted'
            elif at(claim, "status.phase") == "Lost":
                why = f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{at(claim, "spec.volumeName", "")}"'
            elif not at(claim, "spec.volumeName") and not self._waits_for_consumer(claim):
                why = "pod has unbound immediate PersistentVolumeClaims"
            else:
                continue
            count = len(self.client.list("Node"))
            return f"0/{count} nodes are available: {why}. preemption: 0/{count} nodes are available: {count} Preemption is not helpful for scheduling."
        return ""

    def _waits_for_consumer(self, claim: Doc) -> bool:
        found = self.client.get("StorageClass", None, at(claim, "spec.storageClassName", ""))
        return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"

    def _select_node(self, pod: Doc, state: NodeState) -> None:
        for name in claims_of(pod):
            claim = self.client.get("PersistentVolumeClaim", namespace_of(pod), name)
            if claim is not None and not at(claim, "spec.volumeName"):
                self.client.modify(
                    "PersistentVolumeClaim",
                    namespace_of(pod),
                    name,
                    lambda doc: meta(doc).setdefault("annotations", {}).update({SELECTED_NODE: name_of(state.node)}),
                )

    def _bind(self, pod: Doc, node: str) -> None:
        simulated = SIMULATED in meta(self.client.get("Node", None, node) or {"metadata": {}}).get("labels", {})

        def change(doc: Doc) -> None:
            doc["spec"]["nodeName"] = node
            if simulated:  # said on the pod as well, so that whoever reads it need not look up its node
                meta(doc).setdefault("annotations", {})[SIMULATED] = "true"
            _set_condition(doc, {"type": "PodScheduled", "status": "True"})

        # Past validation: this is what the `binding` subresource does.
        self.client.objects.modify(self.client.kinds.named("Pod"), namespace_of(pod), name_of(pod), change)
        self._told.pop(meta(pod)["uid"], None)
        self.client.event(pod, "Normal", "Scheduled", f"Successfully assigned {namespace_of(pod)}/{name_of(pod)} to {node}", COMPONENT)

    def _refuse(self, pod: Doc, message: str) -> None:
        wanted = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        self.client.modify("Pod", namespace_of(pod), name_of(pod), lambda doc: _set_condition(doc, wanted), subresource="status")
        told, at_time = self._told.get(meta(pod)["uid"], ("", 0.0))
        if told != message or time.monotonic() - at_time > _REPEAT:
            self._told[meta(pod)["uid"]] = (message, time.monotonic())
            self.client.event(pod, "Warning", "FailedScheduling", message, COMPONENT)


def _waits(pod: Doc) -> bool:
    spec = pod["spec"]
    return (
        not spec.get("nodeName")
        and not meta(pod).get("deletionTimestamp")
        and (spec.get("schedulerName") or COMPONENT) == COMPONENT
        and not spec.get("schedulingGates")
        and at(pod, "status.phase") not in ("Succeeded", "Failed")
    )


def claims_of(pod: Doc) -> list[str]:
    found = []
    for volume in pod["spec"].get("volumes") or []:
        if volume.get("persistentVolumeClaim"):
            found.append(volume["persistentVolumeClaim"]["claimName"])
        elif volume.get("ephemeral"):
            found.append(f"{name_of(pod)}-{volume['name']}")
    return found


def _set_condition(doc: Doc, wanted: Doc) -> None:
    status = doc.setdefault("status", {})
    conditions = status.setdefault("conditions", [])
    old = next((item for item in conditions if item["type"] == wanted["type"]), None)
    same = old is not None and old["status"] == wanted["status"]
    stamp = old["lastTransitionTime"] if old is not None and same else now()
    new = {**wanted, "lastProbeTime": None, "lastTransitionTime": stamp}
    status["conditions"] = [new if item is old else item for item in conditions] if old is not None else [*conditions, new]
