"""PersistentVolumeClaims, PersistentVolumes, StorageClasses."""

from __future__ import annotations

from collections.abc import Iterator

from .. import quantity
from ..documents import Doc, at, clone
from ..errors import Cause, forbidden_field, invalid_value, not_supported, required

_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_NOT_AFTER_CREATION = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
)  # fmt: skip


def claim(doc: Doc) -> Iterator[Cause]:
    yield from claim_spec(doc.get("spec") or {}, "spec")


def claim_spec(spec: Doc, path: str) -> Iterator[Cause]:
    modes = spec.get("accessModes") or []
    if not modes:
        yield required(f"{path}.accessModes", "at least 1 access mode is required")
    for mode in modes:
        if mode not in _MODES:
            yield not_supported(f"{path}.accessModes", mode, _MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        yield forbidden_field(f"{path}.accessModes", "may not use ReadWriteOncePod with other access modes")
    size = at(spec, "resources.requests.storage")
    if size is None:
        yield required(f"{path}.resources[storage]")
    elif quantity.parse(size) <= 0:
        yield invalid_value(f"{path}.resources[storage]", size, "must be greater than zero")
    if spec.get("volumeMode") not in {None, "Block", "Filesystem"}:
        yield not_supported(f"{path}.volumeMode", spec["volumeMode"], ("Block", "Filesystem"))


def claim_update(doc: Doc, old: Doc) -> Iterator[Cause]:
    new, was = clone(doc["spec"]), clone(old["spec"])
    size, before = at(new, "resources.requests.storage", "0"), at(was, "resources.requests.storage", "0")
    for spec in (new, was):
        (spec.get("resources") or {}).pop("requests", None)
        spec.pop("volumeAttributesClassName", None)
        # Filled in once: by the binder, and by the default class.
    for key in ("volumeName", "storageClassName"):
        if key not in was or not was.get(key):
            new.pop(key, None)
            was.pop(key, None)
    if new != was:
        yield forbidden_field("spec", _NOT_AFTER_CREATION)
    if quantity.parse(size) < quantity.parse(before):
        yield forbidden_field("spec.resources.requests.storage", "field can not be less than status.capacity")
    elif quantity.parse(size) > quantity.parse(before) and at(old, "status.phase") != "Bound":
        yield forbidden_field("spec", _NOT_AFTER_CREATION)


def volume(doc: Doc) -> Iterator[Cause]:
    spec = doc.get("spec") or {}
    if not spec.get("accessModes"):
        yield required("spec.accessModes")
    for mode in spec.get("accessModes") or ():
        if mode not in _MODES:
            yield not_supported("spec.accessModes", mode, _MODES)
    if not spec.get("capacity"):
        yield required("spec.capacity")
    elif "storage" not in spec["capacity"]:
        yield not_supported("spec.capacity", ", ".join(spec["capacity"]), ("storage",))
    sources = [key for key in spec if key in _SOURCES]
    if not sources:
        yield required("spec", "must specify a volume type")
    if "hostPath" in spec and not spec["hostPath"].get("path"):
        yield required("spec.hostPath.path")
    if spec.get("persistentVolumeReclaimPolicy") not in {"Retain", "Delete", "Recycle"}:
        yield not_supported("spec.persistentVolumeReclaimPolicy", spec.get("persistentVolumeReclaimPolicy"), ("Delete", "Recycle", "Retain"))


_SOURCES = {"hostPath", "local", "nfs", "csi", "iscsi", "fc", "rbd", "cephfs", "cinder", "awsElasticBlockStore", "gcePersistentDisk", "azureDisk", "azureFile",
            "glusterfs", "flexVolume", "flocker", "portworxVolume", "photonPersistentDisk", "quobyte", "scaleIO", "storageos", "vsphereVolume"}  # fmt: skip


def storage_class(doc: Doc) -> Iterator[Cause]:
    if not doc.get("provisioner"):
        yield required("provisioner")
    if doc.get("reclaimPolicy") not in {"Delete", "Retain"}:
        yield not_supported("reclaimPolicy", doc.get("reclaimPolicy"), ("Delete", "Retain"))
    if doc.get("volumeBindingMode") not in {"Immediate", "WaitForFirstConsumer"}:
        yield not_supported("volumeBindingMode", doc.get("volumeBindingMode"), ("Immediate", "WaitForFirstConsumer"))


def storage_class_update(doc: Doc, old: Doc) -> Iterator[Cause]:
    for key in ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"):
        if doc.get(key) != old.get(key):
            yield forbidden_field(key, f"updates to {key} are forbidden.")
