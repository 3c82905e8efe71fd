"""ResourceClaims of pods: made from their templates, removed when the pod has ended."""

from __future__ import annotations

import secrets

from k8s.local.allocation import claim_of
from k8s.local.controllers.base import Controller, ended, terminating
from k8s.local.documents import at, meta, name_of, namespace_of
from k8s.local.errors import StatusError

_RETRY = 2.0


class PodClaims(Controller):
    kind = "Pod"
    watched = ("ResourceClaim",)
    component = "resource-claim-controller"

    def reconcile(self, namespace: str, name: str) -> float | None:
        pod = self.client.get("Pod", namespace, name)
        if pod is None or not pod["spec"].get("resourceClaims"):
            return None
        mine = [
            claim
            for claim in self.client.list("ResourceClaim", namespace)
            if any(owner.get("uid") == meta(pod)["uid"] for owner in meta(claim).get("ownerReferences") or ())
        ]
        if ended(pod):
            for claim in mine:
                self.client.delete("ResourceClaim", namespace, name_of(claim))
            return None
        if terminating(pod):
            return None
        made = {meta(claim)["annotations"]["resource.kubernetes.io/pod-claim-name"]: name_of(claim) for claim in mine}
        for entry in pod["spec"]["resourceClaims"]:
            template_name = entry.get("resourceClaimTemplateName")
            if not template_name or entry["name"] in made:
                continue
            template = self.client.get("ResourceClaimTemplate", namespace, template_name)
            if template is None:
                self.client.event(pod, "Warning", "FailedResourceClaimCreation", f'resourceclaimtemplate "{template_name}" not found', self.component)
                return _RETRY
            letters = "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(5))
            claim = claim_of(pod, entry, template, f"{name}-{entry['name']}-{letters}")
            try:
                made[entry["name"]] = name_of(self.client.create("ResourceClaim", claim))
            except StatusError as error:
                self.client.event(pod, "Warning", "FailedResourceClaimCreation", f"PodResourceClaim {entry['name']}: {error.message}", self.component)
                return _RETRY
        statuses = [{"name": key, "resourceClaimName": value} for key, value in sorted(made.items())]
        if statuses != at(pod, "status.resourceClaimStatuses", []):
            told = {"resourceClaimStatuses": statuses}
            self.client.modify("Pod", namespace_of(pod), name, lambda doc: doc.setdefault("status", {}).update(told), subresource="status")
        return None
