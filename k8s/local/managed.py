"""Field ownership (metadata.managedFields): who set which field last, as server-side apply needs to know it.

A field is a path of steps as FieldsV1 writes them: `f:name` for a field, `k:{...}` for an item of a list by its keys, `v:...` for an item by value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from . import custom, schema
from .documents import Doc, now
from .kinds import Resource

UNKNOWN = "unknown"
Path = tuple[str, ...]

# Keys of list items that may be left out, and what they then are.
_KEY_DEFAULTS = {"protocol": "TCP"}
_NEVER_OWNED = {
    "name", "namespace", "uid", "creationTimestamp", "resourceVersion", "generation", "managedFields", "selfLink", "deletionTimestamp",
    "deletionGracePeriodSeconds",
}  # fmt: skip


@dataclass
class Owner:
    manager: str
    operation: str  # Apply | Update
    api_version: str
    subresource: str = ""
    time: str = ""
    paths: set[Path] = field(default_factory=set)

    def entry(self) -> Doc:
        found: Doc = {"manager": self.manager, "operation": self.operation, "apiVersion": self.api_version}
        if self.time:
            found["time"] = self.time
        found["fieldsType"] = "FieldsV1"
        found["fieldsV1"] = _nested(self.paths)
        if self.subresource:
            found["subresource"] = self.subresource
        return found


def root_type(resource: Resource) -> schema.Type:
    found = schema.of(resource)
    return found if found is not None else custom.type_of(resource)


# --- walking a document by its type ----------------------------------------------------------------------------------


def child_type(type_: schema.Type, key: str) -> schema.Type:
    """The type of a field; "deduced" where nothing is known about it."""
    found = type_ if isinstance(type_, schema.Struct) else schema.struct(type_)
    if found is not None:
        return found.fields.get(key, "deduced")
    if isinstance(type_, dict) and "map" in type_:
        return type_["map"]
    return "deduced"


def granular(type_: schema.Type, value: Any) -> bool:
    """Whether a map's fields are owned one by one."""
    if not isinstance(value, dict) or type_ == "any":
        return False
    found = type_ if isinstance(type_, schema.Struct) else schema.struct(type_)
    if found is not None:
        return not found.atomic
    return not (isinstance(type_, dict) and type_.get("atomic"))


def list_kind(type_: schema.Type) -> str:
    """map, set or atomic."""
    return type_.get("type", "atomic") if isinstance(type_, dict) else "atomic"


def item_step(type_: Doc, item: Any) -> str:
    if type_.get("type") == "set":
        return "v:" + json.dumps(item, separators=(",", ":"))
    keys = {key: item.get(key, _KEY_DEFAULTS.get(key)) for key in type_["keys"]} if isinstance(item, dict) else {}
    return "k:" + json.dumps({key: value for key, value in sorted(keys.items()) if value is not None}, separators=(",", ":"))


def values(type_: schema.Type, value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every owned path of a value with what stands there; True for an item of a list as such."""
    if granular(type_, value):
        if not value and path:
            yield path, value
        for key, each in value.items():
            yield from values(child_type(type_, key), each, (*path, f"f:{key}"))
    elif isinstance(value, list) and list_kind(type_) in {"map", "set"}:
        for item in value:
            step = (*path, item_step(type_, item))
            yield step, True
            if isinstance(item, dict):
                for key, each in item.items():
                    yield from values(child_type(type_["list"], key), each, (*step, f"f:{key}"))
        if not value:
            yield path, value
    else:
        yield path, value


def owned(resource: Resource, doc: Doc, subresource: str) -> dict[Path, Any]:
    """What a writer of this document through this subresource may own."""
    found = {}
    for path, value in values(root_type(resource), doc):
        if path[0] in {"f:apiVersion", "f:kind"} or (path[0] == "f:metadata" and (len(path) == 1 or path[1][2:] in _NEVER_OWNED)):
            continue
        if resource.status and (path[0] == "f:status") is not (subresource == "status"):
            continue
        found[path] = value
    return found


# --- FieldsV1 --------------------------------------------------------------------------------------------------------


def _nested(paths: Iterable[Path]) -> Doc:
    tree: Doc = {}
    members = set(paths)
    for path in sorted(members):
        node = tree
        for step in path:
            node = node.setdefault(step, {})
    for path in members:
        node = tree
        for step in path:
            node = node[step]
        if node:
            node["."] = {}
    return _sorted(tree)


def _sorted(tree: Doc) -> Doc:
    return {key: _sorted(tree[key]) for key in sorted(tree)}


def _flat(tree: Doc, path: Path = ()) -> Iterator[Path]:
    for key, below in tree.items():
        if key == ".":
            continue
        here = (*path, key)
        if not below or "." in below:
            yield here
        yield from _flat(below, here)


def read(entries: Any) -> list[Owner]:
    """The owners that managedFields lists; what is malformed is left out."""

    def one(each: Doc) -> Owner:
        found = Owner(each["manager"], each.get("operation", "Update"), each.get("apiVersion", ""), each.get("subresource", ""), each.get("time", ""))
        found.paths = set(_flat(each["fieldsV1"]))
        return found

    return [one(each) for each in entries or () if each.get("manager") is not None and isinstance(each.get("fieldsV1"), dict)]


def write(owners: Iterable[Owner]) -> list[Doc]:
    return [each.entry() for each in sorted(owners, key=lambda each: (each.operation, each.time, each.manager)) if each.paths]


def same_owners(one: Any, two: Any) -> bool:
    """Whether two managedFields say the same, whenever they said it."""

    def bare(entries: Any) -> list[Doc]:
        return sorted(({key: value for key, value in each.items() if key != "time"} for each in entries or ()), key=str)

    return bool(one == two or bare(one) == bare(two))


# --- plain writes ----------------------------------------------------------------------------------------------------


def on_write(resource: Resource, doc: Doc, old: Doc | None, manager: str, subresource: str, owners: list[Doc] | None = None) -> None:
    """Notes the fields that `manager` changed between `old` and `doc`, in place. `owners`: managedFields that are settled already."""
    metadata = doc["metadata"]
    if owners is not None:
        metadata["managedFields"] = owners
        return
    before = (old or {}).get("metadata", {}).get("managedFields")
    given = metadata.get("managedFields", before)
    if given == [{}] or not given:
        metadata.pop("managedFields", None)
        given = None
    else:
        metadata["managedFields"] = given
    if not manager:
        return
    new_values = owned(resource, doc, subresource)
    old_values = owned(resource, old, subresource) if old is not None else {}
    changed = {path for path, value in new_values.items() if path not in old_values or old_values[path] != value}
    removed = old_values.keys() - new_values.keys()
    if not changed and not removed:
        return
    found = read(given)
    wanted = (manager, "Update", subresource, resource.api_version)
    mine = next((each for each in found if (each.manager, each.operation, each.subresource, each.api_version) == wanted), None)
    if mine is None:
        mine = Owner(manager, "Update", resource.api_version, subresource)
        found.append(mine)
    for each in found:
        each.paths -= removed
        if each is not mine:
            each.paths -= changed
    mine.paths |= changed
    if changed:
        mine.time = now()
    listed = write(found)
    if listed:
        metadata["managedFields"] = listed
    else:
        metadata.pop("managedFields", None)
