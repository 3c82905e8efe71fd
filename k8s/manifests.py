"""Kubernetes documents of environments. Pure: a frozen spec in, new documents out; no clock, no logger, no client."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from . import names, queues
from .spec import Devices, EnvironmentSpec, Port, Probe, Resources, Role, Topology

Document = dict[str, Any]

# jovyan, the user of the Jupyter images; cluster images get the same so that shared files stay readable.
USER_ID = 1000
GROUP_ID = 100
SCRATCH = "/scratch"  # HOME of cluster replicas: uid 1000 has none in most images, and Dask writes below its working directory
CLUSTERS_DIR = "/etc/atelier"
CLUSTERS_FILE = "clusters.json"
GRACE_SECONDS = 10
SPEC_HASH = f"{names.PREFIX}/spec-hash"

SCRATCH_LIMIT = "64Gi"  # bounds what a runaway process can fill on a node's disk


def common_labels(spec: EnvironmentSpec) -> dict[str, str]:
    """Labels of every object of an environment. Deletion is complete when nothing with ENVIRONMENT is left."""
    return {
        names.MANAGED_BY: names.MANAGER,
        names.INSTALL: spec.install,
        names.ENVIRONMENT: spec.id,
        names.NAME: spec.name,
        names.KIND: spec.kind,
        names.TEAM: names.label_value(spec.team),
        names.OWNER: names.label_value(spec.owner),
    }


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
    """Service and StatefulSet of each role, and what its queue needs. `owner` is the owner reference to the parent."""
    documents = queue_documents(spec, owner)
    return documents + [document for role in spec.roles for document in (role_service(spec, role, owner), role_set(spec, role, owner))]


def queue_documents(spec: EnvironmentSpec, owner: Document) -> list[Document]:
    """Objects by which a queue of another system knows the environment; none for Kueue, which reads its pods."""
    if spec.queue is None or spec.queue.system != queues.VOLCANO:
        return []
    requests: dict[str, int] = {}
    for role in spec.roles:
        for key, amount in _amounts(role.resources).items():
            requests[key] = requests.get(key, 0) + role.replicas * amount
    quantities = {key: f"{amount}m" if key == "cpu" else str(amount) for key, amount in requests.items()}
    return [queues.pod_group(spec, owner, common_labels(spec), quantities)]


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
    volumes: list[Document] = [{"name": "scratch", "emptyDir": {"sizeLimit": SCRATCH_LIMIT}}]
    mounts: list[Document] = [{"name": "scratch", "mountPath": SCRATCH}]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": _metadata(spec, role, owner),
        "spec": {
            "replicas": role.replicas,
            "serviceName": names.role_name(spec.base_name, role.name),
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": _role_selector(spec, role)},
            "template": {
                # No expiry in here: extending it must not restart the pods.
                "metadata": _pod_metadata(spec, role),
                "spec": _pod_spec(spec, role, volumes, mounts, home=SCRATCH, restart="Always"),
            },
        },
    }


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
    metadata = _pod_metadata(spec, role)
    metadata.update(name=spec.base_name, namespace=spec.namespace, ownerReferences=[owner])
    if spec.expires_at:
        metadata["annotations"][names.EXPIRES_AT] = spec.expires_at
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": _pod_spec(spec, role, volumes, mounts, home=home, restart="Never"),
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


# --- pods --------------------------------------------------------------------


def _role_selector(spec: EnvironmentSpec, role: Role) -> dict[str, str]:
    return {names.ENVIRONMENT: spec.id, names.ROLE: role.name}


def _metadata(spec: EnvironmentSpec, role: Role, owner: Document) -> Document:
    return {
        "name": names.role_name(spec.base_name, role.name),
        "namespace": spec.namespace,
        "labels": {**common_labels(spec), names.ROLE: role.name},
        "ownerReferences": [owner],
    }


def _pod_metadata(spec: EnvironmentSpec, role: Role) -> Document:
    devices = role.resources.devices
    return {
        "labels": {**common_labels(spec), names.ROLE: role.name, **queues.pod_labels(spec)},
        "annotations": {names.OWNER_NAME: spec.owner, **(devices.annotations if devices else {}), **queues.pod_annotations(spec, role)},
    }


def _pod_spec(spec: EnvironmentSpec, role: Role, volumes: list[Document], mounts: list[Document], *, home: str, restart: str) -> Document:
    if role.resources.shm_bytes:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(role.resources.shm_bytes)}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 - the path that shared memory has
    container: Document = {
        "name": role.name,
        "image": role.image,
        "env": _environment(role, home),
        "workingDir": home,
        "resources": _resources(role.resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
        # What a container says when it ends badly, even if it does not write /dev/termination-log.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if role.command:
        container["command"] = list(role.command)
    if role.args:
        container["args"] = list(role.args)
    if role.ports:
        container["ports"] = [{"name": port.name, "containerPort": port.number, "protocol": "TCP"} for port in role.ports]
    if role.readiness:
        container["readinessProbe"] = _readiness(role.readiness, role.ports)
    body: Document = {
        "containers": [container],
        "volumes": volumes,
        "restartPolicy": restart,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": GROUP_ID,
            "fsGroup": GROUP_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    body.update(_placement(spec.node_selector, role.resources.devices))
    if scheduler := queues.scheduler_name(spec):
        body["schedulerName"] = scheduler  # a gang needs one scheduler, even where the accelerator names another
    if spec.topology:
        body["affinity"] = {"nodeAffinity": _topology(spec.topology)}
    return body


def _topology(topology: Topology) -> Document:
    """Node affinity to the one domain that the queue chose for all replicas."""
    term = {"matchExpressions": [{"key": topology.key, "operator": "In", "values": [topology.value]}]}
    if topology.required:
        return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term}]}


def _placement(node_selector: Mapping[str, str], devices: Devices | None) -> Document:
    """Where a pod may run: the installation's node selector, and what its accelerator needs."""
    placement: Document = {}
    selector = {**node_selector, **(devices.node_selector if devices else {})}
    if selector:
        placement["nodeSelector"] = selector
    if devices:
        if devices.tolerations:
            placement["tolerations"] = [dict(toleration) for toleration in devices.tolerations]
        if devices.runtime_class:
            placement["runtimeClassName"] = devices.runtime_class
        if devices.scheduler_name:
            placement["schedulerName"] = devices.scheduler_name
    return placement


def _environment(role: Role, home: str) -> list[Document]:
    """POD_* first: `$(POD_IP)` in later values and in the command only sees what stands before it."""
    fields = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "POD_IP": "status.podIP"}
    env: list[Document] = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    devices = role.resources.devices
    values = {"HOME": home, **(devices.env if devices else {}), **role.env}
    env.extend({"name": name, "value": value} for name, value in values.items() if name not in fields)
    return env


def _resources(resources: Resources) -> Document:
    """Requests equal limits: what the quota counted is what a pod gets, and no more."""
    amounts = {key: f"{amount}m" if key == "cpu" else str(amount) for key, amount in _amounts(resources).items()}
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _amounts(resources: Resources) -> dict[str, int]:
    """What one replica asks for: CPU in millicores, memory in bytes, devices by their key."""
    amounts = {"cpu": resources.cpu_millis, "memory": resources.memory_bytes}
    if resources.devices:
        amounts[resources.devices.resource_key] = resources.devices.count
    return amounts


def _readiness(probe: Probe, ports: tuple[Port, ...]) -> Document:
    if probe.port not in {port.name for port in ports}:
        raise ValueError(f"readiness names port {probe.port!r}, which the role does not have")
    check: Document = {"httpGet": {"path": probe.path, "port": probe.port}} if probe.path else {"tcpSocket": {"port": probe.port}}
    return {**check, "periodSeconds": probe.period_seconds, "timeoutSeconds": 2, "failureThreshold": 3}
