"""Server-side apply: one manager's wish for some fields, merged into what others own."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from . import managed, schema
from .documents import Doc, clone, meta, now
from .errors import StatusError, bad_request, conflict, not_found
from .kinds import Resource
from .managed import Owner, Path, child_type, granular, item_step, list_kind
from .objects import Objects, Request

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def apply(objects: Objects, resource: Resource, namespace: str, name: str, given: Doc, request: Request, *, subresource: str, force: bool) -> tuple[Doc, bool]:
    """Returns the object and whether it was created. 409 with a cause per field when another manager owns a field that would change."""
    config = _config(resource, namespace, name, given, request)
    wish = set(managed.owned(resource, config, subresource))
    old = objects.store.get(resource.store_key, namespace, name)
    mine = Owner(request.manager, "Apply", resource.api_version, subresource, now(), wish)
    if old is None:
        if subresource:
            raise not_found(resource.group, resource.plural, name)
        if meta(config).get("uid"):
            why = f"uid mismatch: the provided object specified uid {meta(config)['uid']}, and no existing object was found"
            raise conflict(resource.group, resource.plural, name, why)
        return objects.create(resource, namespace, config, replace(request, owners=managed.write([mine]))), True
    owners = managed.read(meta(old).get("managedFields"))
    same = [each for each in owners if (each.manager, each.operation, each.subresource) == (mine.manager, "Apply", subresource)]
    others = [each for each in owners if each not in same]
    type_ = managed.root_type(resource)
    merged = merge(type_, old, config)
    before = {path for each in same for path in each.paths}
    held = {path for each in others for path in each.paths}
    _prune(type_, merged, before - wish, held | wish)
    _settle(resource, old, merged, wish, others, subresource, manager=mine.manager, force=force)
    if same and same[0].paths == wish:
        mine.time = same[0].time
    if not meta(given).get("resourceVersion"):
        meta(merged).pop("resourceVersion", None)
    merged["metadata"].pop("managedFields", None)
    settled = managed.write([*others, mine])
    return objects.update(resource, namespace, name, merged, replace(request, owners=settled), subresource=subresource), False


def _config(resource: Resource, namespace: str, name: str, given: Doc, request: Request) -> Doc:
    if given.get("kind") != resource.kind or given.get("apiVersion") != resource.api_version:
        raise bad_request(f"invalid object type: {given.get('apiVersion')}, Kind={given.get('kind')}")
    metadata = given.get("metadata") or {}
    if metadata.get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    if metadata.get("name", name) != name:
        raise bad_request(f"the name of the object ({metadata.get('name')}) does not match the name on the URL ({name})")
    config = schema.clean(resource, given, request.field_validation, request.warnings)
    config["metadata"] = {**(config.get("metadata") or {}), "name": name}
    if resource.namespaced:
        config["metadata"].setdefault("namespace", namespace)
    # What a client copies from a live object says nothing about its wishes.
    config["metadata"].pop("creationTimestamp", None)
    return config


def _settle(resource: Resource, old: Doc, merged: Doc, wish: set[Path], others: list[Owner], subresource: str, *, manager: str, force: bool) -> None:
    """Takes the fields that change from their owners, or refuses."""
    was, new = managed.owned(resource, old, subresource), managed.owned(resource, merged, subresource)
    # A field that another holds with the same value is held together.
    changed = {path for path in wish if new.get(path) is not True and was.get(path) != new.get(path)}
    clashes: list[tuple[Owner, Path]] = []
    for owner in others:
        clashes += [(owner, path) for path in sorted(owner.paths & changed)]
    if clashes and not force and not _from_client_side(resource, old, clashes, manager):
        raise _conflict(clashes)
    for owner, path in clashes:
        owner.paths.discard(path)
    for owner in others:
        owner.paths -= was.keys() - new.keys()


def _from_client_side(resource: Resource, old: Doc, clashes: list[tuple[Owner, Path]], manager: str) -> bool:
    """Whether all that clashes was set by `kubectl apply` before it applied on the server: then it goes on with its own."""
    noted = (meta(old).get("annotations") or {}).get(LAST_APPLIED)
    if manager != "kubectl" or not noted:
        return False
    try:
        own = set(managed.owned(resource, json.loads(noted), ""))
    except (ValueError, AttributeError, TypeError):
        return False
    return all(path in own for _, path in clashes)


def _conflict(clashes: list[tuple[Owner, Path]]) -> StatusError:
    by_owner: dict[str, list[str]] = {}
    causes = []
    for owner, path in clashes:
        word = f'conflict with "{owner.manager}"' + (f' with subresource "{owner.subresource}"' if owner.subresource else "") + f" using {owner.api_version}"
        by_owner.setdefault(word, []).append(_shown(path))
        causes.append({"reason": "FieldManagerConflict", "message": word, "field": _shown(path)})
    if len(clashes) == 1:
        word, fields = next(iter(by_owner.items()))
        text = f"{word}: {fields[0]}"
    else:
        text = "\n".join(
            f"{word.replace('conflict with', 'conflicts with', 1)}:\n" + "\n".join(f"- {each}" for each in fields)
            if len(fields) > 1
            else f"{word}: {fields[0]}"
            for word, fields in by_owner.items()
        )
    message = f"Apply failed with {len(clashes)} conflict{'s' if len(clashes) > 1 else ''}: {text}"
    return StatusError(409, "Conflict", message, {"causes": causes})


def _shown(path: Path) -> str:
    """As messages name a field: `.spec.containers[name="a"].image`."""

    text = ""
    for step in path:
        if step.startswith("f:"):
            text += f".{step[2:]}"
        elif step.startswith("k:"):
            keys = json.loads(step[2:])
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in sorted(keys.items())) + "]"
        else:
            text += f"[={step[2:]}]"
    return text


# --- merging ---------------------------------------------------------------------------------------------------------


def merge(type_: schema.Type, live: Any, wish: Any) -> Any:
    """`live` with the fields of `wish`: maps by key, lists by their keys, everything else replaced."""
    if granular(type_, wish) and isinstance(live, dict):
        found = {key: clone(value) for key, value in live.items() if key not in wish}
        ordered = {key: merge(child_type(type_, key), live.get(key), wish[key]) if key in wish else found[key] for key in live}
        ordered.update({key: clone(value) for key, value in wish.items() if key not in live})
        return ordered
    if isinstance(wish, list) and isinstance(live, list) and list_kind(type_) in {"map", "set"}:
        wanted = {item_step(type_, item): item for item in wish}
        result = []
        for item in live:
            step = item_step(type_, item)
            result.append(merge(type_["list"], item, wanted.pop(step)) if step in wanted else clone(item))
        return result + [clone(item) for item in wanted.values()]
    return clone(wish)


def _prune(type_: schema.Type, doc: Doc, gone: set[Path], kept: set[Path]) -> None:
    """Removes what the manager no longer wishes for and nobody else holds, in place."""
    # Shallowest first: a list's item is found by its keys, so it must go before they do.
    for path in sorted(gone, key=len):
        if path in kept or any(each[: len(path)] == path for each in kept):
            continue
        _remove(type_, doc, path, kept)


def _remove(type_: schema.Type, value: Any, path: Path, kept: set[Path], depth: int = 0) -> None:
    step = path[depth]
    last = depth == len(path) - 1
    if isinstance(value, dict) and step.startswith("f:"):
        key = step[2:]
        if key not in value:
            return
        if last:
            del value[key]
            return
        _remove(child_type(type_, key), value[key], path, kept, depth + 1)
        here = path[: depth + 1]
        if value[key] in ({}, []) and not any(each[: len(here)] == here for each in kept):
            del value[key]
    elif isinstance(value, list) and isinstance(type_, dict):
        index = next((number for number, item in enumerate(value) if item_step(type_, item) == step), None)
        if index is None:
            return
        if last:
            del value[index]
        else:
            _remove(type_["list"], value[index], path, kept, depth + 1)
