"""What the nodes can hold: pure arithmetic over their last observed figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

_OWN = "node.kubernetes.io/"  # taints that a node's own state gives and takes: cordoned, not ready, under pressure
_NO_LIMIT = 1 << 40  # pods, on a node that says nothing of them


class NodeLike(Protocol):
    """What is read of a node; `portal.domain.models.Node` is one."""

    name: str
    allocatable: dict[str, int]
    used: dict[str, int]
    labels: dict[str, str]
    taints: list[dict[str, Any]]
    ready: bool
    simulated: bool


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one replica asks of a node. CPU in millicores, memory in bytes, other keys in devices."""

    resources: Mapping[str, int]
    count_key: str = ""  # key of the devices by which it is known to people; empty: the first there is
    # Keys that only count where a node tells how much it has: shares of a chip that the vendor's own scheduler keeps account of.
    soft: frozenset[str] = frozenset()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()

    @cached_property
    def items(self) -> tuple[tuple[str, int], ...]:
        """What is taken from a node's room, the pod itself included."""
        return (*sorted((key, amount) for key, amount in self.resources.items() if amount > 0), ("pods", 1))

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """Equal for needs that the same nodes can meet with the same room."""
        return self.items, self.soft, tuple(sorted(self.node_selector.items())), tuple(sorted(repr(sorted(each.items())) for each in self.tolerations))

    @cached_property
    def devices(self) -> frozenset[str]:
        """Resource keys beyond CPU and memory."""
        return frozenset(key for key, amount in self.resources.items() if amount > 0 and key not in COMMON)

    @cached_property
    def main_key(self) -> str:
        """The key whose devices people count; empty: it needs none."""
        return self.count_key or min(self.devices, default="")


# What every node has; anything else is a device that some nodes are kept for.
COMMON = frozenset({"cpu", "memory", "pods", "ephemeral-storage", "storage"})


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """How many replicas of one shape the cluster can hold."""

    known: bool  # False: no node has been observed yet, so nothing is claimed
    total: int  # replicas on empty nodes
    free: int  # replicas that start at once
    simulated: bool  # every node that can hold one is simulated
    reason: str  # why none fits even on empty nodes; empty when one does
    nodes: int = 0  # that can hold one when they are empty
    nodes_free: int = 0  # on which one starts at once
    largest: int = 0  # replicas of one cluster that start at once: `free`, or what the best domain holds where they have to be near each other

    @property
    def in_use(self) -> int:
        return max(0, self.total - self.free)

    @property
    def fits(self) -> bool:
        """False only when nodes are known and none of them can ever hold one replica."""
        return not self.known or self.total > 0


def tolerates(taint: Mapping[str, Any], tolerations: Iterable[Mapping[str, Any]]) -> bool:
    """Kubernetes' rule: does any toleration match the taint?"""
    for toleration in tolerations:
        if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
            continue
        key, operator = toleration.get("key", ""), toleration.get("operator", "Equal")
        if operator == "Exists" and key in ("", taint.get("key")):
            return True
        if operator == "Equal" and key == taint.get("key") and (toleration.get("value") or "") == (taint.get("value") or ""):
            return True
    return False


def eligible(node: NodeLike, need: Need) -> str:
    """Empty when a replica may be placed on the node, else why not."""
    for key, value in need.node_selector.items():
        if node.labels.get(key) != value:
            return f"no node has the label {key}={value}"
    for taint in node.taints:
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not tolerates(taint, need.tolerations):
            # A cordoned or not-ready node comes back; it still counts for what can ever fit.
            if str(taint.get("key", "")).startswith(_OWN):
                continue
            return f"nodes are kept for others by the taint {taint.get('key')}"
    return ""


def blocked_now(node: NodeLike) -> bool:
    """Whether nothing can be placed on the node at present, though it may come back."""
    return not node.ready or any(str(taint.get("key", "")).startswith(_OWN) and taint.get("effect") in ("NoSchedule", "NoExecute") for taint in node.taints)


def room_of(node: NodeLike, *, empty: bool = False) -> dict[str, int]:
    """What is free on the node, or with `empty` would be without any pod; below zero where more is used than there is."""
    used: Mapping[str, int] = {} if empty else node.used
    room = {key: value - used.get(key, 0) for key, value in node.allocatable.items()}
    room.setdefault("pods", _NO_LIMIT)
    return room


def count_in(room: Mapping[str, int], need: Need) -> int:
    """Replicas that fit into `room`."""
    count = _NO_LIMIT
    for key, amount in need.items:
        if key not in room and key in need.soft:
            continue
        fit = room.get(key, 0) // amount
        if fit < count:
            if fit <= 0:
                return 0
            count = fit
    return count


def capacity_for(nodes: Iterable[NodeLike], need: Need, *, within: str = "") -> Capacity:
    """How many replicas of `need` the nodes hold in all, and now. `within`: node label of which the replicas of one cluster share a value."""
    total = free = nodes_free = 0
    holding, reasons, best = [], [], dict.fromkeys(need.resources, 0)
    domains: dict[str, int] = {}
    nodes = list(nodes)
    for node in nodes:
        why = eligible(node, need)
        if why:
            reasons.append(why)
            continue
        for key in best:
            best[key] = max(best[key], node.allocatable.get(key, 0))
        count = count_in(room_of(node, empty=True), need)
        if not count:
            continue
        total += count
        holding.append(node)
        if not blocked_now(node):
            now = count_in(room_of(node), need)
            free += now
            nodes_free += now > 0
            if within in node.labels:
                domains[node.labels[within]] = domains.get(node.labels[within], 0) + now
    reason = ""
    if nodes and not total:
        reason = _too_big(best, need) if len(reasons) < len(nodes) else _most_telling(reasons)
    return Capacity(
        known=bool(nodes),
        total=total,
        free=free,
        simulated=bool(holding) and all(node.simulated for node in holding),
        reason=reason,
        nodes=len(holding),
        nodes_free=nodes_free,
        largest=max(domains.values(), default=0) if within else free,
    )


def _most_telling(reasons: list[str]) -> str:
    """Of the reasons of all nodes: a label that none has says more than a taint that some have."""
    return next((why for why in reasons if why.startswith("no node has the label")), reasons[0])


def _too_big(best: Mapping[str, int], need: Need) -> str:
    def amount(key: str, value: int) -> str:
        if key == "cpu":
            return f"{value / 1000:g} CPU"
        return f"{value / 2**30:.1f} GiB {key}" if key in ("memory", "ephemeral-storage") else f"{value} {key}"

    asked = {key: wanted for key, wanted in need.resources.items() if best[key] or key not in need.soft}
    short = [f"{amount(key, wanted)} (the largest node has {amount(key, best[key])})" for key, wanted in asked.items() if best[key] < wanted]
    if short:
        return "no node has " + " or ".join(short)
    return "no single node has all of " + ", ".join(amount(key, wanted) for key, wanted in asked.items())
