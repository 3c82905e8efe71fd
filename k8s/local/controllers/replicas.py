"""ReplicaSets and Deployments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from k8s.local.controllers.base import (
    Controller,
    available_in,
    condition,
    controller_of,
    ended,
    is_ready,
    pod_from,
    reference,
    template_hash,
    terminating,
)
from k8s.local.documents import Doc, at, clone, meta, name_of, namespace_of, now
from k8s.local.errors import StatusError

HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
_BURST = 50  # pods made or ended in one step


def deletion_order(pod: Doc) -> tuple[Any, ...]:
    """Which pod had best go first: one without a node, one that has not started, one that is not ready, the youngest."""
    phases = {"Pending": 0, "Unknown": 1, "Running": 2}
    created = meta(pod).get("creationTimestamp", "")
    return (
        bool(pod["spec"].get("nodeName")),
        phases.get(at(pod, "status.phase", "Pending"), 0),
        is_ready(pod),
        [-ord(letter) for letter in created],
    )


class ReplicaSets(Controller):
    kind = "ReplicaSet"
    watched = ("Pod",)
    component = "replicaset-controller"

    def reconcile(self, namespace: str, name: str) -> float | None:
        document = self.client.get("ReplicaSet", namespace, name)
        if document is None:
            return None
        everything = self.pods_of(document)
        pods = [pod for pod in everything if not terminating(pod) and not ended(pod)]
        if not terminating(document):
            wanted = int(document["spec"].get("replicas", 1))
            try:
                for _ in range(min(max(0, wanted - len(pods)), _BURST)):
                    made = self.create_pod(document, pod_from(document, document["spec"]["template"]))
                    pods = [*pods, made]
                for pod in sorted(pods, key=deletion_order)[: max(0, len(pods) - wanted)]:
                    self.delete_pod(document, pod)
                    pods.remove(pod)
            except StatusError as error:
                self._write_status(document, pods, error)
                raise
        return self._write_status(document, pods, None)

    def _write_status(self, document: Doc, pods: list[Doc], error: StatusError | None) -> float | None:
        left = [available_in(pod, float(document["spec"].get("minReadySeconds") or 0)) for pod in pods]
        labels = at(document, "spec.template.metadata.labels", {})
        conditions = [item for item in at(document, "status.conditions", []) if item["type"] != "ReplicaFailure"]
        if error is not None:
            conditions = condition(at(document, "status.conditions", []), "ReplicaFailure", "True", "FailedCreate", error.message)
        self.set_status(
            document,
            {
                "replicas": len(pods),
                "fullyLabeledReplicas": sum(labels.items() <= (meta(pod).get("labels") or {}).items() for pod in pods),
                "readyReplicas": sum(map(is_ready, pods)),
                "availableReplicas": sum(item == 0.0 for item in left),
                "observedGeneration": meta(document).get("generation"),
                "conditions": conditions or None,
            },
        )
        return min((item for item in left if item), default=None)


@dataclass(frozen=True)
class Bounds:
    """How many pods there may be in all, and how many must be available, while a Deployment changes over."""

    most: int
    least: int


def bounds(spec: Doc) -> Bounds:
    replicas = int(spec.get("replicas", 1))
    rolling = at(spec, "strategy.rollingUpdate", {})
    surge = _part(rolling.get("maxSurge", "25%"), replicas, up=True)
    missing = _part(rolling.get("maxUnavailable", "25%"), replicas, up=False)
    if surge == 0 and missing == 0:
        missing = 1
    return Bounds(replicas + surge, replicas - min(missing, replicas))


def _part(value: Any, replicas: int, *, up: bool) -> int:
    if isinstance(value, str) and value.endswith("%"):
        exact = replicas * int(value[:-1]) / 100
        return math.ceil(exact) if up else math.floor(exact)
    return int(value)


class Deployments(Controller):
    kind = "Deployment"
    watched = ("ReplicaSet",)
    component = "deployment-controller"

    def reconcile(self, namespace: str, name: str) -> float | None:
        document = self.client.get("Deployment", namespace, name)
        if document is None or terminating(document):
            return None
        sets = [item for item in self.client.list("ReplicaSet", namespace) if (controller_of(item) or {}).get("uid") == meta(document)["uid"]]
        stable = template_hash({"template": document["spec"]["template"]})
        new = next((item for item in sets if (meta(item).get("labels") or {}).get(HASH) == stable), None)
        old = [item for item in sets if item is not new]
        if document["spec"].get("paused") and new is None:
            self._write_status(document, new, old)
            return None
        if new is None:
            recreate = at(document, "spec.strategy.type") == "Recreate"
            if recreate and any(at(item, "status.replicas", 0) or item["spec"].get("replicas") for item in old):
                for item in old:
                    self._scale(document, item, 0)
                self._write_status(document, None, old)
                return None
            new = self._create_set(document, stable, old)
        self._number(document, new, old)
        self._move(document, new, old)
        self._clean(document, old)
        self._write_status(document, self.client.get("ReplicaSet", namespace, name_of(new)), old)
        return None

    def _create_set(self, document: Doc, stable: str, old: list[Doc]) -> Doc:
        spec = document["spec"]
        template = clone(spec["template"])
        template.setdefault("metadata", {}).setdefault("labels", {})[HASH] = stable
        selector = clone(spec["selector"])
        selector.setdefault("matchLabels", {})[HASH] = stable
        room = bounds(spec).most - sum(int(item["spec"].get("replicas") or 0) for item in old)
        replicas = int(spec.get("replicas", 1))
        made: Doc = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"{name_of(document)}-{stable}",
                "namespace": namespace_of(document),
                "labels": {**(at(spec, "template.metadata.labels", {})), HASH: stable},
                "annotations": {REVISION: str(_last_revision(old) + 1)},
                "ownerReferences": [reference(document)],
            },
            "spec": {
                "replicas": max(0, min(replicas, room)) if old else replicas,
                "selector": selector,
                "template": template,
                "minReadySeconds": spec.get("minReadySeconds", 0),
            },
        }
        found = self.client.create("ReplicaSet", made)
        text = f"Scaled up replica set {name_of(found)} from 0 to {found['spec']['replicas']}"
        self.client.event(document, "Normal", "ScalingReplicaSet", text, self.component)
        return found

    def _number(self, document: Doc, new: Doc, old: list[Doc]) -> None:
        """The newest set bears the highest revision, also when an old template came back."""
        mine, last = int((meta(new).get("annotations") or {}).get(REVISION, 0)), _last_revision(old)
        if mine <= last:
            mine = last + 1
            self.client.modify("ReplicaSet", namespace_of(new), name_of(new), lambda doc: meta(doc).setdefault("annotations", {}).update({REVISION: str(mine)}))
        self.client.modify(
            "Deployment", namespace_of(document), name_of(document), lambda doc: meta(doc).setdefault("annotations", {}).update({REVISION: str(mine)})
        )

    def _move(self, document: Doc, new: Doc, old: list[Doc]) -> None:
        """One step from the old sets to the new one, within the bounds."""
        spec = document["spec"]
        replicas, limit = int(spec.get("replicas", 1)), bounds(spec)
        active = [item for item in old if int(item["spec"].get("replicas") or 0)]
        have = int(new["spec"].get("replicas") or 0)
        if not active or have > replicas:
            self._scale(document, new, replicas)
            if not active:
                return
        total = have + sum(int(item["spec"]["replicas"]) for item in active)
        if have < replicas and total < limit.most:
            self._scale(document, new, min(replicas, have + limit.most - total))
        # Old pods that are not available may always go; others as many as there are new ones to spare.
        spare = sum(map(_available, [new, *active])) - limit.least
        for item in sorted(active, key=lambda each: meta(each)["creationTimestamp"]):
            size, ready = int(item["spec"]["replicas"]), _available(item)
            gone = min(size, max(0, size - ready) + max(0, min(spare, ready)))
            spare -= max(0, gone - (size - ready))
            if gone:
                self._scale(document, item, size - gone)

    def _scale(self, document: Doc, item: Doc, replicas: int) -> None:
        was = int(item["spec"].get("replicas") or 0)
        if was == replicas:
            return
        self.client.modify("ReplicaSet", namespace_of(item), name_of(item), lambda doc: doc["spec"].update(replicas=replicas))
        text = f"Scaled {'up' if replicas > was else 'down'} replica set {name_of(item)} from {was} to {replicas}"
        self.client.event(document, "Normal", "ScalingReplicaSet", text, self.component)

    def _clean(self, document: Doc, old: list[Doc]) -> None:
        limit = document["spec"].get("revisionHistoryLimit", 10)
        idle = [item for item in old if not item["spec"].get("replicas") and not at(item, "status.replicas", 0) and not terminating(item)]
        idle.sort(key=lambda item: int((meta(item).get("annotations") or {}).get(REVISION, 0)))
        for item in idle[: max(0, len(idle) - int(limit))]:
            self.client.delete("ReplicaSet", namespace_of(item), name_of(item))

    def _write_status(self, document: Doc, new: Doc | None, old: list[Doc]) -> None:
        sets = [item for item in [new, *old] if item is not None]

        def total(key: str) -> int:
            return sum(int(at(item, f"status.{key}", 0)) for item in sets)

        spec = document["spec"]
        replicas, available = int(spec.get("replicas", 1)), total("availableReplicas")
        updated = int(at(new, "status.replicas", 0)) if new else 0
        conditions = at(document, "status.conditions", [])
        enough = available >= bounds(spec).least
        text = "Deployment has minimum availability." if enough else "Deployment does not have minimum availability."
        reason = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
        conditions = condition(conditions, "Available", "True" if enough else "False", reason, text, lastUpdateTime=now())
        done = new is not None and updated == replicas and available == replicas and total("replicas") == replicas
        shown = f'ReplicaSet "{name_of(new)}"' if new else "Deployment"
        progress = ("NewReplicaSetAvailable", f"{shown} has successfully progressed.") if done else ("ReplicaSetUpdated", f"{shown} is progressing.")
        conditions = condition(conditions, "Progressing", "True", *progress, lastUpdateTime=now())
        before = at(document, "status.conditions", [])
        if [{**item, "lastUpdateTime": ""} for item in conditions] == [{**item, "lastUpdateTime": ""} for item in before]:
            conditions = before
        self.set_status(
            document,
            {
                "observedGeneration": meta(document).get("generation"),
                "replicas": total("replicas") or None,
                "updatedReplicas": updated or None,
                "readyReplicas": total("readyReplicas") or None,
                "availableReplicas": available or None,
                "unavailableReplicas": max(0, replicas - available) or None,
                "conditions": conditions,
            },
        )


def _available(item: Doc) -> int:
    """Pods to count on: a set that was just told to shrink still reports those that are about to go."""
    return min(int(at(item, "status.availableReplicas", 0)), int(item["spec"].get("replicas") or 0))


def _last_revision(sets: list[Doc]) -> int:
    return max((int((meta(item).get("annotations") or {}).get(REVISION, 0)) for item in sets), default=0)
