"""The parts of the watcher: words, nodes, nudges, and a mirror that outlives its cluster."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from k8s import cluster as api
from k8s import names
from k8s.cluster import Cluster
from tests.embedded import EmbeddedCluster
from tests.k8s.factories import pod
from tests.stack import wait_until
from workers import nodes
from workers.history import Line, line
from workers.mirror import Mirror, whole
from workers.nudges import Nudges
from workers.watcher import outline


def event(**fields: Any) -> dict[str, Any]:
    return {"metadata": {"uid": "e1"}, "type": "Warning", "reason": "BackOff", "message": " failing ", "involvedObject": {"name": "lab-0"}, **fields}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (event(), Line(kind="warning", code="BackOff", message="lab-0: failing", source="k8s:e1:1")),
        (event(count=3), Line(kind="warning", code="BackOff", message="lab-0: failing (3 times)", source="k8s:e1:2")),
        (event(series={"count": 9}), Line(kind="warning", code="BackOff", message="lab-0: failing (9 times)", source="k8s:e1:4")),
        (event(type="Normal", reason="Pulled", message="here"), Line(kind="info", code="Pulled", message="lab-0: here", source="k8s:e1:1")),
        (event(type="Normal", reason="Created"), None),
        (event(reason="Unhealthy", count=2), None),
        (event(reason="Unhealthy", count=8), Line(kind="warning", code="Unhealthy", message="lab-0: failing (8 times)", source="k8s:e1:4")),
    ],
)
def test_an_event_in_words(given: dict[str, Any], told: Line | None) -> None:
    assert line(given) == told


def test_an_event_that_repeats_is_told_ever_more_seldom() -> None:
    sources = {told.source for count in range(1, 1000) if (told := line(event(count=count)))}
    assert len(sources) == 10


def test_a_node_is_told_with_what_its_pods_ask_for() -> None:
    node = {
        "metadata": {"name": "node-1", "labels": {names.SIMULATED: "true", "gpu": "A100"}},
        "spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]},
        "status": {
            "allocatable": {"cpu": "7500m", "memory": "16Gi", "pods": "110", "nvidia.com/gpu": "8"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    other = {"metadata": {"name": "node-2"}, "spec": {"unschedulable": True}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    ended, waiting = pod("b", "worker", phase="Succeeded"), pod("c", "worker", node="")
    ours = [pod("d", "worker"), pod("e", "worker"), pod("f", "scheduler")]
    for item in ours:
        item["metadata"]["labels"] |= {names.INSTALL: "abc123", names.ENVIRONMENT: "0b0e"}
    theirs = pod("g", "worker")
    theirs["metadata"]["labels"] |= {names.INSTALL: "other", names.ENVIRONMENT: "0b0e"}
    used = [use for item in (pod("a", "worker"), ended, waiting, *ours, theirs) if (use := nodes.usage(item, "abc123"))]
    assert nodes.rows([nodes.described(other), nodes.described(node)], used) == [
        {
            "name": "node-1",
            "allocatable": {"cpu": 7500, "memory": 16 * 2**30, "pods": 110, "nvidia.com/gpu": 8},
            "used": {"pods": 5, "cpu": 2500},
            "environments": {"0b0e": {"roles": {"worker": 2, "scheduler": 1}, "resources": {"pods": 3, "cpu": 1500}}},
            "labels": {names.SIMULATED: "true", "gpu": "A100"},
            "taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
            "ready": True,
            "simulated": True,
        },
        {"name": "node-2", "allocatable": {}, "used": {}, "environments": {}, "labels": {}, "taints": [], "ready": False, "simulated": False},
    ]


def test_an_annotation_of_a_pod_is_no_change_worth_converging_for() -> None:
    before, after = pod("a", "worker"), pod("a", "worker")
    after["metadata"]["annotations"] = {"touched": "yes"}
    assert outline(before) == outline(after)
    after["status"]["containerStatuses"][0]["restartCount"] = 1
    assert outline(before) != outline(after)


def test_many_changes_at_once_wake_a_worker_twice_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    nudges = Nudges()
    monkeypatch.setattr(nudges, "_send", sent.append)
    nudges.start()
    nudges.nudge("a")
    wait_until(lambda: sent == ["a"], "the first nudge to go at once")
    for _ in range(50):
        nudges.nudge("a")
        nudges.nudge("b")
    wait_until(lambda: sorted(sent) == ["a", "a", "b"], "one more for all that came after")


@pytest.mark.integration
def test_a_mirror_outlives_its_cluster_and_hears_what_it_missed(embedded: EmbeddedCluster) -> None:
    cluster = Cluster(embedded.kubeconfig)
    lock, heard = threading.Lock(), []

    def changed(old: Any, new: Any) -> None:
        with lock:
            heard.append(((old or new)["metadata"]["name"], "gone" if new is None else "new" if old is None else "changed"))

    def apply(name: str, data: dict[str, str]) -> dict[str, Any]:
        labels = {names.MANAGED_BY: names.MANAGER, names.INSTALL: "abc123", "mirrored": "yes"}
        metadata = {"name": name, "namespace": "default", "labels": labels}
        return cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})

    first = apply("first", {})
    mirror = Mirror(cluster, api.CONFIG_MAPS, changed, whole, labels="mirrored=yes")
    mirror.start()
    try:
        wait_until(lambda: ("first", "new") in heard, "the list")
        apply("second", {})
        wait_until(lambda: ("second", "new") in heard, "the watch")
        embedded.kill()
        embedded.start()
        cluster.delete(first)
        apply("second", {"a": "1"})
        wait_until(lambda: {("first", "gone"), ("second", "changed")} <= set(heard), "what happened since")
        assert [item["metadata"]["name"] for item in mirror.objects()] == ["second"]
    finally:
        mirror.stop()


@pytest.mark.integration
def test_a_change_that_cannot_be_handled_does_not_end_a_mirror(embedded: EmbeddedCluster) -> None:
    seen: list[str] = []

    def changed(_old: Any, new: Any) -> None:
        seen.append(new["metadata"]["name"])
        raise RuntimeError("on purpose")

    mirror = Mirror(Cluster(embedded.kubeconfig), api.NAMESPACES, changed, whole)
    mirror.start()
    try:
        wait_until(lambda: {"default", "kube-system"} <= set(seen), "every namespace")
        assert mirror.is_alive()
    finally:
        mirror.stop()
