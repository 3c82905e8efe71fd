"""The columns that `kubectl get` shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from .documents import Doc, at, meta, name_of, parse_time
from .kinds import Resource

Column = tuple[str, str, int, Callable[[Doc], Any]]  # name, type, priority (above 0: only with -o wide), value


def age(text: str | None) -> str:
    """Time since then, as kubectl writes it: 45s, 5m12s, 3h4m, 2d."""
    if not text:
        return "<unknown>"
    seconds = max(0, int((datetime.now(UTC) - parse_time(text)).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d" if days < 730 else f"{days // 365}y{days % 365}d"


def _age(doc: Doc) -> str:
    return age(meta(doc).get("creationTimestamp"))


def _get(path: str, default: Any = "<none>") -> Callable[[Doc], Any]:
    return lambda doc: at(doc, path, default)


def _pairs(path: str) -> Callable[[Doc], str]:
    return lambda doc: ",".join(f"{key}={value}" for key, value in sorted(at(doc, path, {}).items())) or "<none>"


def _selector(path: str) -> Callable[[Doc], str]:
    return _pairs(f"{path}.matchLabels")


def pod_status(pod: Doc) -> str:
    """The word in the STATUS column: the most telling of phase, reason and container states."""
    status = pod.get("status") or {}
    found = status.get("reason") or status.get("phase") or "Unknown"
    init = status.get("initContainerStatuses") or []
    sidecars = {each["name"] for each in at(pod, "spec.initContainers", []) if each.get("restartPolicy") == "Always"}
    for index, each in enumerate(init):
        ended = at(each, "state.terminated")
        if (ended and ended.get("exitCode") == 0) or (each.get("name") in sidecars and each.get("started")):
            continue
        waiting = at(each, "state.waiting.reason")
        if ended:
            found = "Init:" + (ended.get("reason") or f"ExitCode:{ended.get('exitCode')}")
        elif waiting and waiting != "PodInitializing":
            found = f"Init:{waiting}"
        else:
            found = f"Init:{index}/{len(at(pod, 'spec.initContainers', []))}"
        break
    else:
        running = False
        for each in reversed(status.get("containerStatuses") or []):
            waiting, ended = at(each, "state.waiting"), at(each, "state.terminated")
            if waiting and waiting.get("reason"):
                found = waiting["reason"]
            elif ended:
                found = ended.get("reason") or (f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode')}")
            elif each.get("ready") and at(each, "state.running") is not None:
                running = True
        if found == "Completed" and running:
            found = "Running"
    if meta(pod).get("deletionTimestamp"):
        found = "Terminating"
    return str(found)


def _pod_ready(pod: Doc) -> str:
    statuses = at(pod, "status.containerStatuses", [])
    return f"{sum(bool(each.get('ready')) for each in statuses)}/{len(at(pod, 'spec.containers', []))}"


def _restarts(pod: Doc) -> str:
    statuses = at(pod, "status.containerStatuses", [])
    count = sum(each.get("restartCount", 0) for each in statuses)
    last = [at(each, "lastState.terminated.finishedAt") for each in statuses]
    when = max((each for each in last if each), default=None)
    return f"{count} ({age(when)} ago)" if count and when else str(count)


def _ports(service: Doc) -> str:
    parts = []
    for port in at(service, "spec.ports", []):
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        parts.append(f"{port.get('port')}{node}/{port.get('protocol')}")
    return ",".join(parts) or "<none>"


def _node_status(node: Doc) -> str:
    ready = next((each for each in at(node, "status.conditions", []) if each.get("type") == "Ready"), None)
    word = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    return word + (",SchedulingDisabled" if at(node, "spec.unschedulable") else "")


def _node_roles(node: Doc) -> str:
    prefix = "node-role.kubernetes.io/"
    return ",".join(sorted(key.removeprefix(prefix) for key in meta(node).get("labels") or {} if key.startswith(prefix))) or "<none>"


def _node_address(kind: str) -> Callable[[Doc], str]:
    return lambda node: next((each["address"] for each in at(node, "status.addresses", []) if each.get("type") == kind), "<none>")


def _job_status(job: Doc) -> str:
    for each in at(job, "status.conditions", []):
        if each.get("status") == "True" and each.get("type") in {"Complete", "Failed", "Suspended", "SuccessCriteriaMet", "FailureTarget"}:
            return str(each["type"]) if each["type"] in {"Complete", "Failed", "Suspended"} else "Running"
    return "Terminating" if meta(job).get("deletionTimestamp") else "Running"


def _duration(job: Doc) -> str:
    start, end = at(job, "status.startTime"), at(job, "status.completionTime")
    if not start:
        return ""
    if not end:
        return age(start)
    return f"{int((parse_time(end) - parse_time(start)).total_seconds())}s"


def _quota(kind: str) -> Callable[[Doc], str]:
    def shown(doc: Doc) -> str:
        hard, used = at(doc, "status.hard", {}), at(doc, "status.used", {})
        return ", ".join(f"{key}: {used.get(key, '0')}/{hard[key]}" for key in sorted(hard) if key.startswith("limits.") is (kind == "limits"))

    return shown


def _access(doc: Doc) -> str:
    short = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
    return ",".join(short.get(each, each) for each in at(doc, "status.accessModes" if "claimName" not in doc else "spec.accessModes", []))


def _endpoints(doc: Doc) -> str:
    found = [
        f"{address['ip']}:{port['port']}"
        for subset in doc.get("subsets") or ()
        for address in subset.get("addresses") or ()
        for port in subset.get("ports") or [{"port": ""}]
    ]
    return ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "") if found else "<none>"


def _images(doc: Doc) -> str:
    return ",".join(each.get("image", "") for each in at(doc, "spec.template.spec.containers", []))


def _containers(doc: Doc) -> str:
    return ",".join(each.get("name", "") for each in at(doc, "spec.template.spec.containers", []))


def _event_object(doc: Doc) -> str:
    about = doc.get("involvedObject") or doc.get("regarding") or {}
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def _event_seen(doc: Doc) -> str:
    return age(doc.get("lastTimestamp") or doc.get("deprecatedLastTimestamp") or doc.get("eventTime") or meta(doc).get("creationTimestamp"))


def _ready_of(doc: Doc) -> str:
    return f"{at(doc, 'status.readyReplicas', 0)}/{at(doc, 'spec.replicas', 0)}"


_NAME: Column = ("Name", "string", 0, name_of)
_AGE: Column = ("Age", "string", 0, _age)
_WIDE_TEMPLATE: tuple[Column, ...] = (("Containers", "string", 1, _containers), ("Images", "string", 1, _images))

COLUMNS: dict[str, tuple[Column, ...]] = {
    "pods": (
        _NAME,
        ("Ready", "string", 0, _pod_ready),
        ("Status", "string", 0, pod_status),
        ("Restarts", "string", 0, _restarts),
        _AGE,
        ("IP", "string", 1, _get("status.podIP")),
        ("Node", "string", 1, _get("spec.nodeName")),
        ("Nominated Node", "string", 1, _get("status.nominatedNodeName")),
        ("Readiness Gates", "string", 1, lambda _: "<none>"),
    ),
    "namespaces": (_NAME, ("Status", "string", 0, _get("status.phase", "Active")), _AGE),
    "nodes": (
        _NAME,
        ("Status", "string", 0, _node_status),
        ("Roles", "string", 0, _node_roles),
        _AGE,
        ("Version", "string", 0, _get("status.nodeInfo.kubeletVersion", "")),
        ("Internal-IP", "string", 1, _node_address("InternalIP")),
        ("External-IP", "string", 1, _node_address("ExternalIP")),
        ("OS-Image", "string", 1, _get("status.nodeInfo.osImage", "<unknown>")),
        ("Kernel-Version", "string", 1, _get("status.nodeInfo.kernelVersion", "<unknown>")),
        ("Container-Runtime", "string", 1, _get("status.nodeInfo.containerRuntimeVersion", "<unknown>")),
    ),
    "services": (
        _NAME,
        ("Type", "string", 0, _get("spec.type", "")),
        ("Cluster-IP", "string", 0, _get("spec.clusterIP")),
        ("External-IP", "string", 0, _get("spec.externalName")),
        ("Port(s)", "string", 0, _ports),
        _AGE,
        ("Selector", "string", 1, _pairs("spec.selector")),
    ),
    "endpoints": (_NAME, ("Endpoints", "string", 0, _endpoints), _AGE),
    "configmaps": (_NAME, ("Data", "integer", 0, lambda doc: len(doc.get("data") or {}) + len(doc.get("binaryData") or {})), _AGE),
    "secrets": (_NAME, ("Type", "string", 0, _get("type", "")), ("Data", "integer", 0, lambda doc: len(doc.get("data") or {})), _AGE),
    "serviceaccounts": (_NAME, ("Secrets", "integer", 0, lambda doc: len(doc.get("secrets") or ())), _AGE),
    "events": (
        ("Last Seen", "string", 0, _event_seen),
        ("Type", "string", 0, _get("type", "")),
        ("Reason", "string", 0, _get("reason", "")),
        ("Object", "string", 0, _event_object),
        ("Message", "string", 0, lambda doc: (doc.get("message") or doc.get("note") or "").strip()),
        ("Count", "integer", 1, _get("count", 1)),
        ("Name", "string", 1, name_of),
    ),
    "persistentvolumeclaims": (
        _NAME,
        ("Status", "string", 0, lambda doc: "Terminating" if meta(doc).get("deletionTimestamp") else at(doc, "status.phase", "")),
        ("Volume", "string", 0, _get("spec.volumeName", "")),
        ("Capacity", "string", 0, _get("status.capacity.storage", "")),
        ("Access Modes", "string", 0, _access),
        ("StorageClass", "string", 0, _get("spec.storageClassName", "")),
        ("VolumeAttributesClass", "string", 0, lambda _: "<unset>"),
        _AGE,
        ("VolumeMode", "string", 1, _get("spec.volumeMode", "")),
    ),
    "persistentvolumes": (
        _NAME,
        ("Capacity", "string", 0, _get("spec.capacity.storage", "")),
        ("Access Modes", "string", 0, lambda doc: _access({"claimName": "", "spec": doc["spec"]})),
        ("Reclaim Policy", "string", 0, _get("spec.persistentVolumeReclaimPolicy", "")),
        ("Status", "string", 0, _get("status.phase", "")),
        ("Claim", "string", 0, lambda doc: f"{at(doc, 'spec.claimRef.namespace', '')}/{at(doc, 'spec.claimRef.name', '')}".strip("/")),
        ("StorageClass", "string", 0, _get("spec.storageClassName", "")),
        ("Reason", "string", 0, _get("status.reason", "")),
        _AGE,
    ),
    "resourcequotas": (_NAME, ("Request", "string", 0, _quota("requests")), ("Limit", "string", 0, _quota("limits")), _AGE),
    "limitranges": (_NAME, ("Created At", "string", 0, lambda doc: meta(doc).get("creationTimestamp"))),
    "statefulsets.apps": (_NAME, ("Ready", "string", 0, _ready_of), _AGE, *_WIDE_TEMPLATE),
    "deployments.apps": (
        _NAME,
        ("Ready", "string", 0, _ready_of),
        ("Up-to-date", "integer", 0, _get("status.updatedReplicas", 0)),
        ("Available", "integer", 0, _get("status.availableReplicas", 0)),
        _AGE,
        *_WIDE_TEMPLATE,
        ("Selector", "string", 1, _selector("spec.selector")),
    ),
    "replicasets.apps": (
        _NAME,
        ("Desired", "integer", 0, _get("spec.replicas", 0)),
        ("Current", "integer", 0, _get("status.replicas", 0)),
        ("Ready", "integer", 0, _get("status.readyReplicas", 0)),
        _AGE,
        *_WIDE_TEMPLATE,
        ("Selector", "string", 1, _selector("spec.selector")),
    ),
    "jobs.batch": (
        _NAME,
        ("Status", "string", 0, _job_status),
        ("Completions", "string", 0, lambda doc: f"{at(doc, 'status.succeeded', 0)}/{at(doc, 'spec.completions', at(doc, 'spec.parallelism', 1))}"),
        ("Duration", "string", 0, _duration),
        _AGE,
        *_WIDE_TEMPLATE,
        ("Selector", "string", 1, _selector("spec.selector")),
    ),
    "networkpolicies.networking.k8s.io": (_NAME, ("Pod-Selector", "string", 0, _selector("spec.podSelector")), _AGE),
    "ingresses.networking.k8s.io": (
        _NAME,
        ("Class", "string", 0, _get("spec.ingressClassName")),
        ("Hosts", "string", 0, lambda doc: ",".join(each.get("host") or "*" for each in at(doc, "spec.rules", [])) or "*"),
        ("Address", "string", 0, lambda _: ""),
        ("Ports", "string", 0, lambda doc: "80, 443" if at(doc, "spec.tls") else "80"),
        _AGE,
    ),
    "storageclasses.storage.k8s.io": (
        (
            "Name",
            "string",
            0,
            lambda doc: (
                name_of(doc) + (" (default)" if (meta(doc).get("annotations") or {}).get("storageclass.kubernetes.io/is-default-class") == "true" else "")
            ),
        ),
        ("Provisioner", "string", 0, _get("provisioner", "")),
        ("ReclaimPolicy", "string", 0, _get("reclaimPolicy", "")),
        ("VolumeBindingMode", "string", 0, _get("volumeBindingMode", "")),
        ("AllowVolumeExpansion", "string", 0, lambda doc: str(bool(doc.get("allowVolumeExpansion"))).lower()),
        _AGE,
    ),
    "priorityclasses.scheduling.k8s.io": (
        _NAME,
        ("Value", "integer", 0, _get("value", 0)),
        ("Global-Default", "boolean", 0, lambda doc: bool(doc.get("globalDefault"))),
        _AGE,
        ("PreemptionPolicy", "string", 0, _get("preemptionPolicy", "")),
    ),
    "leases.coordination.k8s.io": (_NAME, ("Holder", "string", 0, _get("spec.holderIdentity", "")), _AGE),
    "poddisruptionbudgets.policy": (
        _NAME,
        ("Min Available", "string", 0, lambda doc: str(at(doc, "spec.minAvailable", "N/A"))),
        ("Max Unavailable", "string", 0, lambda doc: str(at(doc, "spec.maxUnavailable", "N/A"))),
        ("Allowed Disruptions", "integer", 0, _get("status.disruptionsAllowed", 0)),
        _AGE,
    ),
    "customresourcedefinitions.apiextensions.k8s.io": (_NAME, ("Created At", "string", 0, lambda doc: meta(doc).get("creationTimestamp"))),
    "roles.rbac.authorization.k8s.io": (_NAME, ("Created At", "string", 0, lambda doc: meta(doc).get("creationTimestamp"))),
    "clusterroles.rbac.authorization.k8s.io": (_NAME, ("Created At", "string", 0, lambda doc: meta(doc).get("creationTimestamp"))),
    "rolebindings.rbac.authorization.k8s.io": (_NAME, ("Role", "string", 0, lambda doc: f"{at(doc, 'roleRef.kind')}/{at(doc, 'roleRef.name')}"), _AGE),
    "endpointslices.discovery.k8s.io": (
        _NAME,
        ("AddressType", "string", 0, _get("addressType", "")),
        ("Ports", "string", 0, lambda doc: ",".join(str(each.get("port")) for each in doc.get("ports") or ()) or "<unset>"),
        (
            "Endpoints",
            "string",
            0,
            lambda doc: ",".join(address for each in doc.get("endpoints") or () for address in each.get("addresses") or ()) or "<unset>",
        ),
        _AGE,
    ),
}


def _custom(resource: Resource) -> tuple[Column, ...]:
    columns: list[Column] = [_NAME]
    declared = (resource.custom or {}).get("additionalPrinterColumns") or ()
    columns += [
        (each["name"], each.get("type", "string"), each.get("priority", 0), _json_path(each["jsonPath"], each.get("type", "string"))) for each in declared
    ]
    return tuple(columns) if len(columns) > 1 else (_NAME, _AGE)


def _json_path(path: str, kind: str) -> Callable[[Doc], Any]:
    """Plain paths only: `.status.phase`, `.spec.items[0].name`, `.status.conditions[?(@.type=="Ready")].status`."""

    def value(doc: Doc) -> Any:
        found: Any = doc
        for key, index, field, wanted in re.findall(r'\.([A-Za-z0-9_\-]+)|\[(\d+)\]|\[\?\(@\.(\w+)==["\']([^"\']*)["\']\)\]', path):
            if key:
                found = found.get(key) if isinstance(found, dict) else None
            elif index:
                found = found[int(index)] if isinstance(found, list) and int(index) < len(found) else None
            else:
                found = next((each for each in found or () if isinstance(each, dict) and each.get(field) == wanted), None)
        if kind == "date":
            return age(found) if found else None
        return found if not isinstance(found, (dict, list)) else json.dumps(found)

    return value


def table(resource: Resource, docs: list[Doc], include: str, revision: str) -> Doc:
    columns = _custom(resource) if resource.custom else COLUMNS.get(resource.store_key, (_NAME, _AGE))
    definitions = [
        {"name": name, "type": kind, "format": "name" if name == "Name" else "", "description": "", "priority": priority} for name, kind, priority, _ in columns
    ]
    rows = []
    for doc in docs:
        row: Doc = {"cells": [value(doc) for *_, value in columns]}
        if include == "Object":
            row["object"] = doc
        elif include != "None":
            row["object"] = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta(doc)}
        rows.append(row)
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": revision}, "columnDefinitions": definitions, "rows": rows}
