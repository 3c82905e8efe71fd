"""From what the cluster lists to a verdict and words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from k8s.hub import trouble
from k8s.status import Phase, Seen, Server, observe

from .factories import SCHEDULER, WORKER, cluster_spec, event, notebook_spec, pod, stateful_set, waiting

NOW = datetime(2026, 11, 22, 19, 0, 10, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
SETS = (stateful_set("scheduler", 1), stateful_set("worker", 2))


def scheduler(**kwargs: Any) -> dict[str, Any]:
    return pod("grid-0193aabb-scheduler-0", "scheduler", **kwargs)


def worker(index: int = 0, **kwargs: Any) -> dict[str, Any]:
    return pod(f"grid-0193aabb-worker-{index}", "worker", **kwargs)


def look(*pods: dict[str, Any], was_ready: bool = False, now: datetime = NOW, **seen: Any):
    return observe(cluster_spec(), Seen(pods=pods, sets=seen.pop("sets", SETS), **seen), now=now, was_ready=was_ready)


def notebook(*pods: dict[str, Any], server: Server | None = None, was_ready: bool = False, **seen: Any):
    return observe(notebook_spec(), Seen(pods=pods, server=server, **seen), now=NOW, was_ready=was_ready)


def steps(observation) -> dict[str, str]:
    return {step["key"]: step["state"] for step in observation.snapshot["steps"]}


# --- clusters ------------------------------------------------------------------


def test_a_cluster_with_all_replicas_ready_is_ready() -> None:
    seen = look(scheduler(ip="10.0.0.5"), worker(0), worker(1))
    assert seen.verdict.phase is Phase.READY
    assert seen.snapshot == {
        "replicas": [
            {
                "name": name,
                "role": role,
                "state": "running",
                "ready": True,
                "restarts": 0,
                "node": "node-1",
                "address": address,
                "reason": "",
                "message": "",
                "containers": [role],
                "simulated": False,
            }
            for name, role, address in (
                ("grid-0193aabb-scheduler-0", "scheduler", "10.0.0.5"),
                ("grid-0193aabb-worker-0", "worker", "10.0.0.7"),
                ("grid-0193aabb-worker-1", "worker", "10.0.0.7"),
            )
        ],
        "endpoints": [
            {
                "name": "comm",
                "role": "scheduler",
                "title": "Scheduler",
                "url": "tcp://grid-0193aabb-scheduler.atelier-vision.svc.cluster.local:8786",
                "address": "grid-0193aabb-scheduler.atelier-vision.svc.cluster.local:8786",
            },
            {
                "name": "dashboard",
                "role": "scheduler",
                "title": "Dashboard",
                "url": "http://10.0.0.5:8787/status",
                "address": "grid-0193aabb-scheduler.atelier-vision.svc.cluster.local:8787",
            },
        ],
        "steps": [
            {"key": key, "title": title, "state": "done", "message": ""}
            for key, title in (
                ("quota", "Quota reserved"),
                ("queue", "Admitted by the queue"),
                ("pod", "Placed on a node"),
                ("network", "Network address given"),
                ("image", "Image pulled"),
                ("start", "Processes started"),
                ("ready", "Ready"),
            )
        ],
        "snippet": "client = Client()",
    }


def test_nothing_there_is_gone() -> None:
    assert look(sets=()).verdict.phase is Phase.GONE


def test_pods_that_are_not_there_yet_are_shown_as_pending() -> None:
    seen = look()
    assert seen.verdict.phase is Phase.PROGRESSING
    assert [(row["name"], row["state"]) for row in seen.snapshot["replicas"]] == [
        ("grid-0193aabb-scheduler-0", "pending"),
        ("grid-0193aabb-worker-0", "pending"),
        ("grid-0193aabb-worker-1", "pending"),
    ]
    assert steps(seen)["queue"] == "active"
    assert steps(seen)["ready"] == "waiting"


def test_a_cluster_that_was_up_and_scales_up_stays_usable() -> None:
    seen = look(scheduler(), worker(0), was_ready=True)
    assert (seen.verdict.phase, seen.verdict.message) == (Phase.DEGRADED, "2 of 3 replicas are ready.")


def test_a_cluster_without_its_scheduler_is_not_usable() -> None:
    assert look(worker(0), worker(1), was_ready=True).verdict.phase is Phase.PROGRESSING


def test_a_pod_that_is_being_deleted_does_not_count_as_ready() -> None:
    ending = worker(1)
    ending["metadata"]["deletionTimestamp"] = "2026-11-22T19:00:00Z"
    seen = look(scheduler(), worker(0), ending)
    assert seen.verdict.phase is Phase.PROGRESSING
    assert seen.snapshot["replicas"][2]["state"] == "terminating"


@pytest.mark.parametrize(
    ("reason", "message", "step"),
    [
        ("ImagePullBackOff", 'Back-off pulling image "img:1"', "image"),
        ("ErrImagePull", "manifest unknown", "image"),
        ("InvalidImageName", "couldn't parse image name", "image"),
        ("CreateContainerConfigError", "container has runAsNonRoot and image will run as root", "start"),
        ("RunContainerError", "exec: no such file", "start"),
    ],
)
def test_a_container_that_cannot_start_fails_at_once_with_cause_and_remedy(reason: str, message: str, step: str) -> None:
    seen = look(waiting(scheduler(), reason, message), worker(0), worker(1))
    assert (seen.verdict.phase, seen.verdict.reason) == (Phase.FAILED, reason)
    assert message.rstrip(".") in seen.verdict.message
    assert "Ask an admin" in seen.verdict.message
    assert steps(seen)[step] == "failed"
    assert seen.snapshot["replicas"][0]["reason"] == reason


def test_a_registry_that_hesitates_is_not_a_failure_yet() -> None:
    seen = look(waiting(scheduler(), "ErrImagePull", "dial tcp: i/o timeout"), worker(0), worker(1))
    assert (seen.verdict.phase, seen.verdict.reason) == (Phase.PROGRESSING, "ErrImagePull")
    assert "i/o timeout" in seen.verdict.message


def crashed(item: dict[str, Any], restarts: int, **ended: Any) -> dict[str, Any]:
    ended = {"exitCode": 3, "reason": "Error", "message": "ValueError: no", **ended}
    return waiting(item, "CrashLoopBackOff", "back-off", restartCount=restarts, lastState={"terminated": ended})


def test_a_command_that_exits_again_and_again_fails_with_its_exit_code_and_last_words() -> None:
    seen = look(crashed(scheduler(), 1), worker(0), worker(1))
    assert (seen.verdict.phase, seen.verdict.reason) == (Phase.FAILED, "ContainerExited")
    assert "exit code 3 twice" in seen.verdict.message
    assert "ValueError: no" in seen.verdict.message
    assert "Read the log" in seen.verdict.message


def test_a_first_exit_is_visible_and_tried_again() -> None:
    once = waiting(scheduler(), "ContainerCreating")
    once["status"]["containerStatuses"][0].update(state={"terminated": {"exitCode": 1, "reason": "Error"}})
    seen = look(once, worker(0), worker(1))
    assert (seen.verdict.phase, seen.verdict.reason) == (Phase.PROGRESSING, "ContainerExited")


def test_running_out_of_memory_is_said_with_the_limit() -> None:
    seen = look(crashed(scheduler(), 1, reason="OOMKilled", exitCode=137), worker(0), worker(1))
    assert seen.verdict.reason == "OOMKilled"
    assert "limit 1024 MiB" in seen.verdict.message
    assert "more memory" in seen.verdict.message


def test_one_worker_that_crashes_does_not_take_a_running_cluster_down() -> None:
    seen = look(scheduler(), worker(0), crashed(worker(1), 5), was_ready=True)
    assert (seen.verdict.phase, seen.verdict.reason) == (Phase.DEGRADED, "ContainerExited")


def test_a_scheduler_that_keeps_crashing_takes_a_running_cluster_down_after_some_restarts() -> None:
    assert look(crashed(scheduler(), 1), worker(0), worker(1), was_ready=True).verdict.phase is Phase.PROGRESSING
    assert look(crashed(scheduler(), 3), worker(0), worker(1), was_ready=True).verdict.phase is Phase.FAILED


def test_a_container_that_came_back_is_no_longer_a_finding() -> None:
    back = scheduler()
    back["status"]["containerStatuses"][0].update(restartCount=4, lastState={"terminated": {"exitCode": 1, "reason": "Error"}})
    assert look(back, worker(0), worker(1)).verdict.phase is Phase.READY


def unschedulable(item: dict[str, Any], message: str) -> dict[str, Any]:
    item["spec"]["nodeName"] = ""
    item["spec"]["containers"][0]["resources"]["requests"]["nvidia.com/gpu"] = "4"
    item["status"].update(phase="Pending", podIP="", containerStatuses=[])
    item["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]
    return item


def test_a_pod_that_fits_nowhere_now_waits_visibly() -> None:
    seen = look(unschedulable(scheduler(), "0/4 nodes are available: 4 Insufficient nvidia.com/gpu."))
    assert (seen.verdict.phase, seen.verdict.reason) == (Phase.PROGRESSING, "Unschedulable")
    assert seen.verdict.message.startswith("No node has 4 nvidia.com/gpu free for grid-0193aabb-scheduler-0")
    assert "0/4 nodes are available" in seen.verdict.message
    assert seen.snapshot["replicas"][0]["state"] == "pending"


def test_a_gated_pod_waits_for_the_queue() -> None:
    gated = unschedulable(scheduler(), "")
    gated["spec"]["schedulingGates"] = [{"name": "kueue.x-k8s.io/admission"}]
    gated["status"]["conditions"][0]["reason"] = "SchedulingGated"
    seen = look(gated)
    assert seen.verdict.reason == "SchedulingGated"
    assert steps(seen)["queue"] == "active"


REFUSED = 'create Pod grid-0193aabb-worker-0 in StatefulSet grid-0193aabb-worker failed error: pods "grid-0193aabb-worker-0" is forbidden: '


def test_pod_security_refusals_fail_at_once() -> None:
    said = event(SETS[1], "FailedCreate", REFUSED + 'violates PodSecurity "restricted:latest": runAsNonRoot != true')
    seen = look(scheduler(), events=[said])
    assert (seen.verdict.phase, seen.verdict.reason) == (Phase.FAILED, "PodSecurity")
    assert "runAsNonRoot" in seen.verdict.message


def test_a_quota_refusal_fails_once_it_has_lasted() -> None:
    said = event(SETS[1], "FailedCreate", REFUSED + "exceeded quota: atelier, requested: requests.cpu=500m, used: requests.cpu=8, limited: requests.cpu=8")
    early, late = look(scheduler(), events=[said]), look(scheduler(), events=[said], now=LATER)
    assert (early.verdict.phase, early.verdict.reason) == (Phase.PROGRESSING, "ClusterQuota")
    assert late.verdict.phase is Phase.FAILED
    assert "limited: requests.cpu=8" in late.verdict.message
    assert steps(late)["quota"] == "failed"


def test_an_old_refusal_does_not_count_once_the_pods_are_there() -> None:
    said = event(SETS[1], "FailedCreate", REFUSED + "exceeded quota: atelier")
    assert look(scheduler(), worker(0), worker(1), events=[said], now=LATER).verdict.phase is Phase.READY


def test_a_namespace_without_its_service_account_is_waited_for() -> None:
    said = event(SETS[1], "FailedCreate", REFUSED + 'error looking up service account atelier-vision/default: serviceaccount "default" not found')
    assert look(scheduler(), events=[said], now=LATER).verdict.phase is Phase.PROGRESSING


def test_events_about_other_objects_are_passed_over() -> None:
    said = event(stateful_set("worker", 2, uid="someone-else"), "FailedCreate", REFUSED + "violates PodSecurity")
    assert look(scheduler(), events=[said]).verdict.phase is Phase.PROGRESSING


# --- notebooks -----------------------------------------------------------------

READY = Server(ready=True, url="/user/alice/lab-0193aabb/")
PENDING = Server(pending="spawn")
BOUND = {"metadata": {"uid": "c1", "name": "home-lab-1234", "creationTimestamp": "2026-11-22T19:00:00Z"}, "status": {"phase": "Bound"}}


def lab(**kwargs: Any) -> dict[str, Any]:
    item = pod("lab-0193aabb", "notebook", **kwargs)
    item["spec"]["restartPolicy"] = "Never"
    return item


def test_a_notebook_is_ready_when_the_hub_says_so() -> None:
    seen = notebook(lab(), server=READY, claim=BOUND)
    assert seen.verdict.phase is Phase.READY
    assert seen.snapshot["hub_url"] == "/user/alice/lab-0193aabb/"


def test_a_running_pod_is_not_a_ready_notebook() -> None:
    seen = notebook(lab(), server=PENDING, claim=BOUND)
    assert (seen.verdict.phase, seen.snapshot["hub_url"]) == (Phase.PROGRESSING, "")
    assert steps(seen) == {
        "quota": "done",
        "queue": "done",
        "pod": "done",
        "volume": "done",
        "network": "done",
        "image": "done",
        "start": "done",
        "ready": "active",
    }


def test_a_spawn_that_failed_says_what_the_hub_said() -> None:
    seen = notebook(server=Server(failure="ImagePullBackOff: Back-off pulling image"))
    assert (seen.verdict.phase, seen.verdict.reason) == (Phase.FAILED, "SpawnFailed")
    assert "Back-off pulling image" in seen.verdict.message


def test_a_notebook_whose_pod_was_deleted_while_it_started_is_lost_and_has_not_failed() -> None:
    seen = notebook(server=Server(failure=trouble.DELETED))
    assert (seen.verdict.phase, seen.verdict.reason) == (Phase.GONE, "ServerLost")


def test_a_notebook_that_the_namespaces_quota_refuses_says_what_to_do() -> None:
    seen = notebook(server=Server(failure="The cluster refused the pod (403): exceeded quota"))
    assert (seen.verdict.phase, seen.verdict.reason) == (Phase.FAILED, "ClusterQuota")
    assert "exceeded quota" in seen.verdict.message
    assert "ask an admin to raise the quota" in seen.verdict.message


def test_a_notebook_whose_command_ends_at_once_fails_with_its_exit_code() -> None:
    ended = lab(phase="Failed", ready=False)
    ended["status"]["containerStatuses"][0].update(state={"terminated": {"exitCode": 127, "reason": "Error"}}, ready=False)
    seen = notebook(ended, server=PENDING)
    assert (seen.verdict.phase, seen.verdict.reason) == (Phase.FAILED, "ContainerExited")
    assert "exit code 127" in seen.verdict.message


@pytest.mark.parametrize("server", [None, Server(), READY])
def test_a_notebook_that_was_up_and_has_no_pod_is_gone(server: Server | None) -> None:
    assert notebook(server=server, was_ready=True).verdict.phase is Phase.GONE


def test_a_lost_notebook_tells_why_its_pod_ended() -> None:
    ended = lab(phase="Failed", ready=False)
    ended["status"]["containerStatuses"][0].update(state={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, ready=False)
    seen = notebook(ended, server=READY, was_ready=True)
    assert (seen.verdict.phase, seen.verdict.reason) == (Phase.GONE, "OOMKilled")


def test_no_server_and_no_failure_means_it_is_to_be_started() -> None:
    assert notebook(server=None).verdict.phase is Phase.GONE


def test_a_missing_storage_class_fails_once_it_has_lasted() -> None:
    claim = {**BOUND, "status": {"phase": "Pending"}}
    said = event(claim, "ProvisioningFailed", 'storageclass.storage.k8s.io "fast" not found')
    seen = Seen(server=PENDING, claim=claim, events=[said])
    assert observe(notebook_spec(), seen, now=NOW, was_ready=False).verdict.phase is Phase.PROGRESSING
    late = observe(notebook_spec(), seen, now=LATER, was_ready=False)
    assert (late.verdict.phase, late.verdict.reason) == (Phase.FAILED, "VolumeFailed")
    assert steps(late)["volume"] == "failed"


def test_control_characters_of_a_container_do_not_reach_the_words() -> None:
    seen = look(crashed(scheduler(), 2, message="bad\x1b[31m\nnews\r"), worker(0), worker(1))
    assert seen.verdict.message.isprintable()
    assert "bad [31m news" in seen.verdict.message


def test_words_of_a_container_are_bounded() -> None:
    seen = look(crashed(scheduler(), 2, message="x" * 10_000), worker(0), worker(1))
    assert len(seen.verdict.message) < 1000


def test_both_roles_of_the_spec_are_in_the_snapshot_in_order() -> None:
    roles = [row["role"] for row in look().snapshot["replicas"]]
    assert roles == [SCHEDULER.name, WORKER.name, WORKER.name]


# --- what a cluster does to pods ---------------------------------------------------------------


def ending(item: dict[str, Any], *conditions: dict[str, str]) -> dict[str, Any]:
    item["metadata"]["deletionTimestamp"] = "2026-11-22T19:00:00Z"
    item["status"]["conditions"].extend(conditions)
    return item


def test_a_notebook_that_somebody_stops_at_the_hub_is_lost_from_that_moment_on() -> None:
    stopped = notebook(ending(pod("lab-0193aabb", "notebook")), server=Server(pending="stop"), was_ready=True)
    assert (stopped.verdict.phase, stopped.verdict.reason) == (Phase.GONE, "ServerLost")
    assert notebook(server=Server(pending="stop")).verdict.phase is Phase.GONE, "one that was to start is started when that is over"


@pytest.mark.parametrize("reason", ["Evicted", "OutOfcpu", "NodeShutdown"])
def test_a_notebook_whose_pod_the_cluster_takes_away_while_it_starts_is_started_again(reason: str) -> None:
    taken = pod("lab-0193aabb", "notebook", phase="Failed", reason=reason, message="The node was low on resource: memory.")
    seen = notebook(taken, server=Server(failure="The pod ended"))
    assert seen.verdict.phase is Phase.GONE
    assert "low on resource" in seen.verdict.message
    broken = pod("lab-0193aabb", "notebook", phase="Failed", reason="Error")
    assert notebook(broken, server=Server()).verdict.phase is Phase.FAILED


def test_an_evicted_replica_is_no_failure_of_its_cluster() -> None:
    taken = scheduler(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
    for was_ready in (False, True):
        seen = look(taken, worker(0), worker(1), was_ready=was_ready)
        assert (seen.verdict.phase, seen.verdict.reason) == (Phase.PROGRESSING, "Evicted")
        assert "It is started again" in seen.verdict.message


def test_who_evicts_a_pod_is_told_while_it_ends() -> None:
    target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}
    seen = look(ending(scheduler(), target), worker(0), worker(1), was_ready=True)
    assert (seen.verdict.reason, "Eviction API" in seen.verdict.message) == ("Evicted", True)


def test_replicas_on_a_node_that_does_not_answer_are_told_by_its_name() -> None:
    seen = look(scheduler(ready=False, node="node-7"), worker(0), worker(1), was_ready=True, lost_nodes=frozenset({"node-7"}))
    assert (seen.verdict.phase, seen.verdict.reason) == (Phase.PROGRESSING, "NodeLost")
    assert "node-7, which no longer answers" in seen.verdict.message
    assert look(scheduler(node="node-7"), worker(0), worker(1), lost_nodes=frozenset({"node-7"})).verdict.phase is Phase.READY


def test_a_container_that_ends_once_in_a_long_while_is_not_looping() -> None:
    steady = {"startedAt": "2026-11-22T10:00:00Z", "finishedAt": "2026-11-22T18:59:00Z"}
    brief = {"startedAt": "2026-11-22T18:58:58Z", "finishedAt": "2026-11-22T18:59:00Z"}
    assert look(crashed(scheduler(), 5, **steady), worker(0), worker(1), was_ready=True).verdict.phase is Phase.PROGRESSING
    assert look(crashed(scheduler(), 5, **brief), worker(0), worker(1), was_ready=True).verdict.phase is Phase.FAILED


def unplaced(item: dict[str, Any], message: str, reason: str = "Unschedulable") -> dict[str, Any]:
    item["spec"]["nodeName"] = ""
    item["status"].update(phase="Pending", containerStatuses=[])
    since = {"lastTransitionTime": "2026-11-22T19:00:00Z"}
    item["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": reason, "message": message, **since}]
    return item


def test_a_cluster_whose_pods_come_one_by_one_can_be_used_when_each_role_has_its_first() -> None:
    def one_by_one(*pods: dict[str, Any]):
        return observe(cluster_spec(gang=False), Seen(pods=pods, sets=SETS), now=LATER, was_ready=False)

    def waits(index: int) -> dict[str, Any]:
        return unplaced(worker(index), "0/1 nodes are available: 1 Insufficient cpu.")

    assert look(scheduler(), worker(0), waits(1), now=LATER).verdict.phase is Phase.PROGRESSING
    assert look(scheduler(), worker(0), waits(1), now=LATER).without_room > 0
    some = one_by_one(scheduler(), worker(0), waits(1))
    assert (some.verdict.phase, some.without_room) == (Phase.DEGRADED, 0)
    none = one_by_one(scheduler(), waits(0), waits(1))
    assert none.verdict.phase is Phase.PROGRESSING
    assert none.without_room > 0
    assert one_by_one(scheduler(), worker(0), worker(1)).verdict.phase is Phase.READY


def test_how_long_pods_have_been_without_room_is_told_of_the_one_that_waits_longest() -> None:
    full = unplaced(worker(0), "0/3 nodes are available: 3 Insufficient cpu.")
    assert look(scheduler(), full, worker(1)).without_room == 10.0
    assert look(scheduler(), worker(0), worker(1)).without_room == 0.0
    assert look(scheduler(), unplaced(worker(0), "", "SchedulingGated"), worker(1)).without_room == 0.0
    assert look(scheduler(), ending(full), worker(1)).without_room == 0.0


@pytest.mark.parametrize(
    "message",
    ["0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.", '0/3 nodes are available: persistentvolumeclaim "home" not found.'],
)
def test_a_home_volume_that_is_not_bound_is_no_want_of_room_and_is_waited_for_only_so_long(message: str) -> None:
    seen = notebook(unplaced(pod("lab-0193aabb", "notebook"), message), server=Server(pending="spawn"))
    assert (seen.verdict.phase, seen.verdict.reason, seen.without_room) == (Phase.PROGRESSING, "VolumeUnbound", 0.0)
    assert "Ask an admin to check the storage class" in seen.verdict.message
    late = observe(
        notebook_spec(),
        Seen(pods=(unplaced(pod("lab-0193aabb", "notebook"), message),), server=Server(pending="spawn")),
        now=NOW + timedelta(minutes=11),
        was_ready=False,
    )
    assert (late.verdict.phase, late.verdict.reason) == (Phase.FAILED, "VolumeUnbound")


def test_a_home_volume_whose_storage_is_gone_fails_the_start_with_what_is_left_to_do() -> None:
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "home-lab-1234", "uid": "c1"}, "status": {"phase": "Lost"}}
    seen = notebook(claim=claim)
    assert (seen.verdict.phase, seen.verdict.reason) == (Phase.FAILED, "VolumeLost")
    assert "Ask an admin to restore it" in seen.verdict.message
