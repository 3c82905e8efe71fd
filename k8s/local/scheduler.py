"""Which node a pod may go to: predicates with the reasons in Kubernetes' own words, and a score. Pure; the loop around them is `scheduling`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from .documents import Doc, at, labels_of, meta, name_of, namespace_of
from .quantity import parse

SELECTED_NODE = "volume.kubernetes.io/selected-node"
Amounts = dict[str, Decimal]


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

    def drop(self, uid: str) -> None:
        """The opposite of `add`; a pod that is not there is fine."""
        gone = next((pod for pod in self.pods if meta(pod)["uid"] == uid), None)
        if gone is not None:
            self.pods.remove(gone)
            for name, amount in requests(gone["spec"]).items():
                self.used[name] -= amount


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


def claims_of(pod: Doc) -> list[str]:
    found = []
    for volume in pod["spec"].get("volumes") or []:
        if volume.get("persistentVolumeClaim"):
            found.append(volume["persistentVolumeClaim"]["claimName"])
        elif volume.get("ephemeral"):
            found.append(f"{name_of(pod)}-{volume['name']}")
    return found
