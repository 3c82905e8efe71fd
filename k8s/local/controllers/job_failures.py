"""When a Job has failed: its pods' failures, each judged by its podFailurePolicy, against its limits. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from k8s.local.documents import Doc, at, meta, name_of, namespace_of

INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass
class Failures:
    """`counted`: failed pods that count; `indexes`: parts that have failed for good; `verdict`: reason and message, once the Job has."""

    counted: list[Doc] = field(default_factory=list)
    indexes: set[int] = field(default_factory=set)
    verdict: tuple[str, str] | None = None


def index_of(pod: Doc) -> int:
    return int((meta(pod).get("annotations") or {}).get(INDEX, -1))


def judge(spec: Doc, failed: list[Doc]) -> Failures:
    """What the failed pods of a Job mean. `failed` in any order."""
    found = Failures()
    per_index: Counter[int] = Counter()
    limit = spec.get("backoffLimitPerIndex")
    for pod in failed:
        action, why = _action(at(spec, "podFailurePolicy.rules", []), pod)
        if action == "Ignore":
            continue
        found.counted.append(pod)
        per_index[index_of(pod)] += 1
        if action == "FailJob" and found.verdict is None:
            found.verdict = "PodFailurePolicy", why
        if limit is not None and (action == "FailIndex" or per_index[index_of(pod)] > int(limit)):
            found.indexes.add(index_of(pod))
    most = spec.get("maxFailedIndexes")
    if found.verdict is None and most is not None and len(found.indexes) > int(most):
        found.verdict = "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes"
    return found


def _action(rules: list[Doc], pod: Doc) -> tuple[str, str]:
    """What the first rule that fits says, and the message with which it fails the Job."""
    pod_name = f"{namespace_of(pod)}/{name_of(pod)}"
    for number, rule in enumerate(rules):
        matches = f"matching {rule['action']} rule at index {number}"
        if rule.get("onExitCodes") is not None:
            hit = _exit_code(rule["onExitCodes"], pod)
            if hit:
                return rule["action"], f"Container {hit[0]} for pod {pod_name} failed with exit code {hit[1]} {matches}"
        elif any(_condition(wanted, pod) for wanted in rule.get("onPodConditions") or []):
            kind = next(wanted["type"] for wanted in rule["onPodConditions"] if _condition(wanted, pod))
            return rule["action"], f"Pod {pod_name} has condition {kind} {matches}"
    return "Count", ""


def _exit_code(wanted: Doc, pod: Doc) -> tuple[str, int] | None:
    for item in at(pod, "status.containerStatuses", []):
        code = at(item, "state.terminated.exitCode", 0)
        if not code or wanted.get("containerName") not in (None, item["name"]):
            continue
        if (code in wanted["values"]) == (wanted["operator"] == "In"):
            return item["name"], code
    return None


def _condition(wanted: Doc, pod: Doc) -> bool:
    return any(item["type"] == wanted["type"] and item["status"] == wanted.get("status", "True") for item in at(pod, "status.conditions", []))
