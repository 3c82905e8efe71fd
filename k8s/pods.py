"""Pods of environments: restricted, with what a role asks for. Pure; `k8s.manifests` puts them into what makes them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any

from . import devices, names, queues
from .spec import Devices, EnvironmentSpec, Probe, Role, Topology
from .volumes import add_mounts, environment_of

Document = dict[str, Any]

# jovyan, the user of the Jupyter images; cluster images get the same so that shared files stay readable.
USER_ID = 1000
GROUP_ID = 100
SCRATCH = "/scratch"  # HOME of cluster replicas: uid 1000 has none in most images, and Dask writes below its working directory
GRACE_SECONDS = 10
STOP_SECONDS = 30  # for a replica that has a command to run first
FILES_HASH = f"{names.PREFIX}/files-hash"
_UNSAFE = re.compile(r"[^-._a-zA-Z0-9]")
# Where the number of a replica stands, by whether its role runs once: a Job's annotation is older than its label
_INDEX = {False: "metadata.labels['apps.kubernetes.io/pod-index']", True: "metadata.annotations['batch.kubernetes.io/job-completion-index']"}


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


def pod_metadata(spec: EnvironmentSpec, role: Role) -> Document:
    """Labels and annotations of each pod of a role. No expiry in here: extending it must not restart the pods."""
    annotations = {**devices.pod_annotations(role.resources), names.OWNER_NAME: spec.owner, **queues.pod_annotations(spec, role)}
    if role.files:
        # Files mounted one by one are never written again in a pod that runs, so other texts are other pods.
        annotations[FILES_HASH] = sha256(json.dumps(dict(role.files), sort_keys=True).encode()).hexdigest()[:16]
    labels = {**devices.pod_labels(role.resources), **common_labels(spec), names.ROLE: role.name, **queues.pod_labels(spec)}
    return {"labels": labels, "annotations": annotations}


def file_keys(role: Role) -> dict[str, str]:
    """Path of each of a role's files -> its key in the role's ConfigMap."""
    return {path: f"{number}.{_UNSAFE.sub('_', PurePosixPath(path).name)}"[:200] for number, path in enumerate(sorted(role.files))}


def pod_spec(spec: EnvironmentSpec, role: Role, volumes: list[Document], mounts: list[Document], *, home: str, restart: str) -> Document:
    """The spec of each pod of a role. `volumes` and `mounts`: what it has beside what the role asks for; `home`: HOME and working directory."""
    add_mounts(spec, volumes, mounts)
    more_volumes, more_mounts = _volumes(spec, role)
    env = _environment(spec, role, home)
    container: Document = {
        "name": role.name,
        "image": role.image,
        "env": env + environment_of(spec, {variable["name"] for variable in env}),
        "workingDir": home,
        "resources": devices.requirements(role.resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [*mounts, *more_mounts],
        # What a container says when it ends badly, even if it does not write /dev/termination-log.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if added := devices.capabilities(role.resources):
        container["securityContext"]["capabilities"]["add"] = list(added)
    if role.command:
        container["command"] = list(role.command)
    if role.args:
        container["args"] = list(role.args)
    if role.ports:
        container["ports"] = [{"name": port.name, "containerPort": port.number, "protocol": "TCP"} for port in role.ports]
    for key, probe in (("readinessProbe", role.readiness), ("livenessProbe", role.liveness), ("startupProbe", role.startup)):
        if probe:
            container[key] = _probe(probe, role)
    if role.stop_command:
        container["lifecycle"] = {"preStop": {"exec": {"command": list(role.stop_command)}}}
    body: Document = {
        "containers": [container],
        "volumes": [*volumes, *more_volumes],
        "restartPolicy": restart,
        "terminationGracePeriodSeconds": role.stop_seconds or (STOP_SECONDS if role.stop_command else GRACE_SECONDS),
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
    if claims := devices.pod_claims(spec, role):
        body["resourceClaims"] = claims
    body.update(_placement(spec.node_selector, role.resources.devices))
    if scheduler := queues.scheduler_name(spec):
        body["schedulerName"] = scheduler  # a gang needs one scheduler, even where the accelerator names another
    if spec.topology:
        body["affinity"] = {"nodeAffinity": _topology(spec.topology)}
    return body


def _volumes(spec: EnvironmentSpec, role: Role) -> tuple[list[Document], list[Document]]:
    """Volumes and mounts of what a role asks for: shared memory, scratch, secrets, files."""
    volumes: list[Document] = []
    mounts: list[Document] = []
    if role.resources.shm_bytes:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(role.resources.shm_bytes)}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 - the path that shared memory has
    for number, scratch in enumerate(role.volumes):
        medium = {"medium": "Memory"} if scratch.memory else {}
        volumes.append({"name": f"volume-{number}", "emptyDir": {**medium, "sizeLimit": str(scratch.size_bytes)}})
        mounts.append({"name": f"volume-{number}", "mountPath": scratch.mount_path})
    for number, mount in enumerate(role.secret_mounts):
        secret = {"secretName": names.secret_name(spec.base_name, mount.secret), "defaultMode": mount.mode}
        volumes.append({"name": f"secret-{number}", "secret": secret})
        mounts.append({"name": f"secret-{number}", "mountPath": mount.mount_path, "readOnly": True})
    if role.files:
        volumes.append({"name": "files", "configMap": {"name": names.role_name(spec.base_name, role.name)}})
        mounts += [{"name": "files", "mountPath": path, "subPath": key, "readOnly": True} for path, key in file_keys(role).items()]
    return volumes, mounts


def _topology(topology: Topology) -> Document:
    """Node affinity to the one domain that the queue chose for all replicas."""
    term = {"matchExpressions": [{"key": topology.key, "operator": "In", "values": [topology.value]}]}
    if topology.required:
        return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term}]}


def _placement(node_selector: Mapping[str, str], chips: Devices | None) -> Document:
    """Where a pod may run: the installation's node selector, and what its accelerator needs."""
    placement: Document = {}
    selector = {**node_selector, **(chips.node_selector if chips else {})}
    if selector:
        placement["nodeSelector"] = selector
    if chips:
        if chips.tolerations:
            placement["tolerations"] = [dict(toleration) for toleration in chips.tolerations]
        if chips.runtime_class:
            placement["runtimeClassName"] = chips.runtime_class
        if chips.scheduler_name:
            placement["schedulerName"] = chips.scheduler_name
    return placement


def _environment(spec: EnvironmentSpec, role: Role, home: str) -> list[Document]:
    """POD_* first: `$(POD_IP)` in later values and in the command only sees what stands before it. Secrets next, for the same reason."""
    fields = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "POD_IP": "status.podIP"}
    if spec.kind != "notebook":
        fields["POD_INDEX"] = _INDEX[role.once]
    env: list[Document] = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    for name, one in role.secret_env.items():
        env.append({"name": name, "valueFrom": {"secretKeyRef": {"name": names.secret_name(spec.base_name, one.secret), "key": one.key}}})
    values = {"HOME": home, **devices.environment(role.resources), **role.env}
    env.extend({"name": name, "value": value} for name, value in values.items() if name not in fields and name not in role.secret_env)
    return env


def _probe(probe: Probe, role: Role) -> Document:
    check: Document
    if probe.command:
        check = {"exec": {"command": list(probe.command)}}
    elif probe.port not in {port.name for port in role.ports}:
        raise ValueError(f"a probe names port {probe.port!r}, which the role does not have")
    else:
        check = {"httpGet": {"path": probe.path, "port": probe.port}} if probe.path else {"tcpSocket": {"port": probe.port}}
    # A command begins a process, which takes longer than a connection.
    return {**check, "periodSeconds": probe.period_seconds, "timeoutSeconds": 10 if probe.command else 2, "failureThreshold": probe.failure_threshold}
