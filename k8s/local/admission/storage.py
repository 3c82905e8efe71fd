"""DefaultStorageClass and StorageObjectInUseProtection."""

from __future__ import annotations

from ..documents import Doc, meta, name_of
from ..store import Store

DEFAULT = "storageclass.kubernetes.io/is-default-class"
IN_USE = "kubernetes.io/pvc-protection"


def default_class(store: Store, claim: Doc) -> None:
    spec = claim["spec"]
    finalizers = claim["metadata"].setdefault("finalizers", [])
    if IN_USE not in finalizers:
        finalizers.append(IN_USE)
    if "storageClassName" in spec or "volume.beta.kubernetes.io/storage-class" in (meta(claim).get("annotations") or {}):
        return
    defaults = [each for each in store.docs("storageclasses.storage.k8s.io") if (meta(each).get("annotations") or {}).get(DEFAULT) == "true"]
    if defaults:
        # The newest wins, as it does in a real cluster.
        spec["storageClassName"] = name_of(max(defaults, key=lambda each: (meta(each)["creationTimestamp"], int(meta(each)["resourceVersion"]))))
