"""Nodes that are lost and come back, are cordoned, tainted, or removed; and what becomes of their pods."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from k8s.local.controllers.eviction import patience
from k8s.local.documents import at, meta
from k8s.local.nodes import LOST

from .conftest import Server, World, pod, processes_with, until

NODE, OTHER = "sim-gpu-1", "sim-gpu-2"
TEMPLATE = {"containers": [{"name": "main", "image": "busybox:1", "command": ["sh", "-c", "while :; do sleep 0.1; done"]}], "terminationGracePeriodSeconds": 1}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path / "state", toleration_seconds=1)
    await found.begin(node_grace=1.5)
    yield found
    await found.end()


def lose(world: World, node: str = NODE, lost: str = "true") -> None:
    world.client.modify("Node", None, node, lambda doc: meta(doc).setdefault("annotations", {}).update({LOST: lost}))


def node(world: World, name: str = NODE) -> dict[str, Any]:
    return world.client.get("Node", None, name) or {}


def taints(world: World, name: str = NODE) -> set[tuple[str, str]]:
    return {(item["key"], item["effect"]) for item in at(node(world, name), "spec.taints", [])}


def condition(doc: dict[str, Any], kind: str) -> str:
    return str(next((item["status"] for item in at(doc, "status.conditions", []) if item["type"] == kind), ""))


def on(name: str, script: str = "while :; do sleep 0.1; done", node: str = NODE, **spec: Any) -> dict[str, Any]:
    return pod(name, script, nodeSelector={"kubernetes.io/hostname": node}, **spec)


UNREACHABLE = {("node.kubernetes.io/unreachable", "NoSchedule"), ("node.kubernetes.io/unreachable", "NoExecute")}
FOREVER = [{"operator": "Exists"}]


async def test_a_lost_node_becomes_unknown_and_its_pods_unready_and_all_is_well_when_it_is_back(world: World) -> None:
    mark = f"7{os.getpid()}"
    world.create(on("stays", f"sleep {mark}", tolerations=FOREVER))
    before = await world.phase("stays", "Running")
    await until(lambda: condition(world.pod("stays"), "Ready") == "True")
    lose(world)
    await until(lambda: condition(node(world), "Ready") == "Unknown")
    await until(lambda: taints(world) >= UNREACHABLE)
    await until(lambda: condition(world.pod("stays"), "Ready") == "False")
    assert condition(node(world, OTHER), "Ready") == "True"
    assert world.pod("stays")["status"]["phase"] == "Running"
    assert len(processes_with(f"sleep\0{mark}")) == 1
    lose(world, lost="false")
    await until(lambda: condition(node(world), "Ready") == "True" and not taints(world) & UNREACHABLE)
    await until(lambda: condition(world.pod("stays"), "Ready") == "True")
    after = world.pod("stays")
    assert (meta(after)["uid"], after["status"]["podIP"]) == (meta(before)["uid"], before["status"]["podIP"])
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
    assert len(processes_with(f"sleep\0{mark}")) == 1


async def test_pods_of_a_lost_node_are_evicted_and_stay_until_the_node_is_back(world: World) -> None:
    mark = f"71{os.getpid()}"
    template = {**TEMPLATE, "nodeSelector": {"kubernetes.io/hostname": NODE}}
    template["containers"] = [{"name": "main", "image": "busybox:1", "command": ["sh", "-c", f"sleep {mark}"]}]
    metadata = {"labels": {"app": "set"}}
    spec = {"replicas": 1, "serviceName": "set", "selector": {"matchLabels": {"app": "set"}}, "template": {"metadata": metadata, "spec": template}}
    world.create({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "set"}, "spec": spec})
    first = await world.phase("set-0", "Running")
    lose(world)
    await until(lambda: meta(world.pod("set-0")).get("deletionTimestamp"))
    assert condition(world.pod("set-0"), "DisruptionTarget") == "True"
    assert any("TaintManagerEviction" in line for line in world.events("set-0"))
    # Nobody knows whether it still runs, so a StatefulSet must not replace it.
    world.create(pod("meanwhile", "exit 0"))
    await world.phase("meanwhile", "Succeeded")
    assert meta(world.pod("set-0"))["uid"] == meta(first)["uid"]
    assert len(processes_with(f"sleep\0{mark}")) == 1
    lose(world, lost="false")
    await until(lambda: world.pod("set-0") and meta(world.pod("set-0"))["uid"] != meta(first)["uid"])
    await world.phase("set-0", "Running")
    await until(lambda: len(processes_with(f"sleep\0{mark}")) == 1)


async def test_a_pod_given_to_a_lost_node_starts_when_the_node_is_back(world: World) -> None:
    lose(world)
    await until(lambda: taints(world) >= UNREACHABLE)
    world.create(on("later", tolerations=FOREVER))
    await until(lambda: at(world.pod("later"), "spec.nodeName") == NODE)
    world.create(pod("meanwhile", "exit 0"))
    await world.phase("meanwhile", "Succeeded")
    assert world.pod("later")["status"]["phase"] == "Pending"
    lose(world, lost="false")
    await world.phase("later", "Running")


async def test_forced_deletion_on_a_lost_node_leaves_no_process(world: World) -> None:
    mark = f"72{os.getpid()}"
    world.create(on("forced", f"sleep {mark}", tolerations=FOREVER))
    uid = meta(await world.phase("forced", "Running"))["uid"]
    await until(lambda: processes_with(f"sleep\0{mark}"))
    lose(world)
    await until(lambda: condition(node(world), "Ready") == "Unknown")
    world.delete("Pod", "forced")
    assert world.pod("forced")
    world.delete("Pod", "forced", grace=0)
    assert not world.pod("forced")
    await until(lambda: not processes_with(f"sleep\0{mark}") and not (world.state / "pods" / uid).exists())


async def test_a_node_stays_lost_across_a_restart_of_the_cluster(world: World) -> None:
    world.create(on("waits", tolerations=FOREVER))
    uid = meta(await world.phase("waits", "Running"))["uid"]
    lose(world)
    await until(lambda: condition(node(world), "Ready") == "Unknown")
    await world.end(kill_pods=False)
    world.reopen()
    await world.begin(node_grace=1.5)
    world.create(pod("meanwhile", "exit 0"))
    await world.phase("meanwhile", "Succeeded")
    assert condition(node(world), "Ready") == "Unknown"
    assert uid not in world.runtime.kubelet.workers
    lose(world, lost="false")
    await until(lambda: condition(node(world), "Ready") == "True" and condition(world.pod("waits"), "Ready") == "True")
    assert meta(world.pod("waits"))["uid"] == uid


async def test_the_pods_of_a_removed_node_are_removed_too(world: World) -> None:
    mark = f"73{os.getpid()}"
    world.create(on("orphan", f"sleep {mark}"))
    await world.phase("orphan", "Running")
    world.client.delete("Node", None, NODE)
    await world.gone("Pod", "orphan")
    await until(lambda: not processes_with(f"sleep\0{mark}"))


async def test_a_terminating_pod_leaves_a_node_that_was_declared_out_of_service(world: World) -> None:
    world.create(on("stuck", tolerations=[{"key": "node.kubernetes.io/unreachable", "operator": "Exists"}]))
    await world.phase("stuck", "Running")
    lose(world)
    await until(lambda: condition(node(world), "Ready") == "Unknown")
    out = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
    world.client.modify("Node", None, NODE, lambda doc: doc["spec"]["taints"].append(out))
    await world.gone("Pod", "stuck")


async def test_pods_leave_a_node_with_a_taint_that_they_do_not_tolerate(world: World) -> None:
    world.create(on("leaves", terminationGracePeriodSeconds=1))
    world.create(on("tolerant", tolerations=[{"key": "maintenance", "operator": "Exists", "effect": "NoExecute"}]))
    world.create(on("patient", tolerations=[{"key": "maintenance", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3600}]))
    for name in ("leaves", "tolerant", "patient"):
        await world.phase(name, "Running")
    world.client.modify("Node", None, NODE, lambda doc: doc["spec"].setdefault("taints", []).append({"key": "maintenance", "effect": "NoExecute"}))
    await world.gone("Pod", "leaves")
    assert not meta(world.pod("tolerant")).get("deletionTimestamp")
    assert not meta(world.pod("patient")).get("deletionTimestamp")


async def test_a_cordoned_node_is_tainted_and_gets_no_pods_until_it_is_uncordoned(world: World) -> None:
    world.client.modify("Node", None, NODE, lambda doc: doc["spec"].update(unschedulable=True))
    await until(lambda: ("node.kubernetes.io/unschedulable", "NoSchedule") in taints(world))
    world.create(on("held"))
    await until(lambda: any("FailedScheduling" in line and "were unschedulable" in line for line in world.events("held")))
    world.client.modify("Node", None, NODE, lambda doc: doc["spec"].pop("unschedulable"))
    await world.phase("held", "Running")
    assert ("node.kubernetes.io/unschedulable", "NoSchedule") not in taints(world)


def test_patience_is_counted_from_when_the_taint_was_added() -> None:
    taint = {"key": "a", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}
    added = 1767225600.0
    assert patience([], [taint], added) == 0.0
    assert patience([], [{"key": "a", "effect": "NoSchedule"}], added) is None
    assert patience([{"key": "a", "operator": "Exists"}], [taint], added) is None
    bounded = {"key": "a", "operator": "Exists", "tolerationSeconds": 300}
    assert patience([bounded], [taint], added + 100) == 200.0
    assert patience([bounded], [taint], added + 400) == 0.0
    assert patience([bounded, {"operator": "Exists", "tolerationSeconds": 100}], [taint], added) == 100.0
    assert patience([bounded], [taint, {"key": "b", "effect": "NoExecute"}], added) == 0.0


@pytest.mark.integration
def test_kubectl_drains_a_node_within_the_disruption_budget(server: Server) -> None:
    spec = {**TEMPLATE, "nodeSelector": {"nvidia.com/gpu.present": "true"}}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": spec}
    workload = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": workload}
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}}
    budget["spec"] = {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}
    for document in (deployment, budget):
        assert server.kubectl("apply", "-f", "-", input=json.dumps(document)).returncode == 0
    assert server.kubectl("rollout", "status", "deployment/web", "--timeout=50s").returncode == 0
    places = {item.spec.node_name for item in server.core.list_namespaced_pod("default", label_selector="app=web").items}
    drained = places.pop()
    refused = server.kubectl("drain", drained, "--timeout=2s")
    assert refused.returncode != 0
    assert "disruption budget" in refused.stderr
    assert server.kubectl("patch", "pdb", "web", "--type=merge", "-p", '{"spec":{"minAvailable":1}}').returncode == 0
    done = server.kubectl("drain", drained, "--timeout=50s")
    assert done.returncode == 0, done.stderr
    assert "SchedulingDisabled" in server.kubectl("get", "node", drained, "--no-headers").stdout
    assert drained not in {item.spec.node_name for item in server.core.list_namespaced_pod("default", label_selector="app=web").items}
    assert server.kubectl("rollout", "status", "deployment/web", "--timeout=50s").returncode == 0
    assert server.kubectl("uncordon", drained).returncode == 0


@pytest.mark.integration
def test_a_node_is_cut_off_by_an_annotation_and_its_pods_cannot_be_reached(tmp_path: Path) -> None:
    found = Server(tmp_path / "cluster", ATELIER_CLUSTER_NODE_GRACE="1")
    found.start()
    try:
        found.core.create_namespaced_pod("default", on("far", "echo here; sleep 1000", tolerations=FOREVER))
        found.wait_phase("far", "Running")
        assert found.kubectl("annotate", "node", NODE, f"{LOST}=true").returncode == 0
        assert found.kubectl("wait", "node", NODE, "--for=condition=Ready=Unknown", "--timeout=50s").returncode == 0
        for words in (("logs", "far"), ("exec", "far", "--", "true")):
            refused = found.kubectl(*words)
            assert refused.returncode != 0
            assert "no route to host" in refused.stderr
        assert found.kubectl("annotate", "node", NODE, f"{LOST}-").returncode == 0
        assert found.kubectl("wait", "node", NODE, "--for=condition=Ready", "--timeout=50s").returncode == 0
        assert found.kubectl("wait", "pod", "far", "--for=condition=Ready", "--timeout=50s").returncode == 0
        assert found.kubectl("logs", "far").stdout == "here\n"
    finally:
        found.stop()
