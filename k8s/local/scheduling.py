"""Gives pods to nodes. What is free is kept up to date by every change, so that a pass costs what waits and not what there is.

A pod that was refused is tried again only when something changed that may help it, and all refused ones together never more often than in a fifth
of the time: a thousand pods that wait for room leave the machine to those that run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from dataclasses import dataclass

from .allocation import place
from .client import Change, Client
from .documents import Doc, at, labels_of, meta, name_of, namespace_of, now
from .errors import StatusError
from .kubelet.devices import SIMULATED
from .scheduler import SELECTED_NODE, NodeState, choose, claims_of

log = logging.getLogger(__name__)
COMPONENT = "default-scheduler"
# Vendors' schedulers for which it does the sums: a node's shares of a chip are amounts like others here.
STANDS_IN_FOR = ("hami-scheduler",)
_DEVICES = frozenset({"resourceclaims.resource.k8s.io", "resourceslices.resource.k8s.io", "deviceclasses.resource.k8s.io"})
_REPEAT = 300.0  # seconds between two events that say the same
_ANYWAY = 60.0  # seconds after which refused pods are tried again though nothing is known to have changed
_REST = 4.0  # how many times as long as trying took is rested before refused pods are tried again
_BREATH = 25  # pods between two moments for others


@dataclass
class Waiting:
    """A pod without a node."""

    namespace: str
    name: str
    number: int  # in the order in which they were first seen
    alike: str  # pods of which this is equal fit the same nodes; empty: it also depends on where other pods are
    claims: tuple[str, ...]
    told: str = ""
    told_at: float = 0.0


class Scheduler:
    """There is no preemption."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.nodes: dict[str, NodeState] = {}
        self._placed: dict[str, str] = {}  # pod's uid -> node
        self._fresh: dict[str, Waiting] = {}  # by uid: not tried since something changed for them
        self._refused: dict[str, Waiting] = {}
        self._again = False  # there may be room for refused ones
        self._again_beside = False  # there may be for those that look at other pods
        self._count = 0
        self._wake = asyncio.Event()
        self._rest_until = 0.0

    async def run(self) -> None:
        subscription = self.client.store.subscribe({"pods", "nodes", "persistentvolumeclaims", *_DEVICES}, self._noticed)
        try:
            for node in self.client.list("Node"):
                self._take_node(node, None)
            for pod in self.client.list("Pod"):
                self._take_pod(pod, None)
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ANYWAY):
                        await self._wake.wait()
                    await asyncio.sleep(self._rest_until - time.monotonic() if self._again or self._again_beside else 0)
                self._again = self._again or not self._wake.is_set()
                self._wake.clear()
                try:
                    await self._pass()
                except Exception:
                    log.exception("scheduler")
                    self._wake.set()
                    await asyncio.sleep(1)
        finally:
            subscription.close()

    # --- following the API ---------------------------------------------------------------------------------------------

    def _noticed(self, change: Change) -> None:
        """Within the write that it tells of, so it writes nothing itself and never raises."""
        try:
            gone = change.type == "DELETED"
            if change.store_key == "nodes":
                self._take_node(change.object, change.previous, gone=gone)
            elif change.store_key == "pods":
                self._take_pod(change.object, change.previous, gone=gone)
            elif change.store_key in _DEVICES:
                self._again_beside = True
                self._wake.set()
            else:
                self._take_claim(change.object)
        except Exception:
            log.exception("scheduler: %s %s", change.kind, name_of(change.object))

    def _take_node(self, node: Doc, previous: Doc | None, *, gone: bool = False) -> None:
        name = name_of(node)
        if gone:
            if self.nodes.pop(name, None) is not None:
                self._placed = {uid: where for uid, where in self._placed.items() if where != name}
            return
        if name in self.nodes:
            self.nodes[name].node = node
            if previous is not None and _offer(previous) == _offer(node):
                return
        else:
            self.nodes[name] = NodeState(node)
            for pod in self.client.list("Pod"):
                if pod["spec"].get("nodeName") == name:
                    self._take_pod(pod, None)
        self._again = True
        self._wake.set()

    def _take_pod(self, pod: Doc, previous: Doc | None, *, gone: bool = False) -> None:
        uid, name = meta(pod)["uid"], pod["spec"].get("nodeName")
        if gone or at(pod, "status.phase") in ("Succeeded", "Failed"):
            self._fresh.pop(uid, None)
            self._refused.pop(uid, None)
            where = self._placed.pop(uid, None)
            if where is not None:
                self.nodes[where].drop(uid)
                self._again = True
                self._wake.set()
        elif name:
            self._fresh.pop(uid, None)
            self._refused.pop(uid, None)
            self._place(uid, name, pod, previous)
        elif not _waits(pod):
            self._fresh.pop(uid, None)
            self._refused.pop(uid, None)
        elif uid not in self._refused:
            if uid not in self._fresh:
                self._count += 1
                self._fresh[uid] = Waiting(namespace_of(pod), name_of(pod), self._count, _alike(pod), tuple(claims_of(pod)))
                self._wake.set()
        elif previous is not None and (previous["spec"] != pod["spec"] or labels_of(previous) != labels_of(pod)):
            old = self._refused.pop(uid)
            self._fresh[uid] = Waiting(old.namespace, old.name, old.number, _alike(pod), old.claims, old.told, old.told_at)
            self._wake.set()

    def _place(self, uid: str, node: str, pod: Doc, previous: Doc | None) -> None:
        if node not in self.nodes:
            return
        if uid in self._placed:
            if previous is None or labels_of(previous) == labels_of(pod):
                return
            self.nodes[node].drop(uid)
        self.nodes[node].add(pod)
        self._placed[uid] = node
        if self._refused:
            self._again_beside = True
            self._wake.set()

    def _take_claim(self, claim: Doc) -> None:
        for uid, waiting in list(self._refused.items()):
            if waiting.namespace == namespace_of(claim) and name_of(claim) in waiting.claims:
                self._fresh[uid] = self._refused.pop(uid)
                self._wake.set()

    # --- one pass ------------------------------------------------------------------------------------------------------

    async def _pass(self) -> None:
        """Tries what waits and may have a chance, the most important and oldest first."""
        began = time.monotonic()
        if self._again or self._again_beside:
            for uid, waiting in list(self._refused.items()):
                if self._again or not waiting.alike:
                    self._fresh[uid] = self._refused.pop(uid)
        self._again = self._again_beside = False
        refusals: dict[str, str] = {}
        for number, (uid, _) in enumerate(sorted(self._fresh.items(), key=self._rank)):
            if uid in self._fresh:
                # Refused until it is placed, so that a change in between is not missed.
                waiting = self._refused[uid] = self._fresh.pop(uid)
                pod = self.client.get("Pod", waiting.namespace, waiting.name)
                try:
                    if pod is not None:
                        self._try(pod, waiting, refusals)
                except StatusError as error:  # its namespace goes, or it is gone
                    log.info("pod %s/%s: %s", waiting.namespace, waiting.name, error.message)
            if number % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
        self._rest_until = time.monotonic() + _REST * (time.monotonic() - began)

    def _rank(self, item: tuple[str, Waiting]) -> tuple[int, str, int]:
        pod = self.client.get("Pod", item[1].namespace, item[1].name) or {}
        return -int(at(pod, "spec.priority", 0)), str(meta(pod).get("creationTimestamp", "")), item[1].number

    def _try(self, pod: Doc, waiting: Waiting, refusals: dict[str, str]) -> None:
        why = self._claims(pod, waiting) or refusals.get(waiting.alike, "")
        if not why:
            states = list(self.nodes.values())
            claims = None
            if pod["spec"].get("resourceClaims"):
                claims, fitting, why = place(self.client, pod, self.nodes)
                if why:
                    self._refuse(pod, waiting, f"0/{len(states)} nodes are available: {why}.")
                    return
                states = [state for name, state in self.nodes.items() if name in fitting]
            state, why = choose(pod, states)
            if state is not None:
                if claims is not None:
                    claims.reserve(name_of(state.node), fitting[name_of(state.node)])
                self._select_node(pod, waiting, state)
                self._bind(pod, state)
                return
            if waiting.alike:  # binding others only takes room, so it holds for the whole pass
                refusals[waiting.alike] = why
        self._refuse(pod, waiting, why)

    def _claims(self, pod: Doc, waiting: Waiting) -> str:
        """Why its claims keep a pod from being scheduled; empty when they do not."""
        for name in waiting.claims:
            claim = self.client.get("PersistentVolumeClaim", namespace_of(pod), name)
            if claim is None:
                why = f'persistentvolumeclaim "{name}" not found'
            elif meta(claim).get("deletionTimestamp"):
                why = f'persistentvolumeclaim "{name}" is being deleted'
            elif at(claim, "status.phase") == "Lost":
                why = f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{at(claim, "spec.volumeName", "")}"'
            elif not at(claim, "spec.volumeName") and not self._waits_for_consumer(claim):
                why = "pod has unbound immediate PersistentVolumeClaims"
            else:
                continue
            count = len(self.nodes)
            return f"0/{count} nodes are available: {why}. preemption: 0/{count} nodes are available: {count} Preemption is not helpful for scheduling."
        return ""

    def _waits_for_consumer(self, claim: Doc) -> bool:
        found = self.client.get("StorageClass", None, at(claim, "spec.storageClassName", ""))
        return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"

    def _select_node(self, pod: Doc, waiting: Waiting, state: NodeState) -> None:
        for name in waiting.claims:
            claim = self.client.get("PersistentVolumeClaim", namespace_of(pod), name)
            if claim is not None and not at(claim, "spec.volumeName"):
                self.client.modify(
                    "PersistentVolumeClaim",
                    namespace_of(pod),
                    name,
                    lambda doc: meta(doc).setdefault("annotations", {}).update({SELECTED_NODE: name_of(state.node)}),
                )

    def _bind(self, pod: Doc, state: NodeState) -> None:
        node = name_of(state.node)

        def change(doc: Doc) -> None:
            doc["spec"]["nodeName"] = node
            if SIMULATED in state.labels:  # said on the pod as well, so that whoever reads it need not look up its node
                meta(doc).setdefault("annotations", {})[SIMULATED] = "true"
            _set_condition(doc, {"type": "PodScheduled", "status": "True"})

        # Past validation: this is what the `binding` subresource does. The change itself takes the room on the node, see `_noticed`.
        self.client.objects.modify(self.client.kinds.named("Pod"), namespace_of(pod), name_of(pod), change)
        self.client.event(pod, "Normal", "Scheduled", f"Successfully assigned {namespace_of(pod)}/{name_of(pod)} to {node}", COMPONENT)

    def _refuse(self, pod: Doc, waiting: Waiting, message: str) -> None:
        wanted = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        known: Doc = next((item for item in at(pod, "status.conditions", []) if item["type"] == "PodScheduled"), {})
        if wanted.items() - known.items():
            self.client.modify("Pod", namespace_of(pod), name_of(pod), lambda doc: _set_condition(doc, wanted), subresource="status")
        if waiting.told != message or time.monotonic() - waiting.told_at > _REPEAT:
            waiting.told, waiting.told_at = message, time.monotonic()
            self.client.event(pod, "Warning", "FailedScheduling", message, COMPONENT)


def _waits(pod: Doc) -> bool:
    spec = pod["spec"]
    return (
        not spec.get("nodeName")
        and not meta(pod).get("deletionTimestamp")
        and (spec.get("schedulerName") or COMPONENT) in (COMPONENT, *STANDS_IN_FOR)
        and not spec.get("schedulingGates")
        and at(pod, "status.phase") not in ("Succeeded", "Failed")
    )


def _offer(node: Doc) -> tuple[object, ...]:
    """What of a node matters to pods that look for one."""
    return labels_of(node), node.get("spec"), at(node, "status.allocatable", {})


def _alike(pod: Doc) -> str:
    spec = pod["spec"]
    affinity = spec.get("affinity") or {}
    if affinity.get("podAffinity") or affinity.get("podAntiAffinity") or spec.get("resourceClaims"):
        return ""
    sizes = [
        [each.get("resources"), each.get("restartPolicy")] for each in [*spec["containers"], *(spec.get("initContainers") or [])]
    ]  # how they add up depends on their order and kind, so equal lists are equal needs
    parts = [sizes, len(spec["containers"]), spec.get("overhead"), spec.get("nodeSelector"), affinity, spec.get("tolerations")]
    return json.dumps(parts, sort_keys=True)


def _set_condition(doc: Doc, wanted: Doc) -> None:
    status = doc.setdefault("status", {})
    conditions = status.setdefault("conditions", [])
    old = next((item for item in conditions if item["type"] == wanted["type"]), None)
    same = old is not None and old["status"] == wanted["status"]
    stamp = old["lastTransitionTime"] if old is not None and same else now()
    new = {**wanted, "lastProbeTime": None, "lastTransitionTime": stamp}
    status["conditions"] = [new if item is old else item for item in conditions] if old is not None else [*conditions, new]
