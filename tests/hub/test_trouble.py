"""Reading starting pods."""

from __future__ import annotations

from typing import Any

import pytest

from k8s.hub import trouble


def pod(state: dict[str, Any] | None = None, *, phase: str = "Pending", ip: str = "", restart: str = "Never", **status: Any) -> dict[str, Any]:
    container = {"name": "notebook", "image": "example/notebook:1", "ready": False, "state": state}
    statuses = [] if state is None else [container]
    return {"metadata": {"name": "nb"}, "spec": {"restartPolicy": restart}, "status": {"phase": phase, "podIP": ip, "containerStatuses": statuses, **status}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def terminated(code: int, **more: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, **more}}


@pytest.mark.parametrize(
    "starting",
    [
        {"metadata": {}, "spec": {}, "status": {}},  # as it is right after creation
        pod(),
        pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]),
        pod(waiting("ContainerCreating")),
        pod(waiting("PodInitializing")),
        pod({"running": {}}, phase="Running"),
    ],
)
def test_a_pod_on_its_way_has_no_address_and_no_failure(starting: dict[str, Any]) -> None:
    assert (trouble.address(starting), trouble.failure(starting), trouble.ended(starting)) == ("", None, None)


def test_a_running_container_with_an_address_is_up_before_it_is_ready() -> None:
    assert trouble.address(pod({"running": {}}, phase="Running", ip="127.3.0.7")) == "127.3.0.7"
    assert trouble.address(None) == ""


def test_a_pod_being_deleted_is_not_up() -> None:
    leaving = pod({"running": {}}, phase="Running", ip="127.3.0.7")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert trouble.address(leaving) == ""
    assert trouble.failure(leaving) == ("The pod was deleted while it was starting.", True)


@pytest.mark.parametrize(
    ("failing", "words", "certain"),
    [
        (pod(waiting("ErrImagePull", "not found")), "ErrImagePull (image example/notebook:1): not found", False),
        (pod(waiting("ImagePullBackOff", "Back-off")), "ImagePullBackOff (image example/notebook:1): Back-off", False),
        (pod(waiting("InvalidImageName", "bad")), "InvalidImageName (image example/notebook:1): bad", True),
        (pod(waiting("CreateContainerConfigError", 'secret "x" not found')), 'CreateContainerConfigError: secret "x" not found', True),
        (
            pod(terminated(3, reason="Error", message="no such module\n"), phase="Failed"),
            "Error: container 'notebook' ended with exit code 3 before the notebook answered: no such module",
            True,
        ),
        (
            pod(terminated(0, reason="Completed"), phase="Succeeded"),
            "Completed: container 'notebook' ended with exit code 0 before the notebook answered.",
            True,
        ),
        (pod(terminated(137, reason="OOMKilled")), "OOMKilled: container 'notebook' ended with exit code 137 before the notebook answered.", True),
        (pod(phase="Failed", reason="Evicted", message="disk pressure"), "Evicted: disk pressure", True),
        (pod(phase="Failed"), "The pod ended before the notebook answered.", True),
        (
            pod(initContainerStatuses=[{"name": "init", "state": terminated(1, reason="Error")}]),
            "Error: container 'init' ended with exit code 1 before the notebook answered.",
            True,
        ),
    ],
)
def test_failures_are_told_in_words(failing: dict[str, Any], words: str, certain: bool) -> None:
    assert trouble.failure(failing) == (words, certain)


def test_an_init_container_that_did_its_work_is_no_failure() -> None:
    assert trouble.failure(pod(waiting("PodInitializing"), initContainerStatuses=[{"name": "init", "state": terminated(0)}])) is None


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (pod({"running": {}}, phase="Running"), None),
        (pod(terminated(0), phase="Succeeded"), 0),
        (pod(terminated(137), phase="Failed"), 137),
        (pod(terminated(1), phase="Running"), 1),
        (pod(terminated(1), phase="Running", restart="Always"), None),
        (pod(phase="Failed", reason="Evicted"), 1),
    ],
)
def test_the_end_of_a_server_is_the_end_of_its_container(seen: dict[str, Any], code: int | None) -> None:
    assert trouble.ended(seen) == code
