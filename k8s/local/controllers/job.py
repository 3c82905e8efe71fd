"""Jobs: pods until enough of them have succeeded, or too many have failed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable

from k8s.local.controllers.base import Controller, condition, ended, is_ready, pod_from, terminating
from k8s.local.controllers.job_failures import INDEX, Failures, index_of, judge
from k8s.local.documents import Doc, at, meta, name_of, namespace_of, now, parse_time
from k8s.local.errors import StatusError

_BACKOFF_FIRST, _BACKOFF_MOST = 10.0, 600.0


def wanted_active(spec: Doc, succeeded: int) -> int:
    """How many pods may run now."""
    parallelism = int(spec.get("parallelism", 1))
    completions = spec.get("completions")
    if spec.get("suspend"):
        return 0
    if completions is None:  # a work queue: the first success means that there is no more work
        return 0 if succeeded else parallelism
    return max(0, min(parallelism, int(completions) - succeeded))


def retry_after(failed: int, last_failure: float, now_seconds: float) -> float:
    """Seconds until the next pod may replace a failed one: 10 s, doubling."""
    if not failed:
        return 0.0
    return max(0.0, last_failure + min(_BACKOFF_FIRST * 2.0 ** (failed - 1), _BACKOFF_MOST) - now_seconds)


class Jobs(Controller):
    kind = "Job"
    watched = ("Pod",)
    component = "job-controller"

    def reconcile(self, namespace: str, name: str) -> float | None:
        document = self.client.get("Job", namespace, name)
        if document is None or terminating(document):
            return None
        finished = next((item for item in at(document, "status.conditions", []) if item["type"] in ("Complete", "Failed") and item["status"] == "True"), None)
        if finished:
            return self._expire(document, finished)
        pods = self.pods_of(document)
        active = [pod for pod in pods if not ended(pod) and not terminating(pod)]
        succeeded = _successes(document, pods)
        failed = [pod for pod in pods if at(pod, "status.phase") == "Failed"]
        failures = judge(document["spec"], failed)
        verdict = failures.verdict or self._failure(document, failures, active, succeeded)
        if verdict:
            for pod in active:
                self.delete_pod(document, pod)
            lost = len(failures.counted) + (len(active) if verdict[0] != "DeadlineExceeded" else 0)
            self._finish(document, "Failed", *verdict, done=succeeded, failed=lost, indexes=failures.indexes)
            return 0.05
        if self._complete(document["spec"], len(succeeded), active):
            for pod in active:
                self.delete_pod(document, pod)
            self._finish(document, "Complete", "CompletionsReached", "Reached expected number of succeeded pods", done=succeeded, failed=len(failures.counted))
            self.client.event(document, "Normal", "Completed", "Job completed", self.component)
            return 0.05
        ending = [pod for pod in pods if terminating(pod) and not ended(pod)] if _waits_for_the_end(document["spec"]) else []
        delay = self._adjust(document, active, succeeded, failures, ending)
        self._write_status(document, active, succeeded, failures)
        return delay

    @staticmethod
    def _complete(spec: Doc, succeeded: int, active: list[Doc]) -> bool:
        if spec.get("completions") is None:
            return succeeded > 0 and not active
        return succeeded >= int(spec["completions"])

    @staticmethod
    def _failure(document: Doc, failures: Failures, active: list[Doc], succeeded: list[Doc]) -> tuple[str, str] | None:
        """Why the job has failed for good, if it has, beside what its pod failure policy says."""
        spec = document["spec"]
        start = at(document, "status.startTime")
        deadline = spec.get("activeDeadlineSeconds")
        if deadline and start and not spec.get("suspend") and parse_time(start).timestamp() + float(deadline) <= time.time():
            return "DeadlineExceeded", "Job was active longer than specified deadline"
        if spec.get("backoffLimitPerIndex") is not None:
            if failures.indexes and not active and len(failures.indexes) + len(succeeded) >= int(spec["completions"]):
                return "FailedIndexes", "Job has failed indexes"
            return None
        restarts = sum(item.get("restartCount", 0) for pod in active for item in at(pod, "status.containerStatuses", []))
        limit = int(spec.get("backoffLimit", 6))
        on_failure = at(spec, "template.spec.restartPolicy") == "OnFailure"
        if len(failures.counted) > limit or (on_failure and restarts > 0 and restarts >= max(limit, 1)):
            return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        return None

    def _adjust(self, document: Doc, active: list[Doc], succeeded: list[Doc], failures: Failures, ending: list[Doc]) -> float | None:
        """Makes or ends pods; seconds after which to look again. `ending`: pods that are not replaced before they have ended."""
        spec = document["spec"]
        wanted = min(wanted_active(spec, len(succeeded)), _left(spec, succeeded, failures))
        delays: list[float] = []
        if spec.get("activeDeadlineSeconds"):
            begun = parse_time(at(document, "status.startTime") or now()).timestamp()
            delays.append(max(0.1, begun + float(spec["activeDeadlineSeconds"]) - time.time()))
        completions = spec.get("completions")
        if len(active) > wanted and (completions is not None or spec.get("suspend")):
            for pod in sorted(active, key=lambda item: (is_ready(item), meta(item)["creationTimestamp"]))[: len(active) - wanted]:
                self.delete_pod(document, pod)
                active.remove(pod)
        elif spec.get("completionMode") == "Indexed":
            delays += self._fill_indexes(document, wanted, active, succeeded, failures, ending)
        elif len(active) + len(ending) < wanted:
            wait = _pause(failures.counted)
            if wait:
                delays.append(wait)
            else:
                missing = wanted - len(active) - len(ending)
                active += [self.create_pod(document, pod_from(document, spec["template"])) for _ in range(missing)]
        return min(delays) if delays else None

    def _fill_indexes(self, document: Doc, wanted: int, active: list[Doc], succeeded: list[Doc], failures: Failures, ending: list[Doc]) -> list[float]:
        """Makes the pods of parts that nobody works on; seconds until those that wait after a failure may be made."""
        spec, delays = document["spec"], []
        taken = {index_of(pod) for pod in [*active, *succeeded, *ending]} | failures.indexes
        alone = spec.get("backoffLimitPerIndex") is not None
        for index in range(int(spec["completions"])):
            if len(active) + len(ending) >= wanted:
                break
            if index in taken:
                continue
            wait = _pause([pod for pod in failures.counted if not alone or index_of(pod) == index])
            if wait:
                delays.append(wait)
            else:
                active.append(self._create(document, index))
        return delays

    def _create(self, document: Doc, index: int) -> Doc:
        spec = document["spec"]
        letters = "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(5))
        name = f"{name_of(document)}-{index}-{letters}"
        pod = pod_from(document, spec["template"], name=name, labels={INDEX: str(index)}, annotations={INDEX: str(index)})
        pod["spec"].setdefault("hostname", f"{name_of(document)}-{index}")
        for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
            if not any(item["name"] == "JOB_COMPLETION_INDEX" for item in container.get("env") or []):
                container.setdefault("env", []).append({"name": "JOB_COMPLETION_INDEX", "value": str(index)})
        return self.create_pod(document, pod)

    def _write_status(self, document: Doc, active: list[Doc], succeeded: list[Doc], failures: Failures) -> None:
        conditions = at(document, "status.conditions", [])
        suspended = bool(document["spec"].get("suspend"))
        if suspended:
            conditions = condition(conditions, "Suspended", "True", "JobSuspended", "Job suspended")
        elif any(item["type"] == "Suspended" and item["status"] == "True" for item in conditions):
            conditions = condition(conditions, "Suspended", "False", "JobResumed", "Job resumed")
        self.set_status(
            document,
            {
                "active": len(active) or None,
                "ready": sum(map(is_ready, active)),
                "succeeded": len(succeeded) or None,
                "failed": len(failures.counted) or None,
                "terminating": 0,
                "startTime": None if suspended else at(document, "status.startTime") or now(),
                "completedIndexes": _indexes(map(index_of, succeeded)) if document["spec"].get("completionMode") == "Indexed" else None,
                "failedIndexes": _indexes(failures.indexes) if document["spec"].get("backoffLimitPerIndex") is not None else None,
                "conditions": conditions or None,
            },
        )

    def _finish(self, document: Doc, kind: str, reason: str, message: str, *, done: list[Doc], failed: int, indexes: Iterable[int] = ()) -> None:
        first = "SuccessCriteriaMet" if kind == "Complete" else "FailureTarget"
        conditions = condition(at(document, "status.conditions", []), first, "True", reason, message)
        conditions = condition(conditions, kind, "True", reason, message)
        self.set_status(
            document,
            {
                "active": None,
                "ready": 0,
                "succeeded": len(done) or None,
                "failed": failed or None,
                "terminating": 0,
                "completionTime": now() if kind == "Complete" else None,
                "startTime": at(document, "status.startTime") or now(),
                "completedIndexes": _indexes(map(index_of, done)) if document["spec"].get("completionMode") == "Indexed" else None,
                "failedIndexes": _indexes(indexes) if document["spec"].get("backoffLimitPerIndex") is not None else None,
                "conditions": conditions,
            },
        )
        if kind == "Failed":
            self.client.event(document, "Warning", reason, message, self.component)

    def _expire(self, document: Doc, finished: Doc) -> float | None:
        seconds = document["spec"].get("ttlSecondsAfterFinished")
        if seconds is None:
            return None
        left = parse_time(finished["lastTransitionTime"]).timestamp() + float(seconds) - time.time()
        if left > 0:
            return left
        try:
            self.client.delete("Job", namespace_of(document), name_of(document), propagation="Foreground")
        except StatusError as error:
            if error.code != 404:
                raise
        return None


def _successes(document: Doc, pods: list[Doc]) -> list[Doc]:
    """Pods that count: in an indexed job each index once."""
    found = [pod for pod in pods if at(pod, "status.phase") == "Succeeded"]
    if document["spec"].get("completionMode") != "Indexed":
        return found
    by_index = {index_of(pod): pod for pod in found}
    return [pod for index, pod in by_index.items() if 0 <= index < int(document["spec"]["completions"])]


def _waits_for_the_end(spec: Doc) -> bool:
    """Whether a pod that is being deleted keeps its place until it has ended."""
    return bool(spec.get("podReplacementPolicy", "Failed" if spec.get("podFailurePolicy") else "") == "Failed")


def _left(spec: Doc, succeeded: list[Doc], failures: Failures) -> int:
    """Parts that are neither done nor given up."""
    if not failures.indexes:
        return int(spec.get("parallelism", 1))
    return int(spec["completions"]) - len({index_of(pod) for pod in succeeded} | failures.indexes)


def _pause(failed: list[Doc]) -> float:
    """Seconds until the next pod may be made after these failed."""
    return retry_after(len(failed), max((_ended_at(pod) for pod in failed), default=0.0), time.time())


def _indexes(indexes: Iterable[int]) -> str:
    """ "1,3-5" """
    numbers = sorted(indexes)
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def _ended_at(pod: Doc) -> float:
    times = [at(item, "state.terminated.finishedAt") for item in at(pod, "status.containerStatuses", [])]
    return max((parse_time(text).timestamp() for text in times if text), default=parse_time(meta(pod)["creationTimestamp"]).timestamp())
