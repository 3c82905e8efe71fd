"""Storages of the catalogue: the form of their documents, what a schema cannot say of them, and how they are stored.

A document names its kind, and what that kind needs stands under the kind's own name:

    slug: team-nas
    kind: nfs
    title: {en: Team NAS}
    mount_path: /mnt/nas
    capacity: 10Ti
    nfs: {server: nas.example.com, path: /export/teams}

Secrets are only named here (`secrets: {userKey: {}}`); their values are written in the admin.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from portal.domain.models import Storage
from portal.domain.shape import parse_bytes

from .faults import Fault, Path, quantities
from .schemas import _QUANTITY, _SLUG, _STRINGS, _TEXTS, _document

_PATH = {"type": "string", "pattern": "^/[A-Za-z0-9._/-]*$", "maxLength": 300}
_KEY = {"type": "string", "pattern": "^[-._a-zA-Z0-9]+$", "maxLength": 120}
_OPTIONS = {"type": "array", "items": {"type": "string", "minLength": 1}}
_ENV_NAME = "^[A-Za-z_][A-Za-z0-9_]*$"
_ENV = {
    "type": "object",
    "propertyNames": {"pattern": _ENV_NAME},
    "additionalProperties": {"oneOf": [{"type": "string"}, _document(["secret"], {"secret": _KEY})]},
}
_CSI = _document(
    ["driver"],
    {
        "driver": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$"},
        "volume_handle": {"type": "string", "minLength": 1},  # without it, or with ${name} in it: unique for each team
        "attributes": _STRINGS,
        "fs_type": {"type": "string"},
        "mount_options": _OPTIONS,
        "secret_refs": {"type": "array", "items": {"enum": ["controllerPublish", "nodeStage", "nodePublish"]}},
    },
)
KINDS: dict[str, dict[str, Any]] = {
    "claim": _document(
        ["size"],
        {"size": _QUANTITY, "storage_class": {"type": "string"}, "access_mode": {"enum": ["ReadWriteMany", "ReadWriteOnce"]}},
    ),
    "scratch": _document(["size"], {"size": _QUANTITY, "medium": {"enum": ["disk", "memory"]}}),
    "nfs": _document(["server", "path"], {"server": {"type": "string", "minLength": 1}, "path": _PATH, "mount_options": _OPTIONS}),
    "csi": _CSI,
    "object": _document(
        ["bucket"],
        {
            "endpoint": {"type": "string"},
            "region": {"type": "string"},
            "bucket": {"type": "string", "minLength": 1},
            "prefix": {"type": "string"},
            "env": _ENV,
        },
    ),
    "hdfs": _document(
        ["config"],
        {
            "config": {"type": "object", "minProperties": 1, "propertyNames": _KEY, "additionalProperties": {"type": "string"}},
            "config_path": _PATH,
            "principal": {"type": "string"},
            "keytab": _KEY,
            "env": _ENV,
        },
    ),
}
_TAKES_CSI = ("csi", "object", "hdfs")
STORAGE = _document(
    ["slug", "title", "kind"],
    {
        "slug": _SLUG,
        "title": _TEXTS,
        "description": _TEXTS,
        "kind": {"enum": list(KINDS)},
        "position": {"type": "integer", "minimum": 0, "maximum": 10000},
        "enabled": {"type": "boolean"},  # how it begins; afterwards the admin says
        "everyone": {"enum": ["read", "write"]},  # what teams without a grant may do; absent: nothing
        "mount_path": _PATH,
        "capacity": _QUANTITY,
        "source": {"type": "string"},
        "secrets": {
            "type": "object",
            "propertyNames": _KEY,
            "additionalProperties": _document([], {"title": _TEXTS, "file": {"type": "boolean"}}),
        },
        **KINDS,
    },
)
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_OBJECT_VARIABLES = ("endpoint", "region", "bucket", "prefix")


def faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong with a document that has the form of `STORAGE`."""
    kind = document["kind"]
    for block in KINDS:
        if block in document and block != kind and not (block == "csi" and kind in _TAKES_CSI):
            yield Fault((block,), f"says nothing for a storage of kind {kind}")
    if kind not in document:
        yield Fault((kind,), f"a storage of kind {kind} says here where it is")
        return
    yield from quantities(document, capacity=parse_bytes)
    yield from quantities(document[kind], kind, size=parse_bytes)
    mounted = kind in ("claim", "scratch", "nfs") or "csi" in document
    if mounted and "mount_path" not in document:
        yield Fault(("mount_path",), "where it appears in environments")
    if not mounted and "mount_path" in document:
        yield Fault(("mount_path",), f"a storage of kind {kind} is mounted only with csi")
    if document.get("mount_path") == "/":
        yield Fault(("mount_path",), "must not be the root")
    if kind == "claim" and "everyone" in document and document["everyone"] == "read":
        yield Fault(("everyone",), "a claim that nobody may write to stays empty; say write")
    if mounted and kind not in ("claim", "scratch") and "capacity" not in document:
        yield Fault(("capacity",), "a volume of a given size is made for it, so say how large it is")
    yield from _secrets(document)


def _secrets(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Secrets that are used but not declared, or declared but not used; variables that there are not."""
    kind, declared = document["kind"], set(document.get("secrets") or {})
    used: dict[str, Path] = {}
    for name, value in (document[kind].get("env") or {}).items():
        if isinstance(value, Mapping):
            used[value["secret"]] = (kind, "env", name, "secret")
            continue
        for variable in _VARIABLE.findall(value):
            if kind != "object" or variable not in _OBJECT_VARIABLES:
                there = f"there are {', '.join(_OBJECT_VARIABLES)}" if kind == "object" else "there are none here"
                yield Fault((kind, "env", name), f"${{{variable}}} is no variable; {there}")
    if kind == "hdfs" and "keytab" in document[kind]:
        used[document[kind]["keytab"]] = (kind, "keytab")
    for key, path in used.items():
        if key not in declared:
            yield Fault(path, f"there is no secret {key!r} in secrets")
    refs = (document.get("csi") or {}).get("secret_refs")
    if refs and not declared:
        yield Fault(("csi", "secret_refs"), "there is no secret in secrets")
    if not refs:
        for key in sorted(declared - set(used)):
            yield Fault(("secrets", key), "is used by nothing")


def store(data: dict[str, Any]) -> None:
    """Put a checked document into the database, unless an admin has changed that storage."""
    values = {"kind": data["kind"], "title": data["title"], "position": data.get("position", 100), "spec": data}
    row, made = Storage.objects.get_or_create(slug=data["slug"], defaults=values | {"enabled": data.get("enabled", True)})
    if not made and not row.edited:
        Storage.objects.filter(pk=row.pk).update(**values)
