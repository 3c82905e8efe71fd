"""Custom resources: pruning, defaults and validation by the structural schema of their CustomResourceDefinition."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .documents import Doc, clone
from .errors import Cause, invalid_value, not_supported, required
from .kinds import Resource

_ALWAYS = ("apiVersion", "kind", "metadata")
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "integer": (int,), "number": (int, float),
}  # fmt: skip


def schema_of(resource: Resource) -> Doc | None:
    found: Doc | None = ((resource.custom or {}).get("schema") or {}).get("openAPIV3Schema")
    return found


def clean(resource: Resource, given: Doc) -> tuple[Doc, list[str]]:
    """A pruned copy with the schema's defaults, and the paths of what was pruned."""
    schema = schema_of(resource)
    doc: Doc = clone(given)
    unknown: list[str] = []
    if schema is not None and not schema.get("x-kubernetes-preserve-unknown-fields"):
        known = {key: {"x-kubernetes-preserve-unknown-fields": True} for key in _ALWAYS}
        _prune({**schema, "properties": {**(schema.get("properties") or {}), **known}}, doc, "", unknown)
    if schema is not None:
        _fill(schema, doc)
    return doc, unknown


def _prune(schema: Doc, value: Any, path: str, unknown: list[str]) -> None:
    if isinstance(value, list):
        for index, each in enumerate(value):
            _prune(schema.get("items") or {}, each, f"{path}[{index}]", unknown)
        return
    if not isinstance(value, dict) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    properties, rest = schema.get("properties"), schema.get("additionalProperties")
    for key in list(value):
        where = f"{path}.{key}" if path else key
        if properties is not None and key in properties:
            _prune(properties[key], value[key], where, unknown)
        elif isinstance(rest, dict):
            _prune(rest, value[key], where, unknown)
        elif not rest:
            del value[key]
            unknown.append(where)


def _fill(schema: Doc, value: Any) -> None:
    if isinstance(value, list):
        for each in value:
            _fill(schema.get("items") or {}, each)
    elif isinstance(value, dict):
        for key, inner in (schema.get("properties") or {}).items():
            if "default" in inner and value.get(key) is None:
                value[key] = clone(inner["default"])
            if key in value:
                if value[key] is None and not inner.get("nullable"):
                    del value[key]
                else:
                    _fill(inner, value[key])
        rest = schema.get("additionalProperties")
        if isinstance(rest, dict):
            for key, each in value.items():
                if key not in (schema.get("properties") or {}):
                    _fill(rest, each)


def check(resource: Resource, doc: Doc) -> list[Cause]:
    schema = schema_of(resource)
    return list(_check(schema, doc, "")) if schema is not None else []


def _check(schema: Doc, value: Any, path: str) -> Iterator[Cause]:
    if value is None and (schema.get("nullable") or not path):
        return
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, (int, str)) or isinstance(value, bool):
            yield invalid_value(path, value, f"{path} in body must be of type int-or-string")
        return
    kind = schema.get("type")
    if kind and path not in _ALWAYS:
        allowed = _TYPES.get(kind, (object,))
        if not isinstance(value, allowed) or (isinstance(value, bool) and kind != "boolean"):
            name = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}.get(type(value), "null")
            yield Cause("FieldValueTypeInvalid", path, f'Invalid value: "{name}": {path} in body must be of type {kind}: "{name}"')
            return
    yield from _limits(schema, value, path)
    if isinstance(value, dict):
        for key in schema.get("required") or ():
            if key not in value:
                yield required(f"{path}.{key}" if path else key)
        for key, inner in (schema.get("properties") or {}).items():
            if key in value and not (not path and key == "metadata"):
                yield from _check(inner, value[key], f"{path}.{key}" if path else key)
        rest = schema.get("additionalProperties")
        if isinstance(rest, dict):
            for key, each in value.items():
                if key not in (schema.get("properties") or {}):
                    yield from _check(rest, each, f"{path}.{key}")
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _check(schema.get("items") or {}, each, f"{path}[{index}]")


def _limits(schema: Doc, value: Any, path: str) -> Iterator[Cause]:
    if "enum" in schema and value not in schema["enum"]:
        yield not_supported(path, value, map(str, schema["enum"]))
    if isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield invalid_value(path, value, f"{path} in body should match '{schema['pattern']}'")
        if len(value) > schema.get("maxLength", len(value)):
            yield Cause("FieldValueTooLong", path, f"Too long: may not be more than {schema['maxLength']} bytes")
        if len(value) < schema.get("minLength", 0):
            yield invalid_value(path, value, f"{path} in body should be at least {schema['minLength']} chars long")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if "minimum" in schema and value < schema["minimum"]:
            yield invalid_value(path, value, f"{path} in body should be greater than or equal to {schema['minimum']}")
        if "maximum" in schema and value > schema["maximum"]:
            yield invalid_value(path, value, f"{path} in body should be less than or equal to {schema['maximum']}")
    elif isinstance(value, list):
        if len(value) > schema.get("maxItems", len(value)):
            yield Cause("FieldValueTooMany", path, f"Too many: {len(value)}: must have at most {schema['maxItems']} items")
        if len(value) < schema.get("minItems", 0):
            yield invalid_value(path, len(value), f"{path} in body should have at least {schema['minItems']} items")


def type_of(resource: Resource) -> Any:
    """The type of a custom resource as `managed` walks it."""
    from .schema import Struct

    found = schema_of(resource) or {}
    fields = {key: _typed(each, Struct) for key, each in (found.get("properties") or {}).items()}
    return Struct(resource.kind, {**fields, "apiVersion": "string", "kind": "string", "metadata": "@ObjectMeta"}, (), False, resource.kind)


def _typed(schema: Doc, struct: Any) -> Any:
    if schema.get("type") == "array":
        kind = schema.get("x-kubernetes-list-type", "atomic")
        return {"list": _typed(schema.get("items") or {}, struct), "type": kind, "keys": schema.get("x-kubernetes-list-map-keys") or []}
    if schema.get("type") == "object":
        atomic = schema.get("x-kubernetes-map-type") == "atomic"
        if schema.get("properties"):
            fields = {key: _typed(each, struct) for key, each in schema["properties"].items()}
            return struct("", fields, (), atomic, "")
        rest = schema.get("additionalProperties")
        if isinstance(rest, dict):
            return {"map": _typed(rest, struct), "atomic": atomic}
    return "deduced"
