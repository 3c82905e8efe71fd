"""Roles that run once: the tries of each replica, which of them succeeded, and what failed for good. Pure.

The pods say it sooner than their Job, and the Job still says it when pods are gone, so both are asked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from . import diagnosis, names
from .diagnosis import Finding
from .spec import Role

Object = Mapping[str, Any]

INDEX = "batch.kubernetes.io/job-completion-index"
FAILED = "CommandFailed"


def index_of(pod: Object) -> int:
    """Which replica a pod of a Job is a try of."""
    return int((pod["metadata"].get("annotations") or {}).get(INDEX, 0))


def tries(role: Role, pods: Sequence[Object]) -> dict[int, list[Object]]:
    """Replica -> its pods, the newest last."""
    found: dict[int, list[Object]] = {}
    for pod in sorted(pods, key=lambda pod: pod["metadata"].get("creationTimestamp", "")):
        if pod["metadata"].get("labels", {}).get(names.ROLE) == role.name:
            found.setdefault(index_of(pod), []).append(pod)
    return found


def job_of(role: Role, jobs: Sequence[Object]) -> Object | None:
    return next((job for job in jobs if job["metadata"].get("labels", {}).get(names.ROLE) == role.name), None)


def succeeded(role: Role, pods: Sequence[Object], jobs: Sequence[Object]) -> int:
    """How many replicas have ended with 0."""
    if _condition(job_of(role, jobs), "Complete"):
        return role.replicas
    return sum(1 for index, each in tries(role, pods).items() if index < role.replicas and any(_phase(pod) == "Succeeded" for pod in each))


def satisfied(role: Role, pods: Sequence[Object], jobs: Sequence[Object]) -> int:
    """How many replicas run, or have ended with 0."""
    if _condition(job_of(role, jobs), "Complete"):
        return role.replicas
    found = tries(role, pods).items()
    return sum(1 for index, each in found if index < role.replicas and (any(_phase(pod) == "Succeeded" for pod in each) or diagnosis.is_ready(each[-1])))


def failure(role: Role, pods: Sequence[Object], jobs: Sequence[Object], now: datetime) -> Finding | None:
    """Why the role has failed for good: with the last lines of the replica that did first, or what keeps one from starting at all, such as
    an image that is not there. None while it has not."""
    spent, stuck = [], []
    for each in tries(role, pods).values():
        if _phase(each[-1]) not in ("Failed", "Succeeded") and (finding := diagnosis.pod_finding(each[-1], now)) and finding.fatal:
            stuck.append(finding)
        failed = [(pod, finding) for pod in each if _phase(pod) == "Failed" and (finding := diagnosis.pod_finding(pod)) and not finding.taken]
        if len(failed) > role.retries:
            spent.append(failed[-1])
    if spent:
        finding = min(spent, key=lambda item: _ended_at(item[0]))[1]
        again = f" It was tried {role.retries + 1} times." if role.retries else ""
        code = FAILED if finding.code == "ContainerExited" else finding.code
        return replace(finding, code=code, fatal=True, message=f"{finding.message}{again}")
    if stuck:
        return stuck[0]
    if condition := _condition(job_of(role, jobs), "Failed"):
        said = condition.get("message") or condition.get("reason") or "no reason given"
        return Finding(code=FAILED, step="start", fatal=True, message=f"{role.name} failed: {said}.", remedy="Read its log, then retry.")
    return None


def findings(role: Role, pods: Sequence[Object], lost_nodes: Collection[str], now: datetime) -> list[Finding]:
    """What is wrong with the newest try of each replica. That it ended badly is not for good here: `failure` tells when it is."""
    found = []
    for each in tries(role, pods).values():
        newest = each[-1]
        finding = diagnosis.lost_finding(newest, lost_nodes) or diagnosis.pod_finding(newest, now)
        if finding is None or _phase(newest) == "Succeeded":
            continue
        if _phase(newest) == "Failed" and not finding.taken:
            finding = replace(finding, code=FAILED, fatal=False, remedy="It is tried again.")
        found.append(finding)
    return found


def _phase(pod: Object) -> str:
    return str(pod.get("status", {}).get("phase", ""))


def _ended_at(pod: Object) -> str:
    ends = [container.get("state", {}).get("terminated", {}).get("finishedAt") for container in pod.get("status", {}).get("containerStatuses", ())]
    return max((str(end) for end in ends if end), default="9")


def _condition(job: Object | None, kind: str) -> Object | None:
    conditions = (job or {}).get("status", {}).get("conditions") or ()
    return next((item for item in conditions if item["type"] == kind and item["status"] == "True"), None)
