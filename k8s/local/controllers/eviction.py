"""Eviction by taints: pods leave a node with a NoExecute taint that they do not tolerate, at once or when their patience ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable

from k8s.local.client import Client
from k8s.local.controllers.base import ended
from k8s.local.controllers.node_lifecycle import disrupt
from k8s.local.documents import Doc, at, meta, name_of, namespace_of, parse_time
from k8s.local.errors import StatusError
from k8s.local.scheduler import tolerates

COMPONENT = "taint-eviction-controller"


def patience(tolerations: Iterable[Doc], taints: Iterable[Doc], now: float) -> float | None:
    """Seconds until a pod must leave: 0 when it tolerates one of the NoExecute taints not at all, None when it may stay for ever.

    Counted from the moment at which a taint was added, so that a restart in between does not begin anew.
    """
    left: list[float] = []
    for taint in taints:
        if taint["effect"] != "NoExecute":
            continue
        matching = [item for item in tolerations if tolerates([item], taint)]
        if not matching:
            return 0.0
        limits = [int(item["tolerationSeconds"]) for item in matching if item.get("tolerationSeconds") is not None]
        if limits:
            since = parse_time(taint["timeAdded"]).timestamp() if taint.get("timeAdded") else now
            left.append(max(0.0, since + min(limits) - now))
    return min(left) if left else None


class TaintEviction:
    def __init__(self, client: Client) -> None:
        self.client = client
        self._due: dict[str, asyncio.TimerHandle] = {}  # by the pod's uid

    async def run(self) -> None:
        try:
            async for change in self.client.changes("Node", "Pod"):
                if change.kind == "Pod":
                    self._consider(change.object, gone=change.type == "DELETED")
                elif change.previous is None or at(change.previous, "spec.taints") != at(change.object, "spec.taints"):
                    for pod in self.client.list("Pod"):
                        if pod["spec"].get("nodeName") == name_of(change.object):
                            self._consider(pod)
        finally:
            for timer in self._due.values():
                timer.cancel()

    def _consider(self, pod: Doc, *, gone: bool = False) -> None:
        uid = meta(pod)["uid"]
        name = pod["spec"].get("nodeName")
        node = None if gone or not name or meta(pod).get("deletionTimestamp") or ended(pod) else self.client.get("Node", None, name)
        left = patience(pod["spec"].get("tolerations") or [], at(node, "spec.taints", []), time.time()) if node is not None else None
        timer = self._due.pop(uid, None)
        if timer is not None:
            timer.cancel()
        if left is not None:
            self._due[uid] = asyncio.get_running_loop().call_later(left, self._expired, namespace_of(pod), name_of(pod), uid)
        elif timer is not None and node is not None:
            self.client.event(pod, "Normal", "TaintManagerEviction", f"Cancelling deletion of Pod {namespace_of(pod)}/{name_of(pod)}", COMPONENT)

    def _expired(self, namespace: str, name: str, uid: str) -> None:
        self._due.pop(uid, None)
        pod = self.client.get("Pod", namespace, name)
        if pod is None or meta(pod)["uid"] != uid or meta(pod).get("deletionTimestamp"):
            return
        self.client.event(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {namespace}/{name}", COMPONENT)
        with contextlib.suppress(StatusError):  # gone meanwhile
            disrupt(self.client, pod, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
            self.client.delete("Pod", namespace, name, uid=uid)
