"""Documents of accelerators, networks and flavors as rows, and rows as documents: the admin edits the rows and is held to the same rules."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from portal.domain.models import Accelerator, Flavor, Network
from portal.domain.shape import parse_bytes, parse_cpu

Document = Mapping[str, Any]

# Fields that are the same in both, and what a row has where a document is silent.
_ACCELERATOR: dict[str, Any] = {
    **dict.fromkeys(("family", "vendor", "model", "resource_key", "slice_of", "runtime_class", "scheduler_name", "source"), ""),
    **{key: {} for key in ("title", "resources", "dra", "node_selector", "labels", "annotations", "env")},
    **{key: [] for key in ("tolerations", "capabilities")},
}
_NETWORK: dict[str, Any] = {
    **dict.fromkeys(("kind", "resource_key", "source"), ""),
    **{key: {} for key in ("title", "annotations", "env", "topology")},
    "capabilities": [],
}


def accelerator(data: Document) -> dict[str, Any]:
    """Columns of a valid document, the slug aside."""
    return {
        **{field: data.get(field, empty) for field, empty in _ACCELERATOR.items()},
        "sharing": data.get("sharing", "dra" if "dra" in data else "whole"),
        "memory_bytes": parse_bytes(str(data["memory"])) if "memory" in data else None,
        "quota_weight": float(data.get("quota_weight", 1)),
        "cost_per_hour": Decimal(str(data["cost_per_hour"])) if "cost_per_hour" in data else None,
    }


def network(data: Document) -> dict[str, Any]:
    return {field: data.get(field, empty) for field, empty in _NETWORK.items()}


def flavor(data: Document) -> dict[str, Any]:
    """Columns of a valid document but for the slug and for what it refers to."""
    return {
        "title": data["title"],
        "cpu_millis": parse_cpu(str(data["cpu"])),
        **{
            column: parse_bytes(str(data[field])) if field in data else 0
            for field, column in (("memory", "memory_bytes"), ("shm", "shm_bytes"), ("ephemeral_storage", "ephemeral_bytes"))
        },
        "accelerator_count": data.get("accelerator_count", 0),
        "network_count": data.get("network_count", 1 if "network" in data else 0),
        "position": data.get("position", 100),
    }


# --- back --------------------------------------------------------------------------

# Fields of a document that are called otherwise in the row.
COLUMNS = {"memory": "memory_bytes", "shm": "shm_bytes", "ephemeral_storage": "ephemeral_bytes", "cpu": "cpu_millis"}


def document_of(row: Accelerator | Network | Flavor) -> dict[str, Any]:
    """The document that would give this row; fields that say nothing are left out."""
    found: dict[str, Any] = {"slug": row.slug, "title": row.title}
    if isinstance(row, Flavor):
        found |= {"cpu": f"{row.cpu_millis}m", "memory": row.memory_bytes, "shm": row.shm_bytes, "ephemeral_storage": row.ephemeral_bytes}
        found |= {"accelerator": row.accelerator.slug if row.accelerator else "", "accelerator_count": row.accelerator_count}
        found |= {"network": row.network.slug if row.network else "", "network_count": row.network_count, "position": row.position}
        return {key: value for key, value in found.items() if value or key in ("cpu", "memory", "title")}
    if isinstance(row, Network):
        return found | _filled(row, _NETWORK)
    found |= _filled(row, _ACCELERATOR) | {"sharing": row.sharing, "quota_weight": row.quota_weight}
    if row.memory_bytes is not None:
        found["memory"] = row.memory_bytes
    if row.cost_per_hour is not None:
        found["cost_per_hour"] = float(row.cost_per_hour)
    return found


def _filled(row: Accelerator | Network, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field in fields if (value := getattr(row, field)) or field in ("family", "kind", "title")}
