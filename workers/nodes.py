"""Nodes as the portal keeps them: what each has, what its pods ask of it, and which part of that is ours. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from k8s import names, quantity

Object = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Use:
    """What one pod takes of its node. `environment` is empty for pods that are not this installation's."""

    node: str
    requests: Mapping[str, int] = field(hash=False)
    environment: str = ""
    role: str = ""


def usage(pod: Object, install: str = "") -> Use | None:
    """What a pod takes; None for one that has ended or is on no node. `install`: the installation whose pods are ours."""
    spec = pod["spec"]
    node = spec.get("nodeName")
    if not node or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return None
    labels = pod["metadata"].get("labels") or {}
    ours = bool(install) and labels.get(names.INSTALL) == install
    return Use(
        node=node,
        requests={"pods": 1, **quantity.pod_requests(spec)},
        environment=labels.get(names.ENVIRONMENT, "") if ours else "",
        role=labels.get(names.ROLE, "") if ours else "",
    )


def rows(nodes: Iterable[Object], used: Iterable[Use]) -> list[dict[str, Any]]:
    """One row per node for `services.nodes_observed`."""
    by_node: dict[str, list[Use]] = {}
    for use in used:
        by_node.setdefault(use.node, []).append(use)
    return [_row(node, by_node.get(node["metadata"]["name"], [])) for node in nodes]


def _row(node: Object, uses: list[Use]) -> dict[str, Any]:
    status, labels = node.get("status", {}), node["metadata"].get("labels", {})
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions", ()))
    return {
        "name": node["metadata"]["name"],
        "allocatable": quantity.amounts(status.get("allocatable", {})),
        "used": quantity.add(use.requests for use in uses),
        "environments": _environments(uses),
        "labels": labels,
        "taints": node["spec"].get("taints", []),
        "ready": ready and not node["spec"].get("unschedulable", False),
        "simulated": labels.get(names.SIMULATED) == "true",
    }


def _environments(uses: Iterable[Use]) -> dict[str, dict[str, Any]]:
    """Per environment of ours: how many pods of each role are on the node, and what they ask for together."""
    found: dict[str, dict[str, Any]] = {}
    for use in uses:
        if not use.environment:
            continue
        entry = found.setdefault(use.environment, {"roles": {}, "resources": {}})
        entry["roles"][use.role] = entry["roles"].get(use.role, 0) + 1
        entry["resources"] = quantity.add((entry["resources"], use.requests))
    return dict(sorted(found.items()))
