"""Nodes as the portal keeps them: what each has, and what its pods ask of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from k8s import names, quantity

Object = Mapping[str, Any]


def usage(pod: Object) -> tuple[str, dict[str, int]] | None:
    """(node, requests) of a pod that takes room; None for one that has ended or is on no node."""
    node = pod["spec"].get("nodeName")
    if not node or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return None
    return node, {"pods": 1, **quantity.pod_requests(pod["spec"])}


def rows(nodes: Iterable[Object], used: Iterable[tuple[str, Mapping[str, int]]]) -> list[dict[str, Any]]:
    """One row per node for `services.nodes_observed`."""
    by_node: dict[str, list[Mapping[str, int]]] = {}
    for name, requests in used:
        by_node.setdefault(name, []).append(requests)
    return [_row(node, quantity.add(by_node.get(node["metadata"]["name"], ()))) for node in nodes]


def _row(node: Object, used: dict[str, int]) -> dict[str, Any]:
    status, labels = node.get("status", {}), node["metadata"].get("labels", {})
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions", ()))
    return {
        "name": node["metadata"]["name"],
        "allocatable": quantity.amounts(status.get("allocatable", {})),
        "used": used,
        "labels": labels,
        "taints": node["spec"].get("taints", []),
        "ready": ready and not node["spec"].get("unschedulable", False),
        "simulated": labels.get(names.SIMULATED) == "true",
    }
