"""The status of PodDisruptionBudgets: how many of their pods may be evicted now."""

from __future__ import annotations

from collections.abc import Iterable

from k8s.local.client import Change
from k8s.local.controllers.base import Controller, Key, ended, is_ready, terminating
from k8s.local.documents import at, labels_of, meta, name_of, namespace_of
from k8s.local.scheduler import selector_matches
from k8s.local.subresources import desired


class DisruptionBudgets(Controller):
    kind = "PodDisruptionBudget"
    watched = ("Pod",)
    component = "controllermanager"

    def keys(self, change: Change) -> Iterable[Key]:
        if change.kind == self.kind:
            return [(namespace_of(change.object), name_of(change.object))]
        return [(namespace_of(item), name_of(item)) for item in self.client.list(self.kind, namespace_of(change.object))]

    def reconcile(self, namespace: str, name: str) -> float | None:
        document = self.client.get(self.kind, namespace, name)
        if document is None or terminating(document):
            return None
        selector = at(document, "spec.selector")
        pods = [pod for pod in self.client.list("Pod", namespace) if not ended(pod) and selector_matches(labels_of(pod), selector)]
        healthy = sum(is_ready(pod) and not terminating(pod) for pod in pods)
        wanted = desired(document["spec"], len(pods))
        self.set_status(
            document,
            {
                "currentHealthy": healthy,
                "desiredHealthy": wanted,
                "disruptionsAllowed": max(0, healthy - wanted),
                "expectedPods": len(pods),
                "observedGeneration": meta(document).get("generation"),
            },
        )
        return None
