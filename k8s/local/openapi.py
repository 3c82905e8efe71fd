"""OpenAPI v2 and v3, as far as `kubectl apply`, `explain` and `create --dry-run=server` read them: types and fields, without prose."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from starlette.responses import Response

from . import custom, schema
from .discovery import groups
from .documents import Doc, encode
from .errors import StatusError, path_not_found
from .kinds import Kinds, Resource

_SCALARS: dict[str, Doc] = {
    "string": {"type": "string"}, "bool": {"type": "boolean"}, "int": {"type": "integer", "format": "int32"}, "number": {"type": "number", "format": "double"},
    "bytes": {"type": "string", "format": "byte"}, "time": {"type": "string", "format": "date-time"},
    "microtime": {"type": "string", "format": "date-time"}, "any": {"type": "object"},
}  # fmt: skip
_QUERY = ("dryRun", "fieldManager", "fieldValidation")


def respond(kinds: Kinds, parts: list[str], accept: str) -> Response:
    if parts == ["openapi", "v2"]:
        if "protobuf" in accept and "json" not in accept:
            raise StatusError(406, "NotAcceptable", "only the following media types are accepted: application/json")
        return Response(_v2(kinds, kinds.generation), media_type="application/json")
    if parts == ["openapi", "v3"]:
        return Response(_index(kinds, kinds.generation), media_type="application/json")
    if len(parts) >= 3 and parts[:2] == ["openapi", "v3"]:
        group, version = "", ""
        if parts[2] == "api" and len(parts) == 4:
            version = parts[3]
        elif parts[2] == "apis" and len(parts) == 5:
            group, version = parts[3:]
        if version in dict(groups(kinds)).get(group, ()):
            return Response(_v3(kinds, kinds.generation, group, version), media_type="application/json")
    raise path_not_found()


def _type(type_: schema.Type, prefix: str) -> Doc:
    if isinstance(type_, dict):
        if "list" in type_:
            found: Doc = {"type": "array", "items": _type(type_["list"], prefix)}
            if "merge" in type_:
                found["x-kubernetes-patch-strategy"] = "merge,retainKeys" if type_.get("retain") else "merge"
                if type_["merge"]:
                    found["x-kubernetes-patch-merge-key"] = type_["merge"]
            if "type" in type_:
                found["x-kubernetes-list-type"] = type_["type"]
            if "keys" in type_:
                found["x-kubernetes-list-map-keys"] = type_["keys"]
            return found
        return {"type": "object", "additionalProperties": _type(type_["map"], prefix)}
    if type_.startswith("@"):
        return {"$ref": prefix + schema.structs()[type_[1:]].full_name}
    if type_ in {"quantity", "int-or-string"}:
        # v2 says string with a format; v3 allows both forms.
        if prefix.startswith("#/definitions"):
            return {"type": "string", "format": "int-or-string"} if type_ == "int-or-string" else {"type": "string"}
        return {"oneOf": [{"type": "string"}, {"type": "integer" if type_ == "int-or-string" else "number"}]}
    return dict(_SCALARS[type_])


def _definition(type_: schema.Struct, prefix: str) -> Doc:
    found: Doc = {"type": "object", "properties": {name: _type(each, prefix) for name, each in type_.fields.items()}}
    if type_.required:
        found["required"] = list(type_.required)
    if type_.atomic:
        found["x-kubernetes-map-type"] = "atomic"
    return found


def _gvk(resource: Resource) -> Doc:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _custom_name(resource: Resource) -> str:
    return ".".join([*reversed(resource.group.split(".")), resource.version, resource.kind])


def _definitions(kinds: Iterable[Resource], prefix: str) -> Doc:
    found: Doc = {}
    wanted: list[str] = []
    for resource in kinds:
        type_ = schema.of(resource)
        if type_ is None:
            body: Doc = dict(custom.schema_of(resource) or {"type": "object", "x-kubernetes-preserve-unknown-fields": True})
            properties = {**(body.get("properties") or {}), "apiVersion": {"type": "string"}, "kind": {"type": "string"}}
            properties["metadata"] = {"$ref": prefix + schema.structs()["ObjectMeta"].full_name}
            found[_custom_name(resource)] = {**body, "properties": properties, "x-kubernetes-group-version-kind": [_gvk(resource)]}
            wanted.append("ObjectMeta")
        else:
            wanted.append(type_.name)
            found[type_.full_name] = {**_definition(type_, prefix), "x-kubernetes-group-version-kind": [_gvk(resource)]}
    seen: set[str] = set()
    while wanted:
        type_ = schema.structs()[wanted.pop()]
        if type_.name in seen:
            continue
        seen.add(type_.name)
        found.setdefault(type_.full_name, _definition(type_, prefix))
        for each in type_.fields.values():
            while isinstance(each, dict):
                each = each.get("list", each.get("map"))
            if isinstance(each, str) and each.startswith("@"):
                wanted.append(each[1:])
    return found


def _paths(kinds: Iterable[Resource], *, v3: bool, prefix: str) -> Doc:
    """Enough of each path for kubectl to learn which query parameters a verb takes."""
    paths: Doc = {}
    for resource in kinds:
        base = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
        base += f"/namespaces/{{namespace}}/{resource.plural}" if resource.namespaced else f"/{resource.plural}"
        type_ = schema.of(resource)
        reference = {"$ref": prefix + (type_.full_name if type_ else _custom_name(resource))}
        paths[base] = {"post": _operation(resource, "post", reference, v3=v3)}
        paths[base + "/{name}"] = {verb: _operation(resource, verb, reference, v3=v3) for verb in ("get", "put", "patch", "delete")}
    return paths


def _operation(resource: Resource, verb: str, reference: Doc, *, v3: bool) -> Doc:
    kind: Doc = {"schema": {"type": "string"}} if v3 else {"type": "string"}
    named = {"post": _QUERY, "put": _QUERY, "patch": _QUERY, "delete": ("dryRun",)}.get(verb, ())
    parameters = [{"name": each, "in": "query", **kind} for each in named]
    answer = {"description": "OK", "content": {"application/json": {"schema": reference}}} if v3 else {"description": "OK", "schema": reference}
    return {
        "operationId": f"{verb}{resource.group.title().replace('.', '')}{resource.version.title()}{resource.kind}",
        "x-kubernetes-action": verb,
        "x-kubernetes-group-version-kind": _gvk(resource),
        "parameters": parameters,
        "responses": {"200": answer},
    }


@lru_cache(maxsize=2)
def _v2(kinds: Kinds, generation: int) -> bytes:
    listed = list(kinds.all())
    prefix = "#/definitions/"
    document: dict[str, Any] = {
        "swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": _paths(listed, v3=False, prefix=prefix), "definitions": _definitions(listed, prefix),
    }  # fmt: skip
    return encode(document)


@lru_cache(maxsize=64)
def _v3(kinds: Kinds, generation: int, group: str, version: str) -> bytes:
    listed = [each for each in kinds.all() if each.group == group and each.version == version]
    prefix = "#/components/schemas/"
    document: dict[str, Any] = {
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": _paths(listed, v3=True, prefix=prefix), "components": {"schemas": _definitions(listed, prefix)},
    }  # fmt: skip
    return encode(document)


@lru_cache(maxsize=2)
def _index(kinds: Kinds, generation: int) -> bytes:
    paths = {}
    for group, versions in groups(kinds):
        for version in versions:
            where = f"apis/{group}/{version}" if group else f"api/{version}"
            digest = hashlib.sha512(_v3(kinds, generation, group, version)).hexdigest()[:64].upper()
            paths[where] = {"serverRelativeURL": f"/openapi/v3/{where}?hash={digest}"}
    return encode({"paths": paths})
