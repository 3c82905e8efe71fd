"""Checks of template documents that their JSON Schema cannot say."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from typing import Any

from portal.domain.durations import format_duration, parse_duration
from portal.domain.shape import parse_bytes, parse_cpu

from . import choices
from .faults import Fault, Path, quantities

# Spans of time in a template, and the least that each may be: what is looked at once a minute cannot be told in seconds.
_SPANS: dict[Path, timedelta] = {
    ("expires_in",): timedelta(0),
    ("max_expires_in",): timedelta(0),
    ("warn_before",): timedelta(minutes=1),
    ("delete_after",): timedelta(hours=1),
    ("idle", "after"): timedelta(minutes=5),
    ("idle", "warn"): timedelta(minutes=1),
    ("scheduling", "preempt_grace"): timedelta(0),
}
_ORDER: tuple[tuple[Path, Path, str], ...] = (
    (("expires_in",), ("max_expires_in",), "longer than max_expires_in"),
    (("warn_before",), ("expires_in",), "not shorter than expires_in"),
    (("idle", "warn"), ("idle", "after"), "not shorter than idle.after"),
)
_REFERENCE = re.compile(r"\$\{(roles|params)\.([^.}]*)(\.[^}]*)?\}")


def faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Every fault of a template whose form is right."""
    yield from quantities(document.get("home") or {}, "home", size=parse_bytes)
    yield from _spans(document)
    yield from _scheduling(document.get("scheduling", {}))
    params = document.get("params", {"type": "object", "additionalProperties": False, "properties": {}})
    wrong = list(choices.params(params))
    yield from wrong
    properties = {} if wrong else params.get("properties", {})
    names = [role["name"] for role in document["roles"]]
    if document["kind"] == "notebook" and names != ["notebook"]:
        yield Fault(("roles",), "a notebook has exactly one role, named notebook")
    scalable = []
    for index, role in enumerate(document["roles"]):
        at: Path = ("roles", index)
        if names.index(role["name"]) != index:
            yield Fault((*at, "name"), f"there is another role called {role['name']}")
        yield from quantities(role.get("resources") or {}, *at, "resources", cpu=parse_cpu, memory=parse_bytes)
        if isinstance(role.get("replicas"), Mapping):
            scalable.append(index)
            if not wrong:
                yield from _replicas(role["replicas"]["param"], properties, (*at, "replicas", "param"))
        yield from _ports(role, at)
    for index in scalable[1:]:
        yield Fault(("roles", index, "replicas"), "only one role may be scalable")
    yield from _references(document, names, properties)


def _scheduling(scheduling: Mapping[str, Any]) -> Iterator[Fault]:
    if "preempt_grace" in scheduling and not scheduling.get("preemptible"):
        yield Fault(("scheduling", "preempt_grace"), "says nothing without `preemptible: true`")


def _spans(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Spans of time that cannot be read, are too short to be kept, or contradict each other."""
    spans: dict[Path, timedelta] = {}
    for path in _SPANS:
        holder: Any = document
        for key in path[:-1]:
            holder = holder.get(key, {})
        if path[-1] in holder:
            try:
                spans[path] = parse_duration(holder[path[-1]])
            except ValueError as error:
                yield Fault(path, str(error))
    for path, least in _SPANS.items():
        span = spans.get(path)
        if span is not None and span < least and not (path == ("delete_after",) and not span):
            yield Fault(path, f"must be at least {format_duration(least)}{', or 0s for never' if path == ('delete_after',) else ''}")
    for path, other, wrong in _ORDER:
        if path in spans and other in spans and (spans[path] > spans[other] or (spans[path] == spans[other] and wrong.startswith("not"))):
            yield Fault(path, wrong)


def _replicas(param: str, properties: Mapping[str, Any], at: Path) -> Iterator[Fault]:
    definition = properties.get(param)
    if not isinstance(definition, Mapping):
        yield Fault(at, f"there is no parameter {param!r} in params.properties")
    elif definition.get("type") != "integer" or not isinstance(definition.get("minimum"), int) or not isinstance(definition.get("maximum"), int):
        yield Fault(at, f"parameter {param!r} must be an integer with a minimum and a maximum")
    elif definition["minimum"] < 0 or "default" not in definition:
        yield Fault(at, f"parameter {param!r} must have a default and no negative minimum")


def _ports(role: Mapping[str, Any], at: Path) -> Iterator[Fault]:
    names = [port["name"] for port in role.get("ports", [])]
    for index, name in enumerate(names):
        if names.index(name) != index:
            yield Fault((*at, "ports", index, "name"), f"there is another port called {name}")
    if "readiness" in role and role["readiness"]["port"] not in names:
        yield Fault((*at, "readiness", "port"), f"the role has no port {role['readiness']['port']!r}")


def _references(value: Any, roles: Collection[str], params: Collection[str], path: Path = ()) -> Iterator[Fault]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _references(item, roles, params, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _references(item, roles, params, (*path, index))
    elif isinstance(value, str):
        for space, name, rest in _REFERENCE.findall(value):
            if space == "roles" and (name not in roles or rest != ".host"):
                yield Fault(path, f"${{roles.{name}{rest}}} names no role's host; there are {', '.join(f'roles.{r}.host' for r in roles)}")
            if space == "params" and (name not in params or rest):
                yield Fault(path, f"${{params.{name}{rest}}} names no parameter")
