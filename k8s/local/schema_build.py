"""Writes `schema.json`, the table of Kubernetes' types that `schema` reads, from the JSON schemas of the kubernetes-validate package.

    python -m k8s.local.schema_build [--check]

Only facts go into the table: names and types of fields, which are required, and how lists merge. A type maps to its fields; a field is
a scalar's name, "@Type", or a list or map of one of these:
    {"list": ELEMENT, "keys": [...], "merge": KEY, "type": "map|set|atomic", "retain": true}   {"map": ELEMENT}
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .kinds import BUILT_IN

VERSION = "v1.36.0"
TARGET = Path(__file__).with_name("schema.json")
SCALARS = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "int-or-string",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "time",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "microtime",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "any",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "any",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON": "any",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps": "any",
}
ALSO = (
    "Scale", "Eviction", "Binding", "DeleteOptions", "Status", "SelfSubjectAccessReview", "SelfSubjectRulesReview", "SelfSubjectReview", "SubjectAccessReview",
)  # fmt: skip


def short(name: str) -> str:
    """Types are known by their last word; the Event of events.k8s.io and the ResourceClaim of resource.k8s.io must not meet the core ones."""
    if ".api.resource.v1." in name:
        return "resource." + name.rsplit(".", 1)[1]
    return "events." + name.rsplit(".", 1)[1] if ".api.events." in name else name.rsplit(".", 1)[1]


def source() -> dict[str, Any]:
    import kubernetes_validate

    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"{VERSION}-local"
    found: dict[str, Any] = json.loads((folder / "_definitions.json").read_text())["$defs"]
    return found


def _kind_of(spec: dict[str, Any]) -> str:
    """The one type of a schema that may also be null."""
    kinds = spec.get("type", "object")
    return kinds if isinstance(kinds, str) else next(each for each in kinds if each != "null")


def build() -> dict[str, Any]:
    definitions = source()
    preferred: dict[str, str] = {}
    for name in definitions:
        if any(f".{version}." in name for version in ("v1alpha1", "v1alpha2", "v1alpha3", "v1beta1", "v1beta2", "v2")):
            continue
        preferred.setdefault(short(name), name)
    for name in definitions:
        # Several groups have types of the same last word (e.g. ServiceReference); core, apps and apiextensions win in this order.
        if ".core.v1." in name:
            preferred[short(name)] = name
    types: dict[str, Any] = {}
    wanted = [resource.schema for resource in BUILT_IN] + list(ALSO)
    full: dict[str, str] = {each: preferred[each] for each in wanted}
    while wanted:
        name = wanted.pop()
        if name in types:
            continue
        types[name] = _type(definitions[full[name]], full, wanted)
        types[name]["is"] = full[name]
    return {"version": VERSION, "types": dict(sorted(types.items()))}


def _type(spec: dict[str, Any], full: dict[str, str], wanted: list[str]) -> dict[str, Any]:
    fields = {name: _field(each, full, wanted) for name, each in (spec.get("properties") or {}).items()}
    found: dict[str, Any] = {"fields": fields}
    if spec.get("required"):
        found["required"] = spec["required"]
    if spec.get("x-kubernetes-map-type") == "atomic":
        found["atomic"] = True
    return found


def _field(spec: dict[str, Any], full: dict[str, str], wanted: list[str]) -> Any:
    ref = spec.get("$ref") or next((each["$ref"] for each in spec.get("oneOf", ()) if "$ref" in each), None)
    if ref:
        target = ref.rsplit("/", 1)[1]
        if target in SCALARS:
            return SCALARS[target]
        name = short(target)
        if full.setdefault(name, target) != target:
            name = f"{target.split('.')[-3]}.{name}"
            full[name] = target
        wanted.append(name)
        return "@" + name
    kind = _kind_of(spec)
    if kind == "array":
        found: dict[str, Any] = {"list": _field(spec["items"], full, wanted)}
        strategy = spec.get("x-kubernetes-patch-strategy", "")
        if "merge" in strategy:
            found["merge"] = spec.get("x-kubernetes-patch-merge-key", "")
        if "retainKeys" in strategy:
            found["retain"] = True
        if spec.get("x-kubernetes-list-map-keys"):
            found["keys"] = spec["x-kubernetes-list-map-keys"]
        if spec.get("x-kubernetes-list-type"):
            found["type"] = spec["x-kubernetes-list-type"]
        return found
    if kind == "object":
        inner = spec.get("additionalProperties")
        return {"map": _field(inner, full, wanted)} if isinstance(inner, dict) else "any"
    if kind == "string" and spec.get("format") == "byte":
        return "bytes"
    return {"boolean": "bool", "integer": "int", "number": "number", "string": "string"}[kind]


def text() -> str:
    table = build()
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(each, separators=(',', ':'), sort_keys=True)}" for name, each in table["types"].items())
    return f'{{"version": {json.dumps(table["version"])}, "types": {{\n{lines}\n}}}}\n'


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.read_text() == text() else f"{TARGET} is not what the schemas say")
    TARGET.write_text(text())
