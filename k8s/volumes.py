"""Storage as Kubernetes objects: what a team's namespace holds for it, and how pods mount it. Pure, as `k8s.manifests`.

Restricted Pod Security forbids nfs volumes in pods, and a CSI volume in a pod cannot take a secret of a storage, so both are static:
a PersistentVolume and a claim bound to each other, for each team. What a volume is made of cannot be changed later; therefore its name holds
a digest of it, and another server, or another right, is another volume. The old one goes when nothing uses it any more.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from . import names
from .spec import EnvironmentSpec, Mount

Document = dict[str, Any]

# Static volumes exist already, so their claims ask for next to nothing: it is the namespace's quota for storage that they would eat.
STATIC_CLAIM_BYTES = 2**20
_SECRET_MODE = 0o440  # root's, and of the pod's fsGroup


@dataclass(frozen=True, kw_only=True)
class TeamStorage:
    """One storage in one team's namespace.

    `source` is the volume source of a PersistentVolume, e.g. {"nfs": {"server", "path"}} or {"csi": {"driver", "volumeAttributes"}}, without what
    depends on the team; empty: it has no volume. `secret_refs`: the CSI calls that get the Secret, e.g. "nodeStage".
    """

    slug: str
    install: str
    team: str
    namespace: str
    read_only: bool
    capacity_bytes: int = 0
    source: Mapping[str, Any] = field(default_factory=dict)
    volume_handle: str = ""  # of CSI; ${name} in it is the volume's name, which is unique; empty: the name
    mount_options: tuple[str, ...] = ()
    secret_refs: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)  # of a ConfigMap
    secret: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # never in a log


@dataclass(frozen=True, kw_only=True)
class SharedClaim:
    """A claim that a team's environments share; its data stays until the claim is purged."""

    slug: str
    install: str
    team: str
    namespace: str
    claim: str
    size_bytes: int
    storage_class: str = ""
    access_mode: str = "ReadWriteMany"


def object_name(slug: str) -> str:
    """Name of a storage's Secret and ConfigMap in a namespace."""
    return f"storage-{names.label_value(slug)}"


def claim_name(storage: TeamStorage) -> str:
    """Name of the claim of a static volume."""
    return f"{object_name(storage.slug)}-{_digest(storage)}"


def volume_name(storage: TeamStorage) -> str:
    """Name of the PersistentVolume: unique in the cluster, over installations, teams and storages."""
    return f"atelier-{storage.install}-{names.label_value(storage.team)}-{names.label_value(storage.slug)}-{_digest(storage)}"


def _digest(storage: TeamStorage) -> str:
    made_of = [storage.namespace, storage.read_only, storage.capacity_bytes, dict(storage.source), storage.volume_handle]
    made_of += [storage.mount_options, storage.secret_refs]
    return sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:8]


def _labels(storage: TeamStorage | SharedClaim) -> dict[str, str]:
    return {
        names.MANAGED_BY: names.MANAGER,
        names.INSTALL: storage.install,
        names.TEAM: names.label_value(storage.team),
        names.STORAGE: names.label_value(storage.slug),
    }


def storage_documents(storage: TeamStorage) -> list[Document]:
    """Everything that the storage needs in the namespace, in the order in which to make it: Secret, ConfigMap, volume, claim."""
    documents = []
    if storage.secret:
        documents.append(secret(storage))
    if storage.files:
        documents.append(config_map(storage))
    if storage.source:
        documents += [persistent_volume(storage), static_claim(storage)]
    return documents


def secret(storage: TeamStorage) -> Document:
    data = {key: b64encode(value).decode() for key, value in sorted(storage.secret.items())}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": _metadata(storage, object_name(storage.slug)), "type": "Opaque", "data": data}


def config_map(storage: TeamStorage) -> Document:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(storage, object_name(storage.slug)), "data": dict(storage.files)}


def persistent_volume(storage: TeamStorage) -> Document:
    """The static volume. It is kept when its claim goes: what is in it belongs to the server, not to us."""
    name = volume_name(storage)
    source = {kind: dict(fields) for kind, fields in storage.source.items()}
    for kind, fields in source.items():
        if kind == "csi":
            fields["volumeHandle"] = (storage.volume_handle or "${name}").replace("${name}", name)
            for call in storage.secret_refs:
                fields[f"{call}SecretRef"] = {"name": object_name(storage.slug), "namespace": storage.namespace}
        if storage.read_only:
            fields["readOnly"] = True
    body: Document = {
        "capacity": {"storage": str(storage.capacity_bytes)},
        "accessModes": _modes(storage),
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "",
        "volumeMode": "Filesystem",
        # Only this claim may bind it: whoever can make claims in another namespace does not get at another team's data.
        "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": storage.namespace, "name": claim_name(storage)},
        **source,
    }
    if storage.mount_options:
        body["mountOptions"] = list(storage.mount_options)
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name, "labels": _labels(storage)}, "spec": body}


def static_claim(storage: TeamStorage) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(storage, claim_name(storage)),
        "spec": {
            "accessModes": _modes(storage),
            "storageClassName": "",  # none: nothing may be provisioned for it
            "volumeName": volume_name(storage),
            "resources": {"requests": {"storage": str(STATIC_CLAIM_BYTES)}},
        },
    }


def _modes(storage: TeamStorage) -> list[str]:
    return ["ReadOnlyMany" if storage.read_only else "ReadWriteMany"]


def shared_claim(claim: SharedClaim) -> Document:
    body: Document = {"accessModes": [claim.access_mode], "resources": {"requests": {"storage": str(claim.size_bytes)}}}
    if claim.storage_class:
        body["storageClassName"] = claim.storage_class
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": _metadata(claim, claim.claim), "spec": body}


def _metadata(storage: TeamStorage | SharedClaim, name: str) -> Document:
    return {"name": name, "namespace": storage.namespace, "labels": _labels(storage)}


# --- in pods -------------------------------------------------------------------------


def add_mounts(spec: EnvironmentSpec, volumes: list[Document], mounts: list[Document]) -> None:
    """Add the environment's mounts to the volumes of a pod and to the mounts of its container."""
    for name, group in _grouped(spec, volumes):
        if name not in {volume["name"] for volume in volumes}:
            volumes.append({"name": name, **_source(group)})
        for mount in group:
            document: Document = {"name": name, "mountPath": mount.mount_path}
            if mount.read_only:
                document["readOnly"] = True
            if mount.sub_path:
                document["subPath"] = mount.sub_path
            mounts.append(document)


def _grouped(spec: EnvironmentSpec, volumes: Sequence[Document]) -> list[tuple[str, list[Mount]]]:
    """Mounts by the pod's volume. One claim is one volume, however often it is mounted: a pod with two volumes of one claim never starts."""
    claims = {volume["persistentVolumeClaim"]["claimName"]: volume["name"] for volume in volumes if "persistentVolumeClaim" in volume}
    groups: dict[str, list[Mount]] = {}
    for mount in spec.mounts:
        if not mount.mount_path:
            continue
        name = claims.get(mount.claim) or f"data-{len(groups)}"
        if mount.claim:
            claims[mount.claim] = name
        groups.setdefault(name, []).append(mount)
    return list(groups.items())


def _source(group: Sequence[Mount]) -> Document:
    first = group[0]
    if first.claim:
        claim: Document = {"claimName": first.claim}
        if all(mount.read_only for mount in group):
            claim["readOnly"] = True
        return {"persistentVolumeClaim": claim}
    if first.config_map:
        return {"configMap": {"name": first.config_map}}
    if first.secret:
        items = [{"key": key, "path": path} for key, path in first.secret_files.items()]
        return {"secret": {"secretName": first.secret, "defaultMode": _SECRET_MODE, "items": items}}
    return {"emptyDir": {"sizeLimit": str(first.scratch_bytes), **({"medium": "Memory"} if first.in_memory else {})}}


def environment_of(spec: EnvironmentSpec, taken: Collection[str]) -> list[Document]:
    """Variables that the environment's mounts give to its containers, but those that are `taken`; values of secrets by reference."""
    env: list[Document] = []
    for mount in spec.mounts:
        env += [{"name": name, "value": value} for name, value in mount.env.items()]
        env += [{"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}} for name, (secret, key) in mount.secret_env.items()]
    return [variable for variable in env if variable["name"] not in taken]
