"""Nodes: this machine and the simulated ones, from a YAML file."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import yaml

from .allocation import publish, publish_classes
from .client import Change, Client
from .documents import Doc, at, meta, name_of, namespace_of, now, now_micro, parse_time
from .errors import StatusError
from .kubelet.devices import GPU, SIMULATED, Gpu
from .kubelet.plain import NOT_ISOLATED
from .kubelet.process import Isolation
from .options import Options

log = logging.getLogger(__name__)
OURS = "atelier.dev/embedded"  # label: nodes that are removed when the file no longer has them
STATUS_SECONDS = 300.0  # between two reports of a node's status in which nothing is new; its lease says more often that it lives
LEASES = "kube-node-lease"
LOST = "atelier.dev/lost"  # annotation: "true" cuts a node off, as if its network had failed
_BUILT_IN = Path(__file__).parent / "default_nodes.yaml"
_KEYS = {"name", "machine", "simulated", "capacity", "labels", "annotations", "taints", "devices"}


def is_lost(node: Mapping[str, Any] | None) -> bool:
    """Whether somebody cut this node off: its kubelet then reports nothing and hears nothing."""
    return ((meta(node or {}).get("annotations") or {}).get(LOST) or "false") != "false"


@dataclass(frozen=True)
class NodeSpec:
    name: str
    capacity: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, str], ...] = ()
    simulated: bool = False
    devices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # driver -> what it publishes, see `allocation.publish`


def load(path: Path | None, gpus: list[Gpu]) -> list[NodeSpec]:
    """Nodes of a file (None: the built-in one). ValueError names what is wrong."""
    file = path or _BUILT_IN
    document = yaml.safe_load(file.read_text()) or {}
    found = [_node(row, file, gpus) for row in document.get("nodes") or []]
    names = [node.name for node in found]
    if not found or len(set(names)) != len(names):
        raise ValueError(f"{file}: there must be at least one node, and each name once")
    return found


def _node(row: Mapping[str, Any], file: Path, gpus: list[Gpu]) -> NodeSpec:
    unknown = set(row) - _KEYS
    if unknown or not row.get("name"):
        raise ValueError(f"{file}: a node needs a name, and knows no {', '.join(sorted(unknown)) or 'other keys'}")
    simulated = bool(row.get("simulated"))
    labels = {str(key): str(value) for key, value in (row.get("labels") or {}).items()}
    taints = [dict(item) for item in row.get("taints") or []]
    capacity = {"pods": "110", **{key: str(value) for key, value in (row.get("capacity") or {}).items()}}
    if row.get("machine"):
        capacity = {**machine_capacity(gpus), **capacity}
        if gpus:
            products = {"nvidia.com/gpu.product": gpus[0].product, "nvidia.com/gpu.count": str(len(gpus)), "nvidia.com/gpu.present": "true"}
            labels = {**products, "nvidia.com/gpu.memory": str(gpus[0].memory_mib), **labels}
    if simulated:
        labels[SIMULATED] = "true"
        # Pods that need no accelerator go to the real machine while it has room.
        taints.append({"key": SIMULATED, "value": "true", "effect": "PreferNoSchedule"})
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    base = {
        "kubernetes.io/hostname": row["name"],
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": arch,
        OURS: "true",
    }
    annotations = {str(key): str(value) for key, value in (row.get("annotations") or {}).items()}
    return NodeSpec(row["name"], capacity, {**base, **labels}, annotations, tuple(taints), simulated, row.get("devices") or {})


def classes(path: Path | None) -> dict[str, str]:
    """DeviceClasses of a file: name -> expression."""
    document = yaml.safe_load((path or _BUILT_IN).read_text()) or {}
    return {str(name): str(expression) for name, expression in (document.get("device_classes") or {}).items()}


def machine_capacity(gpus: list[Gpu]) -> dict[str, str]:
    disk = psutil.disk_usage("/")
    found = {
        "cpu": str(os.cpu_count() or 1),
        "memory": f"{psutil.virtual_memory().total // 1024}Ki",
        "ephemeral-storage": f"{disk.total // 1024}Ki",
        "pods": "110",
    }
    return {**found, GPU: str(len(gpus))} if gpus else found


def document(spec: NodeSpec, port: int, isolation: Isolation) -> Doc:
    annotations = {"atelier.dev/isolation": isolation.mode, **spec.annotations}
    if isolation.mode == "plain":
        annotations["atelier.dev/not-isolated"] = NOT_ISOLATED
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": spec.name, "labels": dict(spec.labels), "annotations": annotations},
        "spec": {"providerID": f"atelier://{spec.name}", **({"taints": [dict(item) for item in spec.taints]} if spec.taints else {})},
        "status": status(spec, port, {}),
    }


def status(spec: NodeSpec, port: int, old: Mapping[str, Any]) -> Doc:
    stamp = now()
    before = {item["type"]: item for item in old.get("conditions") or []}

    def condition(kind: str, value: str, reason: str, message: str) -> Doc:
        was = before.get(kind)
        since = was["lastTransitionTime"] if was and was["status"] == value else stamp
        return {"type": kind, "status": value, "reason": reason, "message": message, "lastHeartbeatTime": stamp, "lastTransitionTime": since}

    return {
        "capacity": dict(spec.capacity),
        "allocatable": dict(spec.capacity),
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "simulated: its pods run on this machine" if spec.simulated else "kubelet is posting ready status"),
        ],
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": spec.name}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "nodeInfo": {
            "machineID": "",
            "systemUUID": "",
            "bootID": "",
            "kernelVersion": platform.release(),
            "osImage": "Simulated" if spec.simulated else f"Embedded on {socket.gethostname()}",
            "containerRuntimeVersion": "atelier://1",
            "kubeletVersion": "v1.36.0-embedded",
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": spec.labels["kubernetes.io/arch"],
        },
    }


class Nodes:
    """The nodes' side that speaks: each reports its status, and renews its lease, as long as nobody cut it off."""

    def __init__(self, client: Client, specs: list[NodeSpec], options: Options, isolation: Isolation) -> None:
        self.client = client
        self.specs = specs
        self.options = options
        self.isolation = isolation
        self._changed = asyncio.Event()

    def sync(self) -> None:
        """Makes the nodes of the file, and removes those that it no longer has, with their pods."""
        wanted = {spec.name for spec in self.specs}
        for node in self.client.list("Node", labels={OURS: "true"}):
            if name_of(node) not in wanted:
                self.client.delete("Node", None, name_of(node))
                for pod in self.client.list("Pod"):
                    if pod["spec"].get("nodeName") == name_of(node):
                        with contextlib.suppress(StatusError):
                            self.client.delete("Pod", namespace_of(pod), name_of(pod), grace=0)
        for spec in self.specs:
            wanted_doc = document(spec, self.options.port, self.isolation)
            if self.client.get("Node", None, spec.name) is None:
                self.client.create("Node", wanted_doc)
            else:
                self.client.modify("Node", None, spec.name, partial(self._renew, wanted_doc))
            self._beat(spec)
            publish(self.client, spec.name, spec.devices)
        publish_classes(self.client, classes(self.options.nodes_file))

    @staticmethod
    def _renew(new: Doc, doc: Doc) -> None:
        meta(doc).setdefault("labels", {}).update(new["metadata"]["labels"])
        meta(doc).setdefault("annotations", {}).update(new["metadata"]["annotations"])
        ours = {item["key"] for item in new["spec"].get("taints") or []}
        kept = [item for item in at(doc, "spec.taints", []) if item["key"] not in ours]
        if kept or ours:
            doc.setdefault("spec", {})["taints"] = kept + (new["spec"].get("taints") or [])

    def _beat(self, spec: NodeSpec) -> None:
        node = self.client.get("Node", None, spec.name)
        if node is None or is_lost(node):  # removed by hand: it comes back with the next start, as when a kubelet is started again
            return
        new = status(spec, self.options.port, node.get("status") or {})
        if _is_news(node.get("status") or {}, new):
            self.client.modify("Node", None, spec.name, lambda doc: doc.update(status=new), subresource="status")
        lease: Doc = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": spec.name, "namespace": LEASES},
            "spec": {"holderIdentity": spec.name, "leaseDurationSeconds": 40, "renewTime": now_micro()},
        }
        with contextlib.suppress(StatusError):  # without the namespace there are no leases
            if self.client.get("Lease", LEASES, spec.name) is None:
                self.client.create("Lease", lease)
            else:
                self.client.modify("Lease", LEASES, spec.name, lambda doc: doc["spec"].update(renewTime=now_micro()))

    async def run(self) -> None:
        """A sign of life of each node at every heartbeat, and at once when a node that was cut off is back."""
        subscription = self.client.store.subscribe({"nodes"}, self._noticed)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.options.heartbeat):
                        await self._changed.wait()
                self._changed.clear()
                for spec in self.specs:
                    try:
                        self._beat(spec)
                    except StatusError as error:  # removed just now
                        log.info("node %s: %s", spec.name, error.message)
        finally:
            subscription.close()

    def _noticed(self, change: Change) -> None:
        if is_lost(change.previous) and not is_lost(change.object):
            self._changed.set()


def _is_news(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a report says something new, or the last one is long ago."""

    def substance(found: Mapping[str, Any]) -> Doc:
        return {**found, "conditions": [{**item, "lastHeartbeatTime": ""} for item in found.get("conditions") or []]}

    beats = [parse_time(item["lastHeartbeatTime"]).timestamp() for item in old.get("conditions") or [] if item.get("lastHeartbeatTime")]
    return substance(old) != substance(new) or not beats or time.time() - max(beats) >= STATUS_SECONDS
