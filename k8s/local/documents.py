"""Small helpers on JSON documents. A document is a dict as `json.loads` returns it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Doc = dict[str, Any]


def clone(value: Any) -> Any:
    """A copy that shares nothing mutable with the original; several times faster than `copy.deepcopy`."""
    if type(value) is dict:
        return {key: clone(item) for key, item in value.items()}
    if type(value) is list:
        return [clone(item) for item in value]
    return value


def encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def now() -> str:
    """The time as metav1.Time: RFC 3339, UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now_micro() -> str:
    """The time as metav1.MicroTime."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    """A metav1.Time or MicroTime. ValueError when it is neither."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def meta(doc: Mapping[str, Any]) -> Doc:
    return doc.get("metadata") or {}


def name_of(doc: Mapping[str, Any]) -> str:
    return str(meta(doc).get("name") or "")


def namespace_of(doc: Mapping[str, Any]) -> str:
    return str(meta(doc).get("namespace") or "")


def uid_of(doc: Mapping[str, Any]) -> str:
    return str(meta(doc).get("uid") or "")


def labels_of(doc: Mapping[str, Any]) -> Mapping[str, str]:
    return meta(doc).get("labels") or {}


def at(doc: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path of keys, or `default` where a step is missing or None."""
    for step in path.split("."):
        if not isinstance(doc, dict):
            return default
        doc = doc.get(step)
        if doc is None:
            return default
    return doc
