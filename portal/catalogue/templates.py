"""Checks of template documents that their JSON Schema cannot say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from portal.domain import autoscale
from portal.domain.durations import format_duration, parse_duration
from portal.domain.shape import parameters, parse_bytes, scalable_param

from . import choices, roles
from .faults import Fault, Path, quantities
from .operators import operator_faults

# Spans of time in a template, and the least that each may be: what is looked at once a minute cannot be told in seconds.
_SPANS: dict[Path, timedelta] = {
    ("expires_in",): timedelta(0),
    ("max_expires_in",): timedelta(0),
    ("warn_before",): timedelta(minutes=1),
    ("delete_after",): timedelta(hours=1),
    ("idle", "after"): timedelta(minutes=5),
    ("idle", "warn"): timedelta(minutes=1),
    ("scheduling", "preempt_grace"): timedelta(0),
    ("autoscale", "up_after"): timedelta(0),
    ("autoscale", "down_after"): timedelta(0),
}
_ORDER: tuple[tuple[Path, Path, str], ...] = (
    (("expires_in",), ("max_expires_in",), "longer than max_expires_in"),
    (("warn_before",), ("expires_in",), "not shorter than expires_in"),
    (("idle", "warn"), ("idle", "after"), "not shorter than idle.after"),
)


def faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Every fault of a template whose form is right."""
    yield from quantities(document.get("home") or {}, "home", size=parse_bytes)
    yield from _spans(document)
    yield from _scheduling(document.get("scheduling", {}))
    params = document.get("params", {"type": "object", "additionalProperties": False, "properties": {}})
    wrong = list(choices.params(params))
    yield from wrong
    yield from roles.faults(document, None if wrong else params.get("properties", {}))
    yield from _success(document)
    yield from _autoscale(document)
    yield from (Fault(at, words) for at, words in operator_faults(document.get("operators", ()), [role["name"] for role in document["roles"]]))
    if document.get("needs_operator") and not document.get("operators"):
        yield Fault(("needs_operator",), "says nothing without `operators`")
    serves = document.get("serves")
    if serves is not None and not wrong and serves.get("param", "model") not in params.get("properties", {}):
        yield Fault(("serves", "param") if "param" in serves else ("serves",), f"there is no parameter {serves.get('param', 'model')!r} in params.properties")


def _autoscale(document: Mapping[str, Any]) -> Iterator[Fault]:
    rule, param = document.get("autoscale"), scalable_param(document)
    if rule is None:
        return
    if param is None:
        yield Fault(("autoscale",), "no role scales; give one `replicas: {min, max}` or `{param: ...}`")
        return
    if any(role.get("run") == "once" for role in document["roles"] if isinstance(role.get("replicas"), Mapping)):
        yield Fault(("autoscale",), "what runs once cannot be scaled while it runs")
    allowed = parameters(document)["properties"].get(param, {})
    if rule["min"] > rule["max"]:
        yield Fault(("autoscale", "min"), "more than max")
    if rule["min"] < allowed.get("minimum", 0):
        yield Fault(("autoscale", "min"), f"parameter {param} has the minimum {allowed.get('minimum', 0)}")
    if rule["max"] > allowed.get("maximum", rule["max"]):
        yield Fault(("autoscale", "max"), f"parameter {param} has the maximum {allowed['maximum']}")
    if (rule["metric"] == autoscale.QUERY) != ("query" in rule):
        yield Fault(("autoscale", "query"), "goes with `metric: query`, and only with it")


def _success(document: Mapping[str, Any]) -> Iterator[Fault]:
    once = {role["name"]: role for role in document["roles"] if role.get("run") == "once"}
    if "success" not in document:
        if len(once) == len(document["roles"]):
            yield Fault(("success",), "every role runs once, so say whose end ends the environment: `success: {role: ...}`")
        return
    name = document["success"]["role"]
    if name not in once:
        yield Fault(("success", "role"), f"there is no role {name!r} with `run: once`; there are {', '.join(once) or 'none'}")
        return
    count = once[name].get("replicas", 1)
    if isinstance(count, Mapping) and not count.get("min", 1):
        yield Fault(("success", "role"), f"{name} may have no replicas, and then nothing would end")


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
