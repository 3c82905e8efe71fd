"""How many workers an elastic environment should have, from how busy they are. Pure.

The form of the answer is that of Kubernetes' own autoscaler: as many as bring the load of each to the target. More are asked for when
that has been so for `up_after`, fewer when none of the samples within `down_after` wanted as many as there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from .durations import parse_duration

CPU, ACCELERATOR, QUERY = "cpu", "accelerator", "query"
METRICS = (CPU, ACCELERATOR, QUERY)
_TOLERANCE = 0.1  # a load this near to the target is as it should be
_UP, _DOWN = "1m", "10m"
_GAP = timedelta(minutes=5)  # without a sample for longer than this, what was wanted before says nothing


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`target`: percent of what a worker was given, or for a query its value per worker. `least` and `most` workers."""

    metric: str
    target: float
    least: int
    most: int
    up_after: timedelta
    down_after: timedelta
    query: str = ""
    default: bool = False  # on without anybody asking for it


def rule_of(template_spec: Mapping[str, Any]) -> Rule | None:
    """The template's rule; None: its environments are scaled by hand."""
    rule = template_spec.get("autoscale")
    if not rule:
        return None
    return Rule(
        metric=rule["metric"],
        target=float(rule["target"]),
        least=int(rule["min"]),
        most=int(rule["max"]),
        up_after=parse_duration(rule.get("up_after", _UP)),
        down_after=parse_duration(rule.get("down_after", _DOWN)),
        query=rule.get("query", ""),
        default=bool(rule.get("default")),
    )


def is_on(template_spec: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    """Whether an environment is scaled by its rule: as its owner said last, else as the template does."""
    rule = rule_of(template_spec)
    return rule is not None and bool(state.get("on", rule.default))


def wanted(rule: Rule, workers: int, load: float) -> int:
    """Workers that bring the load of each to the target. `load`: of each of the present ones, in the target's unit."""
    ratio = load / rule.target
    count = workers if abs(ratio - 1) <= _TOLERANCE else math.ceil(workers * ratio - 1e-9)
    return min(rule.most, max(rule.least, count))


def decide(rule: Rule, workers: int, load: float, before: Mapping[str, Any], now: datetime) -> tuple[int, dict[str, Any]]:
    """The number of workers to ask for now, and what to remember for the next sample. `before`: what was remembered at the last one."""
    history = _history(before, workers, now)
    begun = datetime.fromisoformat(before["begun"]) if history else now
    history[now] = wanted(rule, workers, load)
    up, down = (_since(history, now - span) for span in (rule.up_after, rule.down_after))
    kept = {
        "workers": workers,
        "load": round(load, 2),
        "begun": begun.isoformat(),
        "wanted": {moment.isoformat(): count for moment, count in history.items() if moment >= now - max(rule.up_after, rule.down_after)},
    }
    if now - begun >= rule.up_after and min(up) > workers:
        return min(up), kept
    if now - begun >= rule.down_after and max(down) < workers:
        return max(down), kept
    return workers, kept


def _history(before: Mapping[str, Any], workers: int, now: datetime) -> dict[datetime, int]:
    """What earlier samples wanted; nothing when another number of workers was measured, or nobody knows of the time between."""
    found = {datetime.fromisoformat(text): int(count) for text, count in (before.get("wanted") or {}).items()}
    found = {moment: count for moment, count in found.items() if moment <= now}
    return found if found and before.get("workers") == workers and now - max(found) <= _GAP else {}


def _since(history: Mapping[datetime, int], moment: datetime) -> list[int]:
    return [count for when, count in history.items() if when >= moment]
