"""Three ways to patch a document: JSON patch (RFC 6902), JSON merge patch (RFC 7386), and Kubernetes' strategic merge."""

from __future__ import annotations

from typing import Any

from . import schema
from .documents import Doc, clone
from .errors import StatusError, bad_request


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return clone(patch)
    found = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merge(found.get(key), value)
    return found


# --- RFC 6902 --------------------------------------------------------------------------------------------------------


def json_patch(doc: Doc, operations: Any) -> Doc:
    """Applies all operations or none. 400 when the patch is malformed, 422 when it does not fit the document."""
    if not isinstance(operations, list) or not all(isinstance(each, dict) for each in operations):
        raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    found: Any = clone(doc)
    for operation in operations:
        found = _operate(found, operation)
    if not isinstance(found, dict):
        raise bad_request("the patched document is not an object")
    return found


def _unprocessable(why: str) -> StatusError:
    return StatusError(422, "Invalid", f"the server rejected our request due to an error in our request: {why}")


def _operate(doc: Any, operation: Doc) -> Any:
    name, path = operation.get("op"), operation.get("path")
    if not isinstance(path, str) or (path and not path.startswith("/")):
        raise bad_request(f"invalid JSON patch path {path!r}")
    match name:
        case "add" | "replace" | "test":
            if "value" not in operation and name != "test":
                raise bad_request(f"JSON patch operation {name} lacks a value")
            value = clone(operation.get("value"))
            if name == "test":
                if _read(doc, path) != value:
                    raise _unprocessable(f"testing value {path} failed: test failed")
                return doc
            if name == "replace":
                _read(doc, path)
            return _write(doc, path, value, insert=name == "add")
        case "remove":
            return _remove(doc, path)
        case "move" | "copy":
            source = operation.get("from")
            if not isinstance(source, str):
                raise bad_request(f"JSON patch operation {name} lacks from")
            value = clone(_read(doc, source))
            if name == "move":
                doc = _remove(doc, source)
            return _write(doc, path, value, insert=True)
    raise bad_request(f"unexpected JSON patch operation {name!r}")


def _steps(path: str) -> list[str]:
    return [each.replace("~1", "/").replace("~0", "~") for each in path.split("/")[1:]]


def _index(found: list[Any], step: str, *, end: bool = False) -> int:
    if end and step == "-":
        return len(found)
    if not step.isdigit() or int(step) > len(found) - (0 if end else 1):
        raise _unprocessable(f"array index {step} is out of bounds")
    return int(step)


def _read(doc: Any, path: str) -> Any:
    for step in _steps(path):
        if isinstance(doc, list):
            doc = doc[_index(doc, step)]
        elif isinstance(doc, dict) and step in doc:
            doc = doc[step]
        else:
            raise _unprocessable(f"path {path} does not exist")
    return doc


def _write(doc: Any, path: str, value: Any, *, insert: bool) -> Any:
    steps = _steps(path)
    if not steps:
        return value
    parent = _read(doc, path.rpartition("/")[0])
    if isinstance(parent, list):
        if insert:
            parent.insert(_index(parent, steps[-1], end=True), value)
        else:
            parent[_index(parent, steps[-1])] = value
    elif isinstance(parent, dict):
        parent[steps[-1]] = value
    else:
        raise _unprocessable(f"path {path} does not exist")
    return doc


def _remove(doc: Any, path: str) -> Any:
    _read(doc, path)
    parent, step = _read(doc, path.rpartition("/")[0]), _steps(path)[-1]
    del parent[_index(parent, step) if isinstance(parent, list) else step]
    return doc


# --- strategic merge -------------------------------------------------------------------------------------------------

_DIRECTIVES = ("$patch", "$retainKeys")


def strategic(type_: schema.Struct, target: Doc, patch: Doc) -> Doc:
    """Merges by the merge keys of the schema; `$patch`, `$retainKeys`, `$deleteFromPrimitiveList` and `$setElementOrder` are understood."""
    return _strategic_map(type_, target, patch)


def _strategic_map(type_: schema.Struct | None, target: Any, patch: Doc) -> Doc:
    target = target if isinstance(target, dict) else {}
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: clone(value) for key, value in patch.items() if key not in _DIRECTIVES}
    if directive == "delete":
        return {}
    found: Doc = dict(target)
    if "$retainKeys" in patch:
        found = {key: value for key, value in found.items() if key in patch["$retainKeys"]}
    for key, value in patch.items():
        if key in _DIRECTIVES or key.startswith("$setElementOrder/"):
            continue
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            if isinstance(found.get(field), list):
                found[field] = [each for each in found[field] if each not in value]
            continue
        if value is None:
            found.pop(key, None)
            continue
        field_type = type_.fields.get(key) if type_ else None
        found[key] = _strategic_value(field_type, found.get(key), value)
    for key, order in patch.items():
        if key.startswith("$setElementOrder/"):
            field = key.partition("/")[2]
            field_type = type_.fields.get(field) if type_ else None
            if isinstance(found.get(field), list) and isinstance(field_type, dict):
                found[field] = _ordered(found[field], order, field_type.get("merge", ""))
    return found


def _strategic_value(type_: schema.Type, target: Any, value: Any) -> Any:
    if isinstance(value, dict):
        if isinstance(type_, dict) and "map" in type_:
            inner = type_["map"]
            if not (isinstance(inner, str) and inner.startswith("@")):
                return merge(target, {key: each for key, each in value.items() if key != "$patch"}) if value.get("$patch") != "replace" else {
                    key: clone(each) for key, each in value.items() if key != "$patch"
                }  # fmt: skip
        return _strategic_map(schema.struct(type_), target, value)
    if isinstance(value, list) and isinstance(type_, dict) and "merge" in type_:
        return _strategic_list(type_, target if isinstance(target, list) else [], value)
    return clone(value)


def _strategic_list(type_: Doc, target: list[Any], patch: list[Any]) -> list[Any]:
    key = type_["merge"]
    if not key or not all(isinstance(each, dict) for each in patch):
        return [*target, *[clone(each) for each in patch if each not in target]]
    if any(each.get("$patch") == "replace" for each in patch):
        return [clone({k: v for k, v in each.items() if k != "$patch"}) for each in patch if set(each) != {"$patch"}]
    inner = schema.struct(type_["list"])
    found = list(target)
    for each in patch:
        if key not in each:
            raise bad_request(f"map: {each} does not contain declared merge key: {key}")
        position = next((index for index, have in enumerate(found) if isinstance(have, dict) and have.get(key) == each[key]), None)
        if each.get("$patch") == "delete":
            if position is not None:
                del found[position]
        elif position is None:
            found.append(_strategic_map(inner, {}, each))
        else:
            found[position] = _strategic_map(inner, found[position], each)
    return found


def _ordered(items: list[Any], order: list[Any], key: str) -> list[Any]:
    """Items that `order` names in its order; the others keep their place relative to the item before them."""
    wanted = [each.get(key) if key and isinstance(each, dict) else each for each in order]

    def identity(item: Any) -> Any:
        return item.get(key) if key and isinstance(item, dict) else item

    named = sorted((each for each in items if identity(each) in wanted), key=lambda each: wanted.index(identity(each)))
    queue = iter(named)
    return [item if identity(item) not in wanted else next(queue) for item in items]
