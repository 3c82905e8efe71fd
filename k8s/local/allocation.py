"""Dynamic Resource Allocation, the simple part: claims of an exact count of a class' devices on one node. What is left out is in docs/embedded-cluster.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from k8s import cel

from .client import Client
from .documents import Doc, at, meta, name_of, namespace_of
from .errors import StatusError

Device = tuple[str, str, str]  # driver, pool, name


class Claims:
    """The claims of one pod that waits for a node."""

    def __init__(self, client: Client, pod: Doc) -> None:
        self.client = client
        self.names = {each["name"]: each.get("resourceClaimName") for each in pod["spec"].get("resourceClaims") or ()}
        self.names |= {each["name"]: each.get("resourceClaimName") for each in at(pod, "status.resourceClaimStatuses", [])}
        self.pod = pod
        self.found: list[Doc] = []

    def why_not(self) -> str:
        """Why no node can be looked for yet; empty when one can."""
        for name, claim_name in self.names.items():
            if not claim_name:
                return f"waiting for a ResourceClaim to be made for {name}"
            claim = self.client.get("ResourceClaim", namespace_of(self.pod), claim_name)
            if claim is None or meta(claim).get("deletionTimestamp"):
                return f'resourceclaim "{claim_name}" not found'
            holders = at(claim, "status.reservedFor", [])
            if holders and all(each.get("uid") != meta(self.pod)["uid"] for each in holders):
                return f'resourceclaim "{claim_name}" is in use'
            for request in at(claim, "spec.devices.requests", []):
                exactly = request.get("exactly")
                if not exactly or exactly.get("allocationMode", "ExactCount") != "ExactCount" or at(claim, "spec.devices.constraints", []):
                    return f'resourceclaim "{claim_name}": this cluster only allocates an exact count of a class, without constraints'
                if self.client.get("DeviceClass", None, exactly["deviceClassName"]) is None:
                    return f"request {request['name']}: device class {exactly['deviceClassName']} does not exist"
            self.found.append(claim)
        return ""

    def on(self, node: str) -> dict[str, list[Doc]] | None:
        """Devices for each claim on a node, by the claim's name; None when they do not suffice. Raises cel.Unsupported."""
        taken = self._taken()
        chosen: dict[str, list[Doc]] = {}
        for claim in self.found:
            before = at(claim, "status.allocation")
            if before:
                fields = [field for term in at(before, "nodeSelector.nodeSelectorTerms", []) for field in term["matchFields"]]
                if not any(node in field["values"] for field in fields):
                    return None
                continue
            results = chosen[name_of(claim)] = []
            for request in at(claim, "spec.devices.requests", []):
                wanted = int(request["exactly"].get("count", 1))
                free = [one for one in self._selected(node, request["exactly"]) if one not in taken]
                if len(free) < wanted:
                    return None
                for driver, pool, device in free[:wanted]:
                    taken.add((driver, pool, device))
                    results.append({"request": request["name"], "driver": driver, "pool": pool, "device": device})
        return chosen

    def reserve(self, node: str, chosen: Mapping[str, list[Doc]]) -> None:
        """Write down what was chosen, and for whom."""
        holder = {"resource": "pods", "name": name_of(self.pod), "uid": meta(self.pod)["uid"]}
        terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]

        def change(doc: Doc) -> None:
            status = doc.setdefault("status", {})
            if name_of(doc) in chosen:
                status["allocation"] = {"devices": {"results": chosen[name_of(doc)]}, "nodeSelector": {"nodeSelectorTerms": terms}}
            status["reservedFor"] = [holder]

        for claim in self.found:
            self.client.modify("ResourceClaim", namespace_of(claim), name_of(claim), change, subresource="status")

    def _taken(self) -> set[Device]:
        results = [result for claim in self.client.list("ResourceClaim") for result in at(claim, "status.allocation.devices.results", [])]
        return {(each["driver"], each["pool"], each["device"]) for each in results}

    def _selected(self, node: str, exactly: Mapping[str, Any]) -> Iterable[Device]:
        device_class = self.client.get("DeviceClass", None, exactly["deviceClassName"]) or {}
        for item in self.client.list("ResourceSlice"):
            spec = item["spec"]
            if spec.get("nodeName") == node:
                for device in spec.get("devices") or ():
                    if cel.selects(device_class.get("spec") or {}, spec["driver"], device) and cel.selects(exactly, spec["driver"], device):
                        yield spec["driver"], at(spec, "pool.name", ""), device["name"]


def place(client: Client, pod: Doc, nodes: Iterable[str]) -> tuple[Claims, dict[str, dict[str, list[Doc]]], str]:
    """The pod's claims, the nodes that have what they ask for with what it would be, and why there is none."""
    claims = Claims(client, pod)
    why = claims.why_not()
    if why:
        return claims, {}, why
    try:
        fitting = {node: chosen for node in nodes if (chosen := claims.on(node)) is not None}
    except cel.Unsupported as error:
        return claims, {}, f"this cluster does not understand a selector: {error}"
    return claims, fitting, "" if fitting else "cannot allocate all claims"


def claim_of(pod: Doc, entry: Mapping[str, Any], template: Doc, name: str) -> Doc:
    """The claim that a pod gets of a template: its own, and gone with it."""
    given = template["spec"].get("metadata") or {}
    annotations = {**(given.get("annotations") or {}), "resource.kubernetes.io/pod-claim-name": entry["name"]}
    owner = {"apiVersion": "v1", "kind": "Pod", "name": name_of(pod), "uid": meta(pod)["uid"], "controller": True, "blockOwnerDeletion": True}
    metadata = {"name": name, "namespace": namespace_of(pod), "labels": dict(given.get("labels") or {}), "annotations": annotations, "ownerReferences": [owner]}
    return {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": metadata, "spec": template["spec"]["spec"]}


def publish(client: Client, node: str, devices: Mapping[str, Mapping[str, Any]]) -> None:
    """The ResourceSlices of a node, as its drivers would publish them; those it no longer has go."""
    wanted = {f"{node}-{driver.replace('.', '-')}": (driver, given) for driver, given in devices.items()}
    for item in client.list("ResourceSlice"):
        if item["spec"].get("nodeName") == node and name_of(item) not in wanted:
            client.delete("ResourceSlice", None, name_of(item))
    for name, (driver, given) in wanted.items():
        listed = [
            {
                "name": f"{given.get('prefix', 'device')}-{index}",
                "attributes": {key: {"string": str(value)} for key, value in (given.get("attributes") or {}).items()},
                "capacity": {key: {"value": str(value)} for key, value in (given.get("capacity") or {}).items()},
            }
            for index in range(int(given.get("count", 1)))
        ]
        spec = {"driver": driver, "nodeName": node, "pool": {"name": node, "generation": 1, "resourceSliceCount": 1}, "devices": listed}
        if client.get("ResourceSlice", None, name) is None:
            client.create("ResourceSlice", {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": name}, "spec": spec})
        else:
            client.modify("ResourceSlice", None, name, lambda doc, spec=spec: doc.update(spec=spec))  # type: ignore[misc]


def publish_classes(client: Client, classes: Mapping[str, str]) -> None:
    """DeviceClasses, by name with the expression that selects their devices. Those that are there stay as they are."""
    for name, expression in classes.items():
        if client.get("DeviceClass", None, name) is None:
            spec = {"selectors": [{"cel": {"expression": expression}}]}
            try:
                client.create("DeviceClass", {"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": name}, "spec": spec})
            except StatusError as error:
                raise ValueError(f"device class {name}: {error.message}") from error
