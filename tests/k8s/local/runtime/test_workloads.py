"""StatefulSets, Deployments and Jobs with real pods behind them, and Services in front."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from k8s.local.documents import at

from .conftest import World, pod, pod_ip_env, processes_with, until

pytestmark = pytest.mark.integration


def template(script: str, **container: Any) -> dict[str, Any]:
    main = {"name": "main", "image": "busybox:1", "command": ["sh", "-c", script], **container}
    return {
        "metadata": {"labels": {"app": "set"}},
        "spec": {"containers": [main], "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False},
    }


def stateful(name: str, replicas: int, pod_template: dict[str, Any], **spec: Any) -> dict[str, Any]:
    selector = {"matchLabels": {"app": "set"}}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {"serviceName": name, "replicas": replicas, "selector": selector, "template": pod_template, **spec},
    }


def service(name: str, *, headless: bool = False, port: Any = "http", **spec: Any) -> dict[str, Any]:
    more = {"clusterIP": "None"} if headless else {}
    wanted = {"selector": {"app": "set"}, "ports": [{"name": "web", "port": 8080, "targetPort": port}], **more, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": wanted}


def pods(world: World) -> list[str]:
    return sorted(item["metadata"]["name"] for item in world.client.list("Pod") if not item["metadata"].get("deletionTimestamp"))


def status(world: World, kind: str, name: str) -> dict[str, Any]:
    return dict((world.client.get(kind, "default", name) or {}).get("status") or {})


async def test_a_stateful_set_grows_and_shrinks_in_order_and_keeps_its_volumes(world: World) -> None:
    claims = [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]
    mount = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    order: list[str] = []
    world.store.subscribe(
        ["pods"], lambda change: order.append(f"{change.type[0]}{change.object['metadata']['name'][-1]}") if change.type != "MODIFIED" else None
    )
    world.create(stateful("set", 2, template("echo $HOSTNAME >> /data/log; sleep 1000", **mount), volumeClaimTemplates=claims))
    await until(lambda: status(world, "StatefulSet", "set").get("readyReplicas") == 2)
    first = world.pod("set-1")
    assert first["metadata"]["labels"] | {"controller-revision-hash": ""} == {
        "app": "set",
        "statefulset.kubernetes.io/pod-name": "set-1",
        "apps.kubernetes.io/pod-index": "1",
        "controller-revision-hash": "",
    }
    assert (first["spec"]["hostname"], first["spec"]["subdomain"]) == ("set-1", "set")
    world.client.modify("StatefulSet", "default", "set", lambda doc: doc["spec"].update(replicas=3))
    await until(lambda: status(world, "StatefulSet", "set").get("readyReplicas") == 3)
    world.client.modify("StatefulSet", "default", "set", lambda doc: doc["spec"].update(replicas=1))
    await until(lambda: pods(world) == ["set-0"] and not world.pod("set-1"))
    assert order == ["A0", "A1", "A2", "D2", "D1"]
    assert len(world.client.list("PersistentVolumeClaim", "default")) == 3


async def test_a_parallel_set_starts_all_at_once_and_replaces_a_deleted_pod(world: World) -> None:
    world.create(stateful("set", 3, template("sleep 1000", readinessProbe={"exec": {"command": ["false"]}}), podManagementPolicy="Parallel"))
    await until(lambda: pods(world) == ["set-0", "set-1", "set-2"])
    uid = world.pod("set-1")["metadata"]["uid"]
    world.delete("Pod", "set-1", grace=0)
    await until(lambda: world.pod("set-1") and world.pod("set-1")["metadata"]["uid"] != uid)


async def test_a_changed_template_rolls_through_a_set_from_the_last_to_the_first(world: World) -> None:
    world.create(stateful("set", 2, template("sleep 1000")))
    await until(lambda: status(world, "StatefulSet", "set").get("readyReplicas") == 2)
    old = {name: world.pod(name)["metadata"]["uid"] for name in ("set-0", "set-1")}
    world.client.modify("StatefulSet", "default", "set", lambda doc: doc["spec"].update(template=template("sleep 2000")))
    await until(lambda: world.pod("set-1") and world.pod("set-1")["metadata"]["uid"] != old["set-1"])
    assert world.pod("set-0")["metadata"]["uid"] == old["set-0"]
    await until(lambda: status(world, "StatefulSet", "set").get("updatedReplicas") == 2 and status(world, "StatefulSet", "set").get("readyReplicas") == 2)
    found = status(world, "StatefulSet", "set")
    assert found["currentRevision"] == found["updateRevision"]


async def test_deleting_a_set_takes_its_pods_along(world: World) -> None:
    world.create(stateful("set", 2, template("sleep 1000"), podManagementPolicy="Parallel"))
    await until(lambda: status(world, "StatefulSet", "set").get("readyReplicas") == 2)
    world.delete("StatefulSet", "set")
    await until(lambda: not world.client.list("Pod"))
    assert not list((world.state / "pods").iterdir()) or await until(lambda: not list((world.state / "pods").iterdir()))


async def test_pods_that_nobody_controls_any_more_are_adopted_and_others_left_alone(world: World) -> None:
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "set"}}, "template": template("sleep 1000")}
    world.create({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "old"}, "spec": spec})
    await until(lambda: status(world, "ReplicaSet", "old").get("readyReplicas") == 2)
    kept = {name: world.pod(name)["metadata"]["uid"] for name in pods(world)}
    world.client.delete("ReplicaSet", "default", "old", propagation="Orphan")
    await until(lambda: not any(world.pod(name)["metadata"].get("ownerReferences") for name in kept))
    stranger = pod("stranger", "sleep 1000")
    world.create(stranger)
    world.create({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "new"}, "spec": {**spec, "replicas": 3}})
    await until(lambda: status(world, "ReplicaSet", "new").get("readyReplicas") == 3)
    owners = {name: [owner["name"] for owner in world.pod(name)["metadata"].get("ownerReferences") or ()] for name in pods(world)}
    assert owners.pop("stranger") == []
    assert list(owners.values()) == [["new"]] * 3
    assert {name: world.pod(name)["metadata"]["uid"] for name in kept} == kept


async def test_a_deployment_rolls_over_without_a_gap(world: World) -> None:
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "set"}}, "template": template("sleep 1000")}
    world.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
    await until(lambda: status(world, "Deployment", "web").get("availableReplicas") == 2)
    (old,) = world.client.list("ReplicaSet", "default")
    lowest = [2]

    def watch(_: Any) -> None:
        lowest.append(sum(at(item, "status.availableReplicas", 0) for item in world.client.list("ReplicaSet", "default")))

    subscription = world.store.subscribe(["replicasets.apps"], watch)
    world.client.modify("Deployment", "default", "web", lambda doc: doc["spec"].update(template=template("sleep 2000")))
    await until(
        lambda: (world.client.get("Deployment", "default", "web") or {})["metadata"]["generation"] == status(world, "Deployment", "web")["observedGeneration"]
    )
    await until(lambda: status(world, "Deployment", "web").get("updatedReplicas") == 2 and status(world, "Deployment", "web").get("replicas") == 2)
    subscription.close()
    assert min(lowest) >= 2
    assert {item["spec"]["replicas"] for item in world.client.list("ReplicaSet", "default")} == {0, 2}
    assert (world.client.get("ReplicaSet", "default", old["metadata"]["name"]) or {})["spec"]["replicas"] == 0
    assert (world.client.get("Deployment", "default", "web") or {})["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"


def job(script: str, **spec: Any) -> dict[str, Any]:
    found = template(script)
    found["spec"]["restartPolicy"] = "Never"
    del found["metadata"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work"}, "spec": {"template": found, **spec}}


def ended(world: World, kind: str) -> dict[str, Any] | None:
    return next((item for item in status(world, "Job", "work").get("conditions", []) if item["type"] == kind and item["status"] == "True"), None)


async def test_an_indexed_job_does_every_part_once(world: World) -> None:
    world.create(job("echo part $JOB_COMPLETION_INDEX", completions=3, parallelism=2, completionMode="Indexed"))
    await until(lambda: ended(world, "Complete"))
    found = status(world, "Job", "work")
    assert (found["succeeded"], found["completedIndexes"]) == (3, "0-2")
    assert sorted(world.log(item["metadata"]["name"]) for item in world.client.list("Pod")) == ["part 0\n", "part 1\n", "part 2\n"]


async def test_a_failing_job_gives_up_at_its_limit(world: World) -> None:
    world.create(job("exit 1", backoffLimit=0))
    failed = await until(lambda: ended(world, "Failed"))
    assert failed["reason"] == "BackoffLimitExceeded"
    assert status(world, "Job", "work")["failed"] == 1


async def test_a_part_that_fails_for_good_leaves_the_others_alone(world: World) -> None:
    script = "test $JOB_COMPLETION_INDEX != 1"
    world.create(job(script, completions=3, parallelism=3, completionMode="Indexed", backoffLimitPerIndex=0))
    failed = await until(lambda: ended(world, "Failed"))
    found = status(world, "Job", "work")
    assert (failed["reason"], found["failedIndexes"], found["completedIndexes"], found["failed"]) == ("FailedIndexes", "1", "0,2", 1)


async def test_a_part_is_tried_again_by_itself(world: World) -> None:
    script = "test -e /scratch/$JOB_COMPLETION_INDEX || { touch /scratch/$JOB_COMPLETION_INDEX; exit 1; }"
    document = job(script, completions=2, parallelism=2, completionMode="Indexed", backoffLimitPerIndex=1)
    pod = document["spec"]["template"]["spec"]
    (world.state / "shared").mkdir()
    pod["volumes"] = [{"name": "shared", "hostPath": {"path": str(world.state / "shared")}}]
    pod["containers"][0]["volumeMounts"] = [{"name": "shared", "mountPath": "/scratch"}]
    world.create(document)
    await until(lambda: ended(world, "Complete"))
    assert (status(world, "Job", "work")["completedIndexes"], status(world, "Job", "work")["failed"]) == ("0-1", 2)


async def test_a_job_says_itself_which_failures_count(world: World) -> None:
    ignored = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    fatal = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    world.create(job("exit 42", backoffLimit=6, podFailurePolicy={"rules": [ignored, fatal]}))
    failed = await until(lambda: ended(world, "Failed"))
    assert failed["reason"] == "PodFailurePolicy"
    assert failed["message"].endswith("failed with exit code 42 matching FailJob rule at index 1")


async def test_a_finished_job_goes_after_its_time(world: World) -> None:
    world.create(job("true", ttlSecondsAfterFinished=1))
    await until(lambda: ended(world, "Complete"))
    await world.gone("Job", "work")
    await until(lambda: not world.client.list("Pod"))


async def test_services_lead_to_ready_pods_by_address_and_by_every_name(world: World) -> None:
    serve = {
        "image": "python:3",
        "command": ["python3", "-m", "http.server", "8000", "--bind", "$(POD_IP)", "--directory", "/etc"],
        "env": pod_ip_env(),
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": {"httpGet": {"port": "http", "path": "/hostname"}, "periodSeconds": 1},
    }
    world.create(service("web"))
    world.create(service("set", headless=True))
    world.create(stateful("set", 2, template("", **serve), podManagementPolicy="Parallel"))
    await until(lambda: status(world, "StatefulSet", "set").get("readyReplicas") == 2)
    await until(lambda: len(at(world.client.get("Endpoints", "default", "web"), "subsets", [{}])[0].get("addresses", [])) == 2)
    names = [
        "web:8080",
        "web.default.svc:8080",
        "web.default.svc.cluster.local:8080",
        "set.default:8000",
        "set-1.set:8000",
        "set-0.set.default.svc.cluster.local:8000",
    ]
    script = "; ".join(f'python3 -c \'import urllib.request as u; print(u.urlopen("http://{name}/hostname").read().decode(), end="")\'' for name in names)
    lines = (await world.run("asker", script, container={"image": "python:3"})).splitlines()
    assert len(lines) == 6
    assert set(lines[:4]) <= {"set-0", "set-1"}
    assert lines[4:] == ["set-1", "set-0"]
    slices = world.client.list("EndpointSlice", "default", labels={"kubernetes.io/service-name": "set"})
    assert sorted(item["hostname"] for item in slices[0]["endpoints"]) == ["set-0", "set-1"]


async def test_names_reach_a_pod_that_runs_already_and_stay_within_their_namespace(world: World) -> None:
    world.create(pod("waiting", "while ! getent hosts late; do sleep 0.05; done; getent hosts late.other || echo no"))
    await world.phase("waiting", "Running")
    world.create(pod("target", "sleep 1000", labels={"app": "set"}))
    world.create(service("late", headless=True, port=8000))
    await world.phase("waiting", "Succeeded")
    address, *names = world.log("waiting").splitlines()[0].split()
    assert address == world.pod("target")["status"]["podIP"]
    assert "late.default.svc.cluster.local" in names
    assert world.log("waiting").splitlines()[1] == "no"


async def test_a_service_without_ready_pods_refuses_connections(world: World) -> None:
    world.create(service("empty", port=8000))
    script = "python3 -c 'import socket; socket.create_connection((\"empty\", 8080))' 2>&1 | tail -1"
    assert "Connection refused" in await world.run("asker", script, container={"image": "python:3"})


async def test_a_pod_that_fits_nowhere_waits_and_is_told_why(world: World) -> None:
    world.create(pod("greedy", "true", container={"resources": {"limits": {"nvidia.com/gpu": "9"}}}))
    condition = await until(lambda: next((item for item in at(world.pod("greedy"), "status.conditions", []) if item["type"] == "PodScheduled"), None))
    assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")
    count = len(world.client.list("Node"))
    assert condition["message"].startswith(f"0/{count} nodes are available: ")
    assert "Insufficient nvidia.com/gpu" in condition["message"]
    assert world.events("greedy")[0].startswith(f"FailedScheduling: 0/{count} nodes")


async def test_accelerators_lead_to_simulated_nodes_and_other_pods_to_the_machine(world: World) -> None:
    assert world.pod("none") == {}
    await world.run("plain", "true")
    assert world.pod("plain")["spec"]["nodeName"] == "local"
    selector = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
    out = await world.run("gpu", 'echo "[$CUDA_VISIBLE_DEVICES]"', container={"resources": {"limits": {"nvidia.com/gpu": "2"}}}, nodeSelector=selector)
    assert world.pod("gpu")["spec"]["nodeName"].startswith("sim-gpu-")
    assert out == "[]\n"
    await world.run("npu", "true", container={"resources": {"limits": {"huawei.com/Ascend910": "1"}}})
    assert world.pod("npu")["spec"]["nodeName"] == "sim-npu-1"


async def test_the_end_of_the_cluster_also_ends_what_is_just_being_started(tmp_path: Path) -> None:
    mark = f"5{os.getpid()}"
    world = World(tmp_path / "state")
    await world.begin()
    for number in range(8):
        world.create(pod(f"p{number}", f"sleep {mark}"))
    await until(lambda: list(world.state.glob("pods/*/containers/main/0/spec.json")))
    await world.end()
    await asyncio.sleep(0)
    assert processes_with(f"sleep\0{mark}") == []
    assert processes_with(f"sleep {mark}") == []
