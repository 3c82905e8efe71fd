"""Types of Kubernetes' documents: what a field is, how its lists merge, and cleaning of what a client sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from . import custom, quantity
from .documents import Doc, clone, parse_time
from .errors import StatusError, bad_request
from .kinds import Resource

Type = Any  # a scalar's name, "@Type", {"list": Type, ...} or {"map": Type}; see schema_build

_JSON_NAMES = {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}
_GO_NAMES = {"bool": "bool", "int": "int32", "number": "float64", "string": "string", "bytes": "[]uint8", "time": "v1.Time", "microtime": "v1.MicroTime"}


@dataclass(frozen=True)
class Struct:
    name: str
    fields: dict[str, Type]
    required: tuple[str, ...]
    atomic: bool
    full_name: str


@cache
def _table() -> dict[str, Struct]:
    types = json.loads(Path(__file__).with_name("schema.json").read_text())["types"]
    return {
        name: Struct(name, each["fields"], tuple(each.get("required", ())), bool(each.get("atomic")), each["is"]) for name, each in types.items()
    }  # fmt: skip


def struct(type_: Type) -> Struct | None:
    """The fields of "@Type"; None for anything else."""
    return _table()[type_[1:]] if isinstance(type_, str) and type_.startswith("@") else None


def of(resource: Resource) -> Struct | None:
    return _table().get(resource.schema) if resource.schema else None


def structs() -> dict[str, Struct]:
    return _table()


class _Wrong(Exception):
    """A value that does not fit its field."""


class _Cleaner:
    def __init__(self) -> None:
        self.unknown: list[str] = []

    def value(self, type_: Type, value: Any, path: str, owner: str) -> Any:
        if isinstance(type_, dict):
            return self._collection(type_, value, path, owner)
        if type_ == "any":
            return clone(value)
        if type_.startswith("@"):
            if not isinstance(value, dict):
                self._mismatch(value, path, owner, "v1." + type_[1:])
            return self.fields(_table()[type_[1:]], value, path)
        return self._scalar(type_, value, path, owner)

    def fields(self, type_: Struct, value: Doc, path: str) -> Doc:
        found: Doc = {}
        fields, prefix = type_.fields, f"{path}." if path else ""
        for key, each in value.items():
            field_type = fields.get(key)
            if field_type is None:
                self.unknown.append(prefix + key)
            elif each is not None:
                cleaned = self.value(field_type, each, prefix + key, type_.name)
                # Go's omitempty: an empty list or map is the same as none.
                if not (isinstance(field_type, dict) and not cleaned and key not in type_.required):
                    found[key] = cleaned
        return found

    def _collection(self, type_: Doc, value: Any, path: str, owner: str) -> Any:
        if "list" in type_:
            if not isinstance(value, list):
                self._mismatch(value, path, owner, f"[]{_go(type_['list'])}")
            inner = type_["list"]
            if inner == "string":
                for each in value:
                    if not isinstance(each, str):
                        self._scalar(inner, each, path, owner)
                return list(value)
            return [self.value(inner, each, f"{path}[{index}]", owner) for index, each in enumerate(value)]
        if not isinstance(value, dict):
            self._mismatch(value, path, owner, f"map[string]{_go(type_['map'])}")
        inner = type_["map"]
        return {key: self.value(inner, each, f"{path}.{key}", owner) for key, each in value.items() if each is not None or inner == "any"}

    def _scalar(self, type_: str, value: Any, path: str, owner: str) -> Any:
        kind = type(value)
        if type_ == "quantity":
            if kind not in {str, int, float}:
                self._mismatch(value, path, owner, "resource.Quantity")
            try:
                return quantity.canonical(value)
            except ValueError as error:
                raise _Wrong(str(error)) from None
        if type_ == "int-or-string":
            if kind not in {str, int}:
                self._mismatch(value, path, owner, "intstr.IntOrString")
            return value
        if type_ in {"time", "microtime"}:
            if kind is not str:
                self._mismatch(value, path, owner, _GO_NAMES[type_])
            try:
                parse_time(value)
            except ValueError:
                raise _Wrong(f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse "{value}"') from None
            return value
        if type_ == "int" and kind is float and value.is_integer():
            return int(value)
        allowed = {"bool": (bool,), "int": (int,), "number": (int, float), "string": (str,), "bytes": (str,)}[type_]
        if kind not in allowed:
            self._mismatch(value, path, owner, _GO_NAMES[type_])
        return value

    def _mismatch(self, value: Any, path: str, owner: str, wanted: str) -> None:
        shown = "".join(part.split("]", 1)[-1] for part in path.split("["))
        raise _Wrong(f"json: cannot unmarshal {_JSON_NAMES.get(type(value), 'null')} into Go struct field {owner}.{shown} of type {wanted}")


def _go(type_: Type) -> str:
    if isinstance(type_, str):
        return f"v1.{type_[1:]}" if type_.startswith("@") else _GO_NAMES.get(type_, type_)
    return "object"


def clean(resource: Resource, given: Doc, field_validation: str, warnings: list[str]) -> Doc:
    """A new document with only known fields, nulls dropped and quantities in canonical form.

    Raises 400 for a value of the wrong type. Unknown fields: `Strict` refuses, `Warn` adds to `warnings`, `Ignore` drops them.
    """
    if not isinstance(given, dict):
        raise bad_request(
            f"couldn't get version/kind; json parse error: json: cannot unmarshal {_JSON_NAMES.get(type(given), 'null')} into Go value of type struct"
        )
    type_ = of(resource)
    cleaner = _Cleaner()
    try:
        if type_ is None:
            doc, unknown = custom.clean(resource, given)
            for key in ("metadata",):
                if key in doc:
                    doc[key] = cleaner.value("@ObjectMeta", doc[key], key, resource.kind)
            cleaner.unknown += unknown
        else:
            doc = cleaner.fields(type_, given, "")
    except _Wrong as error:
        raise handled(resource, str(error)) from None
    if cleaner.unknown and field_validation == "Strict":
        raise handled(resource, "strict decoding error: " + ", ".join(f'unknown field "{path}"' for path in cleaner.unknown))
    if cleaner.unknown and field_validation == "Warn":
        warnings.extend(f'unknown field "{path}"' for path in cleaner.unknown)
    return doc


def handled(resource: Resource, why: str) -> StatusError:
    return bad_request(f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {why}')


def missing(type_: Struct, doc: Doc, path: str = "") -> Iterator[str]:
    """Paths of required fields that are not there."""
    prefix = f"{path}." if path else ""
    for key in type_.required:
        if doc.get(key) in (None, ""):
            yield prefix + key
    for key, value in doc.items():
        yield from _missing_in(type_.fields.get(key), value, prefix + key)


def _missing_in(type_: Type, value: Any, path: str) -> Iterator[str]:
    if isinstance(type_, dict):
        inner = type_.get("list")
        if inner is not None and isinstance(inner, str) and inner.startswith("@"):
            for index, each in enumerate(value):
                yield from _missing_in(inner, each, f"{path}[{index}]")
        return
    found = struct(type_)
    if found is not None and isinstance(value, dict):
        yield from missing(found, value, path)
