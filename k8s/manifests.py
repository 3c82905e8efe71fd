"""Kubernetes documents of environments. Pure: a frozen spec in, new documents out; no clock, no logger, no client."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from . import devices, names, operators, queues
from .pods import SCRATCH, common_labels, file_keys, pod_metadata, pod_spec
from .spec import EnvironmentSpec, Role

Document = dict[str, Any]

CLUSTERS_DIR = "/etc/atelier"
CLUSTERS_FILE = "clusters.json"
SPEC_HASH = f"{names.PREFIX}/spec-hash"

SCRATCH_LIMIT = "64Gi"  # bounds what a runaway process can fill on a node's disk


def sealed(document: Document) -> Document:
    """`document` with a hash of itself as annotation, by which an unchanged object is recognised without comparing defaults."""
    digest = sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
    metadata = dict(document["metadata"])
    metadata["annotations"] = {**metadata.get("annotations", {}), SPEC_HASH: digest}
    return {**document, "metadata": metadata}


def owner_reference(parent: Mapping[str, Any]) -> Document:
    """Reference to the parent ConfigMap as the cluster returned it; its uid is what ties the two together."""
    metadata = parent["metadata"]
    return {"apiVersion": "v1", "kind": "ConfigMap", "name": metadata["name"], "uid": metadata["uid"]}


def parent(spec: EnvironmentSpec) -> Document:
    """The ConfigMap that owns everything else of an environment: deleting it takes the rest along."""
    annotations = {names.OWNER_NAME: spec.owner}
    if spec.expires_at:
        annotations[names.EXPIRES_AT] = spec.expires_at
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": spec.base_name, "namespace": spec.namespace, "labels": common_labels(spec), "annotations": annotations},
        "data": {"environment": spec.id, "name": spec.name, "kind": spec.kind, "team": spec.team, "owner": spec.owner},
    }


def home_claim(spec: EnvironmentSpec) -> Document:
    """The claim of the home volume. It bears no ENVIRONMENT label and no owner reference: it outlives its environment."""
    if spec.home is None:
        raise ValueError(f"environment {spec.id} has no home volume")
    labels = common_labels(spec)
    del labels[names.ENVIRONMENT]
    claim: Document = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": str(spec.home.size_bytes)}},
    }
    if spec.home.storage_class:
        claim["storageClassName"] = spec.home.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": spec.home.claim, "namespace": spec.namespace, "labels": labels, "annotations": {names.OWNER_NAME: spec.owner}},
        "spec": claim,
    }


def cluster_documents(spec: EnvironmentSpec, owner: Document) -> list[Document]:
    """What a cluster's roles need, and each role's Service and StatefulSet or Job. `owner` is the owner reference to the parent."""
    return [*support_documents(spec, owner), *role_documents(spec, owner)]


def support_documents(spec: EnvironmentSpec, owner: Document) -> list[Document]:
    """What has to be there before the pods: they would find it missing and wait for longer than it takes to make it."""
    return [*queue_documents(spec, owner), *claim_documents(spec, owner), *file_documents(spec, owner)]


def role_documents(spec: EnvironmentSpec, owner: Document) -> list[Document]:
    """Service of each role, and what makes its pods: a StatefulSet or Job, or an operator's object for several roles."""
    documents, own = [], own_roles(spec)
    for role in spec.roles:
        documents += [role_service(spec, role, owner), *([role_runner(spec, role, owner)] if role in own else [])]
    return documents + ([operator_object(spec, owner)] if spec.operator else [])


def role_runner(spec: EnvironmentSpec, role: Role, owner: Document) -> Document:
    """What makes the pods of a role."""
    return role_job(spec, role, owner) if role.once else role_set(spec, role, owner)


def file_documents(spec: EnvironmentSpec, owner: Document) -> list[Document]:
    """The ConfigMap of each role that has files."""
    documents = []
    for role in spec.roles:
        if role.files:
            data = {key: role.files[path] for path, key in file_keys(role).items()}
            documents.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(spec, role, owner), "data": data})
    return documents


def own_roles(spec: EnvironmentSpec) -> tuple[Role, ...]:
    """Roles that no operator makes the pods of."""
    return tuple(role for role in spec.roles if spec.operator is None or role.name not in spec.operator.roles)


def operator_object(spec: EnvironmentSpec, owner: Document) -> Document:
    """The object of the operator that was chosen for the environment."""
    if spec.operator is None:
        raise ValueError(f"environment {spec.id} has no operator")
    metadata = {"name": spec.base_name, "namespace": spec.namespace, "labels": common_labels(spec), "ownerReferences": [owner]}
    return operators.custom_object(spec, spec.operator, metadata, lambda role: {"metadata": pod_metadata(spec, role), "spec": _replica_spec(spec, role)})


def secret_document(spec: EnvironmentSpec, secret: str, values: Mapping[str, bytes], owner: Document) -> Document:
    """The object of one of an environment's secrets. Immutable: what a run began with, it ends with."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "immutable": True,
        "metadata": {
            "name": names.secret_name(spec.base_name, secret),
            "namespace": spec.namespace,
            "labels": common_labels(spec),
            "ownerReferences": [owner],
        },
        "data": {key: b64encode(value).decode() for key, value in values.items()},
    }


def queue_documents(spec: EnvironmentSpec, owner: Document) -> list[Document]:
    """Objects by which a queue of another system knows the environment; none for Kueue, which reads its pods."""
    if spec.queue is None or spec.queue.system != queues.VOLCANO:
        return []
    requests: dict[str, int] = {}
    for role in spec.roles:
        for key, amount in devices.amounts(role.resources).items():
            requests[key] = requests.get(key, 0) + queues.needed(spec, role) * amount
    quantities = {key: f"{amount}m" if key == "cpu" else str(amount) for key, amount in requests.items()}
    return [queues.pod_group(spec, owner, common_labels(spec), quantities)]


def claim_documents(spec: EnvironmentSpec, owner: Document) -> list[Document]:
    """ResourceClaimTemplates of the roles whose devices the cluster allocates dynamically. They have to be there before the pods."""
    return [document for role in spec.roles for document in devices.claim_templates(spec, role, owner, {**common_labels(spec), names.ROLE: role.name})]


def role_service(spec: EnvironmentSpec, role: Role, owner: Document) -> Document:
    """Headless Service of a role: one name for the role, one for each of its pods."""
    ports = [{"name": port.name, "port": port.number, "targetPort": port.name, "protocol": "TCP"} for port in role.ports]
    body: Document = {
        "clusterIP": "None",
        # Workers look their scheduler up while it is still starting; a name that does not exist yet is cached as absent by some resolvers.
        "publishNotReadyAddresses": True,
        "selector": _role_selector(spec, role),
    }
    if ports:
        body["ports"] = ports
    return {"apiVersion": "v1", "kind": "Service", "metadata": _metadata(spec, role, owner), "spec": body}


def role_set(spec: EnvironmentSpec, role: Role, owner: Document) -> Document:
    """StatefulSet of a role. Parallel: replicas of a cluster do not wait for each other."""
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": _metadata(spec, role, owner),
        "spec": {
            "replicas": role.replicas,
            "serviceName": names.role_name(spec.base_name, role.name),
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": _role_selector(spec, role)},
            "template": {"metadata": pod_metadata(spec, role), "spec": _replica_spec(spec, role)},
        },
    }


def role_job(spec: EnvironmentSpec, role: Role, owner: Document) -> Document:
    """Job of a role that runs once: one completion per replica, all at a time, named as a StatefulSet's pods are.

    A replica that the cluster takes away is made again and counts for nothing. One that fails for good leaves the others alone: the observer
    ends them, after it has kept what they printed.
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(spec, role, owner),
        "spec": {
            "completionMode": "Indexed",
            "completions": role.replicas,
            "parallelism": role.replicas,
            "backoffLimitPerIndex": role.retries,
            "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]},
            "podReplacementPolicy": "Failed",
            "template": {
                "metadata": pod_metadata(spec, role),
                # A Job names its pods' hosts by their index, but not the Service under which they are found.
                "spec": {**_replica_spec(spec, role), "subdomain": names.role_name(spec.base_name, role.name)},
            },
        },
    }


def _replica_spec(spec: EnvironmentSpec, role: Role) -> Document:
    volumes: list[Document] = [{"name": "scratch", "emptyDir": {"sizeLimit": SCRATCH_LIMIT}}]
    mounts: list[Document] = [{"name": "scratch", "mountPath": SCRATCH}]
    return pod_spec(spec, role, volumes, mounts, home=SCRATCH, restart="Never" if role.once else "Always")


def notebook_pod(spec: EnvironmentSpec, owner: Document) -> Document:
    """The pod of a notebook, complete but for what only the Hub knows: its JUPYTERHUB_* variables.

    restartPolicy is Never: the Hub learns of the end of a server by the end of its pod, and the observer starts it again.
    """
    (role,) = spec.roles
    volumes: list[Document] = []
    mounts: list[Document] = []
    home = SCRATCH
    if spec.home is not None:
        home = spec.home.mount_path
        volumes.append({"name": "home", "persistentVolumeClaim": {"claimName": spec.home.claim}})
        mounts.append({"name": "home", "mountPath": home})
    else:
        volumes.append({"name": "scratch", "emptyDir": {"sizeLimit": SCRATCH_LIMIT}})
        mounts.append({"name": "scratch", "mountPath": home})
    volumes.append({"name": "clusters", "configMap": {"name": clusters_name(spec.owner), "optional": True}})
    mounts.append({"name": "clusters", "mountPath": CLUSTERS_DIR, "readOnly": True})
    metadata = pod_metadata(spec, role)
    metadata.update(name=spec.base_name, namespace=spec.namespace, ownerReferences=[owner])
    if spec.expires_at:
        metadata["annotations"][names.EXPIRES_AT] = spec.expires_at
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": pod_spec(spec, role, volumes, mounts, home=home, restart="Never"),
    }


def clusters_name(owner: str) -> str:
    """Name of the ConfigMap with an owner's running clusters, one per team namespace."""
    return f"clusters-{names.label_value(owner)}"


def clusters_config(*, namespace: str, install: str, owner: str, entries: Iterable[Mapping[str, Any]]) -> Document:
    """The ConfigMap that tells an owner's notebooks which clusters are up: `clusters.json` in CLUSTERS_DIR."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": clusters_name(owner),
            "namespace": namespace,
            "labels": {names.MANAGED_BY: names.MANAGER, names.INSTALL: install, names.OWNER: names.label_value(owner)},
            "annotations": {names.OWNER_NAME: owner},
        },
        "data": {CLUSTERS_FILE: json.dumps(list(entries), indent=1, sort_keys=True, ensure_ascii=False)},
    }


def _role_selector(spec: EnvironmentSpec, role: Role) -> dict[str, str]:
    return {names.ENVIRONMENT: spec.id, names.ROLE: role.name}


def _metadata(spec: EnvironmentSpec, role: Role, owner: Document) -> Document:
    return {
        "name": names.role_name(spec.base_name, role.name),
        "namespace": spec.namespace,
        "labels": {**common_labels(spec), names.ROLE: role.name},
        "ownerReferences": [owner],
    }
