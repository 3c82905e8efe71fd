"""The `operators` of a template: its form, and what a schema cannot say of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Path = tuple[str | int, ...]

PHASES = ("ready", "failed", "completed")
CONTAINER_FIELDS = ("image", "command", "args", "env", "resources", "securityContext", "volumeMounts")
POD_FIELDS = ("volumes", "nodeSelector", "tolerations", "securityContext", "affinity")
_POD_OPTIONS = frozenset({"container", "without"})
# A node of the body that stands for what the role's builders make, and the keys that may stand beside it; `k8s.operators` fills them in.
NODES: dict[str, frozenset[str]] = {
    "$pod": _POD_OPTIONS,
    "$podSpec": _POD_OPTIONS,
    "$podMetadata": frozenset(),
    "$replicas": frozenset(),
    "$container": frozenset({"field"}),
    "$podField": frozenset({"field"}),
    "$int": frozenset(),
}

_PATH = {"type": "string", "pattern": "^[A-Za-z0-9]+(\\.[A-Za-z0-9]+)*$"}
_RULE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["phase"],
    "properties": {
        "phase": {"enum": list(PHASES)},
        "path": _PATH,
        "values": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        "condition": {"type": "string", "minLength": 1},
        "message": _PATH,
    },
    "oneOf": [{"required": ["path", "values"]}, {"required": ["condition"]}],
}
OPERATORS: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["api", "kind", "plural", "body", "status"],
        "properties": {
            "api": {"type": "string", "pattern": "^[a-z0-9.-]+/v[0-9a-z]+$"},
            "kind": {"type": "string", "pattern": "^[A-Z][A-Za-z0-9]{0,62}$"},
            "plural": {"type": "string", "pattern": "^[a-z0-9]{1,63}$"},
            "hosts": {"type": "object", "additionalProperties": {"type": "string", "pattern": "^([-a-z0-9.]|\\{name\\}|\\{index\\})+$"}},
            "body": {"type": "object", "minProperties": 1, "propertyNames": {"not": {"enum": ["apiVersion", "kind", "metadata", "status"]}}},
            "status": {"type": "array", "minItems": 1, "items": _RULE},
        },
    },
}


def operator_faults(operators: Sequence[Mapping[str, Any]], roles: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """What is wrong in the `operators` of a template with these roles: the place below the template, and the words."""
    for index, operator in enumerate(operators):
        at: Path = ("operators", index)
        yield from _body(operator["body"], frozenset(roles), (*at, "body"))
        yield from (((*at, "hosts", role), f"there is no role {role!r}") for role in operator.get("hosts", {}) if role not in roles)
        if not _named(operator["body"]):
            yield (*at, "body"), "makes no role's pods; use {$pod: ROLE} or {$podSpec: ROLE}"


def _body(body: Any, roles: frozenset[str], path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(body, list):
        for index, item in enumerate(body):
            yield from _body(item, roles, (*path, index))
    if not isinstance(body, Mapping):
        return
    node = next((key for key in body if isinstance(key, str) and key.startswith("$")), None)
    if node is None:
        for key, item in body.items():
            yield from _body(item, roles, (*path, key))
    elif node not in NODES:
        yield (*path, node), f"there is no such node; there are {', '.join(NODES)}"
    else:
        yield from _node(body, node, roles, path)


def _node(body: Mapping[str, Any], node: str, roles: frozenset[str], path: Path) -> Iterator[tuple[Path, str]]:
    if extra := sorted(set(body) - {node} - NODES[node]):
        yield (*path, extra[0]), f"cannot stand beside {node}"
    if node == "$int":
        if not isinstance(body[node], str):
            yield (*path, node), 'must be a text, such as "${resources.cpus}"'
    elif body[node] not in roles:
        yield (*path, node), f"names no role; there are {', '.join(sorted(roles))}"
    fields = {"$container": CONTAINER_FIELDS, "$podField": POD_FIELDS}.get(node)
    if fields and body.get("field") not in fields:
        yield (*path, "field"), f"must be one of {', '.join(fields)}"


def _named(body: Any) -> bool:
    """Whether some pods are made."""
    if isinstance(body, list):
        return any(_named(item) for item in body)
    if not isinstance(body, Mapping):
        return False
    return bool({"$pod", "$podSpec", "$container"} & set(body)) or any(_named(item) for item in body.values())
