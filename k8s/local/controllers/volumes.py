"""Claims and volumes: every claim of a class of ours gets a directory of this machine, kept until the claim goes."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from k8s.local.client import Change
from k8s.local.controllers.base import Controller, Key, terminating
from k8s.local.documents import Doc, at, meta, name_of, namespace_of
from k8s.local.errors import StatusError
from k8s.local.quantity import parse
from k8s.local.scheduler import SELECTED_NODE, claims_of, selector_matches

if TYPE_CHECKING:
    from collections.abc import Iterable

    from k8s.local.client import Client

PROVISIONER = "atelier.dev/local-directory"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
PROTECTION, PV_PROTECTION = "kubernetes.io/pvc-protection", "kubernetes.io/pv-protection"
CLASS = "local"


def ensure_class(client: Client) -> None:
    """The default StorageClass, unless there is one of its name."""
    if client.get("StorageClass", None, CLASS) is None:
        others = any((meta(item).get("annotations") or {}).get(DEFAULT_CLASS) == "true" for item in client.list("StorageClass"))
        client.create(
            "StorageClass",
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {"name": CLASS, "annotations": {DEFAULT_CLASS: "false" if others else "true"}},
                "provisioner": PROVISIONER,
                "reclaimPolicy": "Delete",
                "volumeBindingMode": "Immediate",
                "allowVolumeExpansion": True,
            },
        )


class Claims(Controller):
    kind = "PersistentVolumeClaim"
    watched = ("PersistentVolume", "Pod", "StorageClass")
    component = "persistentvolume-controller"

    def __init__(self, client: Client, base: Path) -> None:
        super().__init__(client)
        self.base = base

    def keys(self, change: Change) -> Iterable[Key]:
        if change.kind == "PersistentVolumeClaim":
            if change.type == "DELETED":
                self._release(change.object)
            return [(namespace_of(change.object), name_of(change.object))]
        if change.kind == "Pod":
            return [(namespace_of(change.object), name) for name in claims_of(change.object)]
        if change.kind == "PersistentVolume":
            claim = at(change.object, "spec.claimRef")
            if terminating(change.object):
                self._finish_volume(change.object)
            return [(claim["namespace"], claim["name"])] if claim else self._pending()
        return self._pending()

    def _pending(self) -> list[Key]:
        return [(namespace_of(item), name_of(item)) for item in self.client.list("PersistentVolumeClaim") if at(item, "status.phase") != "Bound"]

    def reconcile(self, namespace: str, name: str) -> float | None:
        claim = self.client.get("PersistentVolumeClaim", namespace, name)
        if claim is None:
            self._make_ephemeral(namespace, name)
            return None
        self._protect(claim)
        if terminating(claim):
            return None
        volume_name = at(claim, "spec.volumeName", "")
        if volume_name:
            self._bound(claim, volume_name)
            return None
        volume = self._find(claim)
        if volume is not None:
            self._bind(claim, volume)
            return None
        self._provision(claim)
        return None

    def _make_ephemeral(self, namespace: str, name: str) -> None:
        """The claim of a pod's generic ephemeral volume, owned by the pod."""
        for pod in self.client.list("Pod", namespace):
            for volume in pod["spec"].get("volumes") or []:
                template = at(volume, "ephemeral.volumeClaimTemplate")
                if template and name == f"{name_of(pod)}-{volume['name']}" and not terminating(pod):
                    owner = {"apiVersion": "v1", "kind": "Pod", "name": name_of(pod), "uid": meta(pod)["uid"], "controller": True, "blockOwnerDeletion": True}
                    metadata = {**(template.get("metadata") or {}), "name": name, "namespace": namespace, "ownerReferences": [owner]}
                    document = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": dict(template["spec"])}
                    self.client.create("PersistentVolumeClaim", document)

    # --- protection ---

    def _users(self, claim: Doc) -> list[str]:
        return [
            name_of(pod)
            for pod in self.client.list("Pod", namespace_of(claim))
            if name_of(claim) in claims_of(pod) and pod["spec"].get("nodeName") and at(pod, "status.phase") not in ("Succeeded", "Failed")
        ]

    def _protect(self, claim: Doc) -> None:
        """A claim in use waits with going; the finalizer says so."""
        has = PROTECTION in (meta(claim).get("finalizers") or [])
        wants = not terminating(claim) or bool(self._users(claim))
        if has == wants or (wants and terminating(claim)):
            return

        def change(doc: Doc) -> None:
            others = [item for item in meta(doc).get("finalizers") or [] if item != PROTECTION]
            found = [*others, PROTECTION] if wants else others
            meta(doc)["finalizers"] = found
            if not found:
                del meta(doc)["finalizers"]

        self.client.modify("PersistentVolumeClaim", namespace_of(claim), name_of(claim), change)

    # --- binding ---

    def _class(self, claim: Doc) -> Doc | None:
        name = at(claim, "spec.storageClassName")
        if name is not None:
            return self.client.get("StorageClass", None, name) if name else None
        for item in self.client.list("StorageClass"):
            if (meta(item).get("annotations") or {}).get(DEFAULT_CLASS) == "true":
                return item
        return None

    def _find(self, claim: Doc) -> Doc | None:
        """A volume that someone made by hand and that fits."""
        wanted = parse(at(claim, "spec.resources.requests.storage", "0"))
        modes = set(at(claim, "spec.accessModes", []))
        fitting = []
        for volume in self.client.list("PersistentVolume"):
            spec = volume["spec"]
            holder = spec.get("claimRef")
            if holder and (holder.get("namespace"), holder.get("name")) != (namespace_of(claim), name_of(claim)):
                continue
            if holder and holder.get("uid") and holder["uid"] != meta(claim)["uid"]:
                continue
            same_class = (spec.get("storageClassName") or "") == (at(claim, "spec.storageClassName") or "")
            selector = at(claim, "spec.selector")
            if selector is not None and not selector_matches(meta(volume).get("labels") or {}, selector):
                continue
            if same_class and parse(spec["capacity"]["storage"]) >= wanted and modes <= set(spec.get("accessModes") or []) and not terminating(volume):
                fitting.append(volume)
        return min(fitting, key=lambda item: (not item["spec"].get("claimRef"), parse(item["spec"]["capacity"]["storage"])), default=None)

    def _provision(self, claim: Doc) -> None:
        found = self._class(claim)
        if found is None or found.get("provisioner") != PROVISIONER:
            name = at(claim, "spec.storageClassName", "")
            if found is None and name:
                text = f'storageclass.storage.k8s.io "{name}" not found'
                self.client.event(claim, "Warning", "ProvisioningFailed", text, self.component)
            elif found is None:
                text = "no persistent volumes available for this claim and no storage class is set"
                self.client.event(claim, "Normal", "FailedBinding", text, self.component)
            self._phase(claim, {"phase": "Pending"})
            return
        if found.get("volumeBindingMode") == "WaitForFirstConsumer" and SELECTED_NODE not in (meta(claim).get("annotations") or {}):
            self._phase(claim, {"phase": "Pending"})
            self.client.event(claim, "Normal", "WaitForFirstConsumer", "waiting for first consumer to be created before binding", self.component)
            return
        name = f"pvc-{meta(claim)['uid']}"
        path = self.base / name
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        volume = self.client.get("PersistentVolume", None, name) or self.client.create("PersistentVolume", self._volume(claim, found, name, path))
        text = f"Successfully provisioned volume {name}"
        self.client.event(claim, "Normal", "ProvisioningSucceeded", text, PROVISIONER)
        self._bind(claim, volume)

    def _volume(self, claim: Doc, found: Doc, name: str, path: Path) -> Doc:
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}, "finalizers": [PV_PROTECTION]},
            "spec": {
                "capacity": {"storage": at(claim, "spec.resources.requests.storage", "1Gi")},
                "accessModes": at(claim, "spec.accessModes", ["ReadWriteOnce"]),
                "persistentVolumeReclaimPolicy": found.get("reclaimPolicy") or "Delete",
                "storageClassName": name_of(found),
                "volumeMode": at(claim, "spec.volumeMode", "Filesystem"),
                "hostPath": {"path": str(path), "type": "DirectoryOrCreate"},
                "claimRef": _claim_reference(claim),
            },
        }

    def _bind(self, claim: Doc, volume: Doc) -> None:
        name = name_of(volume)
        self.client.modify("PersistentVolume", None, name, lambda doc: doc["spec"].update(claimRef=_claim_reference(claim)))

        def change(doc: Doc) -> None:
            doc["spec"]["volumeName"] = name
            doc["spec"].setdefault("storageClassName", volume["spec"].get("storageClassName") or "")
            meta(doc).setdefault("annotations", {}).update({"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"})

        self.client.objects.modify(self.client.kinds.named("PersistentVolumeClaim"), namespace_of(claim), name_of(claim), change)
        self._bound(self.client.get("PersistentVolumeClaim", namespace_of(claim), name_of(claim)) or claim, name)

    def _bound(self, claim: Doc, name: str) -> None:
        volume = self.client.get("PersistentVolume", None, name)
        if volume is None:
            if at(claim, "status.phase") == "Bound":
                self._phase(claim, {"phase": "Lost"})
            return
        holder = at(volume, "spec.claimRef", {})
        if holder and holder.get("uid") not in (None, meta(claim)["uid"]):
            return  # another claim has it
        if not holder:
            self.client.modify("PersistentVolume", None, name, lambda doc: doc["spec"].update(claimRef=_claim_reference(claim)))
        asked, has = at(claim, "spec.resources.requests.storage", "0"), volume["spec"]["capacity"]["storage"]
        ours = at(volume, "metadata.annotations", {}).get("pv.kubernetes.io/provisioned-by") == PROVISIONER
        if ours and parse(asked) > parse(has):  # a directory grows by itself
            self.client.modify("PersistentVolume", None, name, lambda doc: doc["spec"]["capacity"].update(storage=asked))
            has = asked
        self.client.modify("PersistentVolume", None, name, lambda doc: doc.update(status={"phase": "Bound"}), subresource="status")
        self._phase(claim, {"phase": "Bound", "accessModes": volume["spec"]["accessModes"], "capacity": {"storage": has}})

    def _phase(self, claim: Doc, status: Doc) -> None:
        self.set_status(claim, status)

    # --- the end ---

    def _release(self, claim: Doc) -> None:
        name = at(claim, "spec.volumeName", "")
        volume = self.client.get("PersistentVolume", None, name) if name else None
        if volume is None or at(volume, "spec.claimRef.uid") not in (None, meta(claim)["uid"]):
            return
        if volume["spec"].get("persistentVolumeReclaimPolicy") != "Delete" or at(volume, "metadata.annotations", {}).get("pv.kubernetes.io/provisioned-by") != (
            PROVISIONER
        ):
            self.client.modify("PersistentVolume", None, name, lambda doc: doc.update(status={"phase": "Released"}), subresource="status")
            return
        self._remove_directory(volume)
        with contextlib.suppress(StatusError):
            self.client.delete("PersistentVolume", None, name)
        gone = self.client.get("PersistentVolume", None, name)
        if gone is not None:
            self._finish_volume(gone)

    def _finish_volume(self, volume: Doc) -> None:
        """Lets a deleted volume go once no claim holds it."""
        holder = at(volume, "spec.claimRef", {})
        claim = self.client.get("PersistentVolumeClaim", holder.get("namespace", ""), holder.get("name", "")) if holder else None
        if claim is not None and meta(claim)["uid"] == holder.get("uid"):
            return

        def change(doc: Doc) -> None:
            meta(doc)["finalizers"] = [item for item in meta(doc).get("finalizers") or [] if item != PV_PROTECTION]

        self.client.modify("PersistentVolume", None, name_of(volume), change)

    def _remove_directory(self, volume: Doc) -> None:
        path = Path(at(volume, "spec.hostPath.path", ""))
        if path.parent == self.base:  # never anything but what was made here
            shutil.rmtree(path, ignore_errors=True)

    def remove_leftovers(self) -> None:
        """After a restart: volumes of ours whose claim went while nobody watched."""
        for volume in self.client.list("PersistentVolume"):
            holder = at(volume, "spec.claimRef", {})
            claim = self.client.get("PersistentVolumeClaim", holder.get("namespace", ""), holder.get("name", "")) if holder else None
            if holder and (claim is None or meta(claim)["uid"] != holder.get("uid")):
                ghost = {"metadata": {"uid": holder.get("uid")}, "spec": {"volumeName": name_of(volume)}}
                self._release(ghost)


def _claim_reference(claim: Doc) -> Doc:
    return {
        "kind": "PersistentVolumeClaim",
        "apiVersion": "v1",
        "namespace": namespace_of(claim),
        "name": name_of(claim),
        "uid": meta(claim)["uid"],
        "resourceVersion": meta(claim)["resourceVersion"],
    }
