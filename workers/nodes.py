"""Nodes as the portal keeps them: what each has, what its pods ask of it, and which part of that is ours. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from k8s import cel, names, quantity

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


def described(node: Object) -> dict[str, Any]:
    """What a node is and has: heartbeats do not change it."""
    status, labels = node.get("status", {}), node["metadata"].get("labels", {})
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions", ()))
    return {
        "name": node["metadata"]["name"],
        "allocatable": quantity.amounts(status.get("allocatable", {})),
        "labels": labels,
        "taints": node["spec"].get("taints", []),
        "ready": ready and not node["spec"].get("unschedulable", False),
        "simulated": labels.get(names.SIMULATED) == "true",
    }


def rows(nodes: Iterable[Mapping[str, Any]], used: Iterable[Use]) -> list[dict[str, Any]]:
    """One row per described node for `services.nodes_observed`, by name."""
    by_node: dict[str, list[Use]] = {}
    for use in used:
        by_node.setdefault(use.node, []).append(use)
    found = sorted(nodes, key=lambda node: node["name"])
    return [
        {**node, "used": quantity.add(use.requests for use in uses), "environments": _environments(uses)}
        for node in found
        for uses in (by_node.get(node["name"], []),)
    ]


def gives_room(before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]) -> bool:
    """Whether something fits after that did not fit before, as far as one node's row can tell."""
    old = {row["name"]: row for row in before}
    return any(_gives_room(old.get(row["name"]), row) for row in after)


def _gives_room(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> bool:
    if before is None or any(before[key] != after[key] for key in ("labels", "taints", "ready")):
        return bool(after["ready"])
    return any(_free(after, resource) > _free(before, resource) for resource in after["allocatable"])


def _free(row: Mapping[str, Any], resource: str) -> int:
    return int(row["allocatable"].get(resource, 0)) - int(row["used"].get(resource, 0))


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


# --- claimed devices ---------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Claimable:
    """An accelerator whose devices are claimed: the key it is counted by, its class, and what selects them within it."""

    key: str
    device_class: str
    selectors: tuple[str, ...] = ()


def with_claimed(
    found: list[dict[str, Any]], wanted: Iterable[Claimable], slices: Iterable[Object], classes: Iterable[Object], claims: Iterable[Object], install: str
) -> list[dict[str, Any]]:
    """Rows with the devices that drivers publish on each node and that ResourceClaims hold, counted for each accelerator that may claim them.

    A selector that is more than `k8s.cel` knows is passed over: then the class decides.
    """
    specs = {each["metadata"]["name"]: each.get("spec") or {} for each in classes}
    published = [
        (item["spec"]["nodeName"], item["spec"]["driver"], item["spec"]["pool"]["name"], device)
        for item in slices
        if item["spec"].get("nodeName")
        for device in item["spec"].get("devices") or ()
    ]
    held = {(each["driver"], each["pool"], each["device"]): claim for claim in claims for each in _allocated(claim)}
    known = {row["name"]: {**row, "allocatable": dict(row["allocatable"]), "used": dict(row["used"])} for row in found}
    for one in wanted:
        if one.device_class not in specs:
            continue
        for node, driver, pool, device in published:
            row = known.get(node)
            if row is None or not _selected(specs[one.device_class], one.selectors, driver, device):
                continue
            row["allocatable"][one.key] = row["allocatable"].get(one.key, 0) + 1
            claim = held.get((driver, pool, device["name"]))
            if claim is not None:
                row["used"][one.key] = row["used"].get(one.key, 0) + 1
                row["environments"] = _with_device(row["environments"], claim, one.key, install)
    return list(known.values())


def _allocated(claim: Object) -> list[Mapping[str, Any]]:
    allocation = (claim.get("status") or {}).get("allocation") or {}
    return list((allocation.get("devices") or {}).get("results") or ())


def _selected(class_spec: Mapping[str, Any], selectors: Iterable[str], driver: str, device: Mapping[str, Any]) -> bool:
    for expression in (*(str((each.get("cel") or {}).get("expression", "")) for each in class_spec.get("selectors") or ()), *selectors):
        try:
            if not cel.matches(expression, driver, device):
                return False
        except cel.Unsupported:
            continue
    return True


def _with_device(environments: Mapping[str, Any], claim: Object, key: str, install: str) -> dict[str, Any]:
    """The part of a node that is ours, with one more device of the claim's environment."""
    labels = claim["metadata"].get("labels") or {}
    name = labels.get(names.ENVIRONMENT, "") if labels.get(names.INSTALL) == install else ""
    if not name or name not in environments:
        return dict(environments)
    entry = environments[name]
    return {**environments, name: {**entry, "resources": quantity.add((entry["resources"], {key: 1}))}}
