"""Kubernetes quantities as numbers, and what pods ask of a node. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from math import ceil
from typing import Any

_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate(("K", "M", "G", "T", "P", "E"), start=1)},
}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([a-zA-Z]{0,2}))")


def parse(quantity: str | int | float) -> Decimal:
    """The number that a quantity such as "500m", "2Gi", "1e3" or 4 stands for. Raises ValueError."""
    match = _QUANTITY.fullmatch(str(quantity))
    if not match or (match[3] or "") not in _SUFFIXES:
        raise ValueError(f"{quantity!r} is not a quantity")
    return Decimal(match[1] + (match[2] or "")) * _SUFFIXES[match[3] or ""]


def amount(resource: str, quantity: str | int | float) -> int:
    """A quantity in the unit this project counts in: CPU in millicores, memory in bytes, everything else in pieces; rounded up."""
    return ceil(parse(quantity) * (1000 if resource == "cpu" else 1))


def amounts(resources: Mapping[str, Any]) -> dict[str, int]:
    """`amount` of each resource."""
    return {resource: amount(resource, quantity) for resource, quantity in resources.items()}


def pod_requests(spec: Mapping[str, Any]) -> dict[str, int]:
    """What the scheduler sets aside for a pod: containers and sidecars together, or an init container when that is more; plus overhead."""

    def requests(container: Mapping[str, Any]) -> dict[str, int]:
        return amounts(container.get("resources", {}).get("requests", {}))

    inits = spec.get("initContainers", ())
    sidecars = [container for container in inits if container.get("restartPolicy") == "Always"]
    total = add(requests(container) for container in (*spec.get("containers", ()), *sidecars))
    for container in inits:
        if container.get("restartPolicy") != "Always":
            for resource, value in requests(container).items():
                total[resource] = max(total.get(resource, 0), value)
    return add((total, amounts(spec.get("overhead", {}))))


def add(several: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sum per resource."""
    total: dict[str, int] = {}
    for each in several:
        for resource, value in each.items():
            total[resource] = total.get(resource, 0) + value
    return total
