"""Pods of environments: restricted, with what a role asks for. Pure; `k8s.manifests` puts them into what makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import devices, names, queues
from .spec import Devices, EnvironmentSpec, Port, Probe, Role, Topology

Document = dict[str, Any]

# jovyan, the user of the Jupyter images; cluster images get the same so that shared files stay readable.
USER_ID = 1000
GROUP_ID = 100
SCRATCH = "/scratch"  # HOME of cluster replicas: uid 1000 has none in most images, and Dask writes below its working directory
GRACE_SECONDS = 10


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
    return {
        "labels": {**devices.pod_labels(role.resources), **common_labels(spec), names.ROLE: role.name, **queues.pod_labels(spec)},
        "annotations": {**devices.pod_annotations(role.resources), names.OWNER_NAME: spec.owner, **queues.pod_annotations(spec, role)},
    }


def pod_spec(spec: EnvironmentSpec, role: Role, volumes: list[Document], mounts: list[Document], *, home: str, restart: str) -> Document:
    """The spec of each pod of a role. `volumes` and `mounts`: what it has beside what the role asks for; `home`: HOME and working directory."""
    if role.resources.shm_bytes:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(role.resources.shm_bytes)}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 - the path that shared memory has
    container: Document = {
        "name": role.name,
        "image": role.image,
        "env": _environment(role, home),
        "workingDir": home,
        "resources": devices.requirements(role.resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
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
    if claims := devices.pod_claims(spec, role):
        body["resourceClaims"] = claims
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


def _environment(role: Role, home: str) -> list[Document]:
    """POD_* first: `$(POD_IP)` in later values and in the command only sees what stands before it."""
    fields = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "POD_IP": "status.podIP"}
    env: list[Document] = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    values = {"HOME": home, **devices.environment(role.resources), **role.env}
    env.extend({"name": name, "value": value} for name, value in values.items() if name not in fields)
    return env


def _readiness(probe: Probe, ports: tuple[Port, ...]) -> Document:
    if probe.port not in {port.name for port in ports}:
        raise ValueError(f"readiness names port {probe.port!r}, which the role does not have")
    check: Document = {"httpGet": {"path": probe.path, "port": probe.port}} if probe.path else {"tcpSocket": {"port": probe.port}}
    return {**check, "periodSeconds": probe.period_seconds, "timeoutSeconds": 2, "failureThreshold": 3}
