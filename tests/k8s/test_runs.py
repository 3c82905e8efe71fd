"""Roles that run once: what success and failure look like in the cluster's objects, and what is said of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from k8s import runs
from k8s.spec import EnvironmentSpec
from k8s.status import Observation, Phase, Seen, observe

from .factories import ID, WORKER, cluster_spec, pod

NOW = datetime(2026, 11, 22, 19, 0, 30, tzinfo=UTC)
LAUNCHER = replace(WORKER, name="launcher", replicas=2, scalable=False, once=True)
JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "grid-0193aabb-launcher", "uid": "uid-job", "labels": {"atelier.dev/role": "launcher", "atelier.dev/environment": ID}},
    "spec": {"completions": 2},
    "status": {},
}


def spec(*, retries: int = 0, success: str = "launcher", replicas: int = 2, more: tuple[Any, ...] = ()) -> EnvironmentSpec:
    return cluster_spec(roles=(replace(LAUNCHER, retries=retries, replicas=replicas), *more), success=success)


def attempt(index: int, number: int = 0, *, code: int | None = None, said: str = "", finished: str = "2026-11-22T19:00:10Z", **changes: Any) -> dict[str, Any]:
    """A pod of the Job; with `code` it has ended."""
    name = f"grid-0193aabb-launcher-{index}-{'abcdefgh'[number]}"
    if code is None:
        found = pod(name, "launcher", **changes)
    else:
        state = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed", "message": said, "finishedAt": finished}}
        container = {"name": "launcher", "image": "img:1", "imageID": "sha256:1", "ready": False, "restartCount": 0, "state": state}
        found = pod(name, "launcher", phase="Failed" if code else "Succeeded", containerStatuses=[container], **changes)
    found["metadata"] |= {"annotations": {runs.INDEX: str(index)}, "creationTimestamp": f"2026-11-22T19:00:0{number}Z"}
    found["spec"]["restartPolicy"] = "Never"
    return found


def look(one: EnvironmentSpec, *pods: dict[str, Any], jobs: tuple[Any, ...] = (JOB,), was_ready: bool = True, **seen: Any) -> Observation:
    return observe(one, Seen(pods=pods, jobs=jobs, **seen), now=NOW, was_ready=was_ready)


def test_while_its_replicas_run_it_is_ready() -> None:
    seen = look(spec(), attempt(0), attempt(1), was_ready=False)
    assert seen.verdict.phase is Phase.READY


def test_a_replica_that_is_done_counts_while_others_run() -> None:
    seen = look(spec(), attempt(0, code=0), attempt(1))
    assert seen.verdict.phase is Phase.READY
    assert [(row["state"], row["reason"]) for row in seen.snapshot["replicas"]] == [("succeeded", ""), ("running", "")]


def test_when_all_have_ended_with_0_it_is_completed() -> None:
    seen = look(spec(), attempt(0, code=0), attempt(1, code=0), was_ready=False)
    assert (seen.verdict.phase, seen.verdict.reason) == (Phase.COMPLETED, "Completed")
    assert seen.verdict.message == "launcher has run to its end: all 2 replicas ended with exit code 0."
    assert {step["state"] for step in seen.snapshot["steps"]} == {"done"}


def test_the_job_still_says_so_when_its_pods_are_gone() -> None:
    job = {**JOB, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    assert look(spec(replicas=1), jobs=(job,)).verdict.message == "launcher has run to its end: it ended with exit code 0."


def test_the_end_of_a_role_that_does_not_count_ends_nothing() -> None:
    one = spec(success="", more=(replace(WORKER, replicas=1),))
    seen = look(one, attempt(0, code=0), attempt(1, code=0), pod("grid-0193aabb-worker-0", "worker"))
    assert seen.verdict.phase is Phase.READY


def test_a_replica_that_fails_for_good_fails_it_with_its_last_lines() -> None:
    said = "line of no interest\n" * 40 + "Traceback:\nValueError: shapes differ"
    seen = look(spec(), attempt(0), attempt(1, code=3, said=said))
    assert (seen.verdict.phase, seen.verdict.reason) == (Phase.FAILED, "CommandFailed")
    assert seen.verdict.message.startswith("grid-0193aabb-launcher-1-a, container launcher: ended with exit code 3. It said: …")
    assert "Traceback: ValueError: shapes differ Read the log of this replica, then retry." in seen.verdict.message


def test_the_first_that_failed_is_told() -> None:
    late, early = attempt(0, code=1, finished="2026-11-22T19:00:20Z"), attempt(1, code=7, finished="2026-11-22T19:00:12Z")
    assert "exit code 7" in look(spec(), late, early).verdict.message


@pytest.mark.parametrize(("failed", "phase"), [(1, Phase.DEGRADED), (2, Phase.DEGRADED), (3, Phase.FAILED)])
def test_retries_are_of_each_replica(failed: int, phase: Phase) -> None:
    pods = [attempt(1, number, code=3) for number in range(failed)]
    seen = look(spec(retries=2), attempt(0), *pods)
    assert (seen.verdict.phase, seen.verdict.reason) == (phase, "CommandFailed")
    assert ("It is tried again." in seen.verdict.message, "It was tried 3 times." in seen.verdict.message) == (failed < 3, failed == 3)


def test_a_try_that_succeeds_makes_up_for_those_that_failed() -> None:
    seen = look(spec(retries=2), attempt(0, code=0), attempt(1, 0, code=3), attempt(1, 1, code=0))
    assert seen.verdict.phase is Phase.COMPLETED
    assert [row["name"][-3:] for row in seen.snapshot["replicas"]] == ["0-a", "1-b", "1-a"]


def test_what_the_cluster_took_away_is_no_failure() -> None:
    gone = attempt(1, code=137, conditions=[{"type": "DisruptionTarget", "status": "True", "message": "Taint manager: deleting due to NoExecute taint"}])
    seen = look(spec(), attempt(0), gone)
    assert (seen.verdict.phase, seen.verdict.reason) == (Phase.DEGRADED, "Evicted")


def test_running_out_of_memory_keeps_its_own_name_and_remedy() -> None:
    killed = attempt(1, code=137)
    killed["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] = "OOMKilled"
    verdict = look(spec(), attempt(0), killed).verdict
    assert (verdict.phase, verdict.reason) == (Phase.FAILED, "OOMKilled")
    assert "Choose a flavor with more memory." in verdict.message


@pytest.mark.parametrize("gang", [True, False])
@pytest.mark.parametrize("was_ready", [True, False])
def test_what_cannot_even_start_fails(gang: bool, was_ready: bool) -> None:
    waiting = {"name": "launcher", "image": "img:1", "ready": False, "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    stuck = attempt(1, phase="Pending", containerStatuses=[waiting])
    verdict = look(replace(spec(), gang=gang), attempt(0), stuck, was_ready=was_ready).verdict
    assert (verdict.phase, verdict.reason) == (Phase.FAILED, "ImagePullBackOff")


def test_without_a_gang_it_is_not_usable_before_anything_has_begun() -> None:
    verdict = look(replace(spec(), gang=False), was_ready=False).verdict
    assert verdict.phase is Phase.PROGRESSING


def test_the_jobs_own_word_counts_when_no_pod_is_left_to_tell() -> None:
    job = {**JOB, "status": {"conditions": [{"type": "Failed", "status": "True", "message": "Job was active longer than specified deadline"}]}}
    verdict = look(spec(), jobs=(job,)).verdict
    assert (verdict.phase, verdict.message) == (
        Phase.FAILED,
        "launcher failed: Job was active longer than specified deadline. Read its log, then retry.",
    )


def test_nothing_there_is_nothing_begun() -> None:
    assert look(spec(), jobs=()).verdict.phase is Phase.GONE
