"""Specs and cluster objects for tests of the pure parts: small, complete, and changed by keyword."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from k8s import names
from k8s.spec import Devices, Endpoint, EnvironmentSpec, Home, Port, Probe, Resources, Role

ID = "0193aabb-ccdd-7eef-8899-aabbccddeeff"
UID = "11111111-2222-3333-4444-555555555555"
OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "grid-0193aabb", "uid": UID}

SMALL = Resources(cpu_millis=500, memory_bytes=2**30)
SCHEDULER = Role(
    name="scheduler",
    replicas=1,
    image="daskdev/dask:1",
    resources=SMALL,
    command=("dask", "scheduler"),
    args=("--host", "$(POD_IP)"),
    ports=(
        Port(name="comm", number=8786, endpoint=Endpoint(title="Scheduler", scheme="tcp", path="")),
        Port(name="dashboard", number=8787, endpoint=Endpoint(title="Dashboard", path="/status")),
    ),
    readiness=Probe(port="comm"),
)
WORKER = Role(name="worker", replicas=2, image="daskdev/dask:1", resources=SMALL, command=("dask", "worker"), scalable=True)
GPU = Devices(
    slug="a100",
    resource_key="nvidia.com/gpu",
    count=2,
    node_selector={"nvidia.com/gpu.product": "A100"},
    tolerations=({"key": "nvidia.com/gpu", "operator": "Exists"},),
    runtime_class="nvidia",
    scheduler_name="hami-scheduler",
    annotations={"nvidia.com/use-gputype": "A100"},
    env={"NVIDIA_DRIVER_CAPABILITIES": "compute,utility"},
)


def cluster_spec(**changes: Any) -> EnvironmentSpec:
    spec = EnvironmentSpec(
        id=ID,
        install="abc123",
        name="grid",
        kind="cluster",
        team="vision",
        owner="alice",
        roles=(SCHEDULER, WORKER),
        namespace="atelier-vision",
        base_name="grid-0193aabb",
        connect_snippet="client = Client()",
    )
    return replace(spec, **changes)


def notebook_spec(**changes: Any) -> EnvironmentSpec:
    role = Role(
        name="notebook",
        replicas=1,
        image="jupyterhub/singleuser:6.1",
        resources=replace(SMALL, shm_bytes=2**28, devices=GPU),
        command=("jupyterhub-singleuser",),
        env={"MODE": "lab"},
        ports=(Port(name="notebook", number=8888),),
    )
    spec = EnvironmentSpec(
        id=ID,
        install="abc123",
        name="lab",
        kind="notebook",
        team="vision",
        owner="alice",
        roles=(role,),
        namespace="atelier-vision",
        base_name="lab-0193aabb",
        home=Home(claim="home-lab-1234", size_bytes=10 * 2**30),
        expires_at="2026-11-22T20:00:00+00:00",
        node_selector={"pool": "dev"},
    )
    return replace(spec, **changes)


def labels(spec: EnvironmentSpec, role: str = "") -> dict[str, str]:
    own = {
        "app.kubernetes.io/managed-by": "atelier",
        "atelier.dev/install": spec.install,
        "atelier.dev/environment": spec.id,
        "atelier.dev/name": spec.name,
        "atelier.dev/kind": spec.kind,
        "atelier.dev/team": spec.team,
        "atelier.dev/owner": spec.owner,
    }
    return {**own, "atelier.dev/role": role} if role else own


def pod(
    name: str, role: str, *, phase: str = "Running", ready: bool | None = None, node: str = "node-1", ip: str = "10.0.0.7", **status: Any
) -> dict[str, Any]:
    """A pod as the API lists it: running and ready unless told otherwise."""
    ready = phase == "Running" if ready is None else ready
    container = {"name": role, "image": "img:1", "imageID": "sha256:1", "ready": ready, "restartCount": 0, "state": {"running": {}}}
    return copy.deepcopy(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "atelier-vision", "uid": f"uid-{name}", "labels": {names.ROLE: role, names.ENVIRONMENT: ID}},
            "spec": {"nodeName": node, "containers": [{"name": role, "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": str(2**30)}}}]},
            "status": {
                "phase": phase,
                "podIP": ip,
                "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True" if ready else "False"}],
                "containerStatuses": [container],
                **status,
            },
        }
    )


def waiting(item: dict[str, Any], reason: str, message: str = "", **container: Any) -> dict[str, Any]:
    """The pod, with its container waiting for `reason`."""
    item["status"]["phase"] = "Pending"
    item["status"]["conditions"][1]["status"] = "False"
    item["status"]["containerStatuses"][0].update(ready=False, state={"waiting": {"reason": reason, "message": message}}, **container)
    return item


def stateful_set(role: str, replicas: int, **metadata: Any) -> dict[str, Any]:
    name = f"grid-0193aabb-{role}"
    own = {"name": name, "uid": f"uid-{name}", "labels": {names.ROLE: role}, "creationTimestamp": "2026-11-22T19:00:00Z", **metadata}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": own, "spec": {"replicas": replicas}}


def event(about: dict[str, Any], reason: str, message: str, **fields: Any) -> dict[str, Any]:
    return {
        "metadata": {"uid": f"event-{reason}", "namespace": "atelier-vision"},
        "involvedObject": {"kind": about.get("kind", "Pod"), "name": about["metadata"]["name"], "uid": about["metadata"]["uid"]},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": "2026-11-22T19:00:05Z",
        **fields,
    }
