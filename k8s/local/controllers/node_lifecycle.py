"""What becomes of a node that is silent, cordoned or gone: its conditions, its taints, and the readiness of its pods."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass

from k8s.local.client import Change, Client
from k8s.local.controllers.base import ended, is_ready
from k8s.local.documents import Doc, at, meta, name_of, namespace_of, now
from k8s.local.errors import StatusError
from k8s.local.nodes import LEASES

log = logging.getLogger(__name__)
COMPONENT = "node-controller"
UNREACHABLE, NOT_READY = "node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
_SILENCE = "Kubelet stopped posting node status."
_POD_GC_SECONDS = 20.0


@dataclass
class Heard:
    """The last renewal of a node's lease that was seen, and when by this process's clock."""

    renewed: str
    at: float


class NodeLifecycle:
    """Looks at every node several times within the grace period, and at once when one changes.

    Nodes without a lease were made by hand and have no kubelet to be silent: they stay as they were made.
    """

    def __init__(self, client: Client, grace: float) -> None:
        self.client = client
        self.grace = grace
        self.interval = min(5.0, grace / 4)
        self._heard: dict[str, Heard] = {}
        self._wake = asyncio.Event()

    async def run(self) -> None:
        subscription = self.client.store.subscribe({"nodes"}, self._noticed)
        try:
            while True:
                self.look()
                began = time.monotonic()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.interval):
                        await self._wake.wait()
                self._wake.clear()
                # This process was held up itself, and the nodes with it: that is nobody's silence.
                late = time.monotonic() - began - self.interval
                if late > self.interval:
                    for heard in self._heard.values():
                        heard.at += late
        finally:
            subscription.close()

    def _noticed(self, change: Change) -> None:
        # The status with its heartbeats is what nodes change most.
        if change.previous is None or change.type == "DELETED" or _essence(change.previous) != _essence(change.object):
            self._wake.set()

    def look(self) -> None:
        nodes = self.client.list("Node")
        for node in nodes:
            try:
                self._look_at(node)
            except StatusError as error:  # changed or removed just now; the next look comes soon
                log.info("node %s: %s", name_of(node), error.message)
        for gone in self._heard.keys() - {name_of(node) for node in nodes}:
            del self._heard[gone]

    def _look_at(self, node: Doc) -> None:
        name = name_of(node)
        lease = self.client.get("Lease", LEASES, name)
        if lease is not None:
            renewed = str(at(lease, "spec.renewTime", ""))
            heard = self._heard.setdefault(name, Heard(renewed, time.monotonic()))
            if heard.renewed != renewed:
                heard.renewed, heard.at = renewed, time.monotonic()
            elif time.monotonic() - heard.at > self.grace and readiness(node) != "Unknown":
                node = self._lose(node)
        self._taint(node, *(() if lease is None else (readiness(node),)))
        if lease is not None and readiness(node) != "True":
            self._unready_pods(name)

    def _lose(self, node: Doc) -> Doc:
        """The node is silent: nothing is known of it any more."""
        stamp = now()

        def change(doc: Doc) -> None:
            conditions = at(doc, "status.conditions", [])
            doc.setdefault("status", {})["conditions"] = [
                {**item, "status": "Unknown", "reason": "NodeStatusUnknown", "message": _SILENCE, "lastTransitionTime": stamp} for item in conditions
            ]

        found = self.client.modify("Node", None, name_of(node), change, subresource="status")
        self.client.event(node, "Normal", "NodeNotReady", f"Node {name_of(node)} status is now: NodeNotReady", COMPONENT)
        return found or node

    def _taint(self, node: Doc, ready: str = "") -> None:
        """The taints that tell the scheduler and the eviction of pods how the node is."""
        wanted: list[tuple[str, str]] = []
        if ready == "Unknown":
            wanted += [(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]
        elif ready == "False":
            wanted += [(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]
        if at(node, "spec.unschedulable"):
            wanted.append((UNSCHEDULABLE, "NoSchedule"))
        ours = {UNSCHEDULABLE, *((UNREACHABLE, NOT_READY) if ready else ())}
        old: list[Doc] = at(node, "spec.taints", [])
        kept = [item for item in old if item["key"] not in ours or (item["key"], item["effect"]) in wanted]
        had = {(item["key"], item["effect"]) for item in kept}
        new = kept + [{"key": key, "effect": effect, "timeAdded": now()} for key, effect in wanted if (key, effect) not in had]
        if new == old:
            return

        def change(doc: Doc) -> None:
            doc.setdefault("spec", {})["taints"] = new
            if not new:
                del doc["spec"]["taints"]

        self.client.modify("Node", None, name_of(node), change)

    def _unready_pods(self, node: str) -> None:
        """What a node does not say can no longer be relied on: services send nobody to its pods."""

        def change(doc: Doc) -> None:
            for item in at(doc, "status.conditions", []):
                if item["type"] == "Ready":
                    item.update(status="False", lastTransitionTime=now())

        for pod in self.client.list("Pod"):
            if pod["spec"].get("nodeName") == node and is_ready(pod):
                self.client.modify("Pod", namespace_of(pod), name_of(pod), change, subresource="status")
                self.client.event(pod, "Warning", "NodeNotReady", "Node is not ready", COMPONENT)


def readiness(node: Doc) -> str:
    return str(next((item["status"] for item in at(node, "status.conditions", []) if item["type"] == "Ready"), "Unknown"))


def _essence(node: Doc) -> tuple[object, ...]:
    return readiness(node), bool(at(node, "spec.unschedulable")), at(node, "spec.taints", [])


class PodGarbage:
    """Removes pods whose node is gone for good: its object was deleted, or somebody declared it out of service."""

    def __init__(self, client: Client, quarantine: float) -> None:
        self.client = client
        self.quarantine = quarantine  # seconds between the first sight of a pod without its node and its end
        self._seen: dict[str, float] = {}
        self._wake = asyncio.Event()

    async def run(self) -> None:
        subscription = self.client.store.subscribe({"nodes"}, self._noticed)
        try:
            while True:
                self.collect()
                pause = min(_POD_GC_SECONDS, self.quarantine / 2) if self._seen else _POD_GC_SECONDS
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            subscription.close()

    def _noticed(self, change: Change) -> None:
        if change.type == "DELETED" or (change.previous is not None and at(change.previous, "spec.taints") != at(change.object, "spec.taints")):
            self._wake.set()

    def collect(self) -> None:
        nodes = {name_of(node): node for node in self.client.list("Node")}
        present = set()
        for pod in self.client.list("Pod"):
            name, uid = pod["spec"].get("nodeName"), meta(pod)["uid"]
            node = nodes.get(name or "")
            if name and node is None:
                present.add(uid)
                if time.monotonic() - self._seen.setdefault(uid, time.monotonic()) >= self.quarantine:
                    self._remove(pod, "PodGC: node no longer exists")
            elif node is not None and meta(pod).get("deletionTimestamp") and readiness(node) != "True" and _out_of_service(node):
                self._remove(pod, "PodGC: node is out of service")
        self._seen = {uid: since for uid, since in self._seen.items() if uid in present}

    def _remove(self, pod: Doc, why: str) -> None:
        try:
            if not ended(pod):
                disrupt(self.client, pod, "DeletionByPodGC", why, phase="Failed")
            self.client.delete("Pod", namespace_of(pod), name_of(pod), grace=0, uid=meta(pod)["uid"])
        except StatusError as error:
            if error.code not in (404, 409):
                raise


def _out_of_service(node: Doc) -> bool:
    return any(item["key"] == OUT_OF_SERVICE for item in at(node, "spec.taints", []))


def disrupt(client: Client, pod: Doc, reason: str, message: str, *, phase: str = "") -> None:
    """Notes on a pod that it is about to be ended by others, and by whom."""

    def change(doc: Doc) -> None:
        status = doc.setdefault("status", {})
        stamp = now()
        kept = [item for item in status.get("conditions") or [] if item["type"] != "DisruptionTarget"]
        new = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message, "lastProbeTime": None, "lastTransitionTime": stamp}
        status["conditions"] = [*kept, new]
        if phase:
            status["phase"] = phase

    client.modify("Pod", namespace_of(pod), name_of(pod), change, subresource="status")
