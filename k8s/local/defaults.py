"""What Kubernetes fills in where a document is silent."""

from __future__ import annotations

import base64
from typing import Any

from .documents import Doc, clone
from .errors import bad_request
from .kinds import Resource


def apply(resource: Resource, doc: Doc) -> None:
    """Fills in defaults, in place."""
    found = _BY_KEY.get(resource.key)
    if found:
        found(doc)


def fresh_status(resource: Resource, doc: Doc) -> None:
    """The status of a new object: what the client sent is dropped."""
    doc.pop("status", None)
    status: Doc = {}
    match resource.key:
        case "pods":
            status = {"phase": "Pending", "qosClass": qos_class(doc["spec"])} if isinstance(doc.get("spec"), dict) else {}
        case "namespaces":
            status = {"phase": "Active"}
        case "persistentvolumeclaims":
            status = {"phase": "Pending"}
        case "persistentvolumes":
            status = {"phase": "Pending"}
        case "statefulsets.apps" | "replicasets.apps":
            status = {"replicas": 0}
        case "services" | "ingresses.networking.k8s.io":
            status = {"loadBalancer": {}}
        case "poddisruptionbudgets.policy":
            status = {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}
    if resource.custom is None:
        doc["status"] = status


def carry_over(resource: Resource, doc: Doc, old: Doc) -> None:
    """On update: what a client may leave out and the server keeps."""
    spec, was = doc.get("spec"), old.get("spec") or {}
    if not isinstance(spec, dict):
        return
    if resource.key == "services":
        for key in ("clusterIP", "clusterIPs", "healthCheckNodePort"):
            if not spec.get(key) and was.get(key) and spec.get("type") != "ExternalName":
                spec[key] = clone(was[key])
    elif resource.key == "persistentvolumeclaims":
        for key in ("volumeName", "storageClassName"):
            if key not in spec and key in was:
                spec[key] = was[key]
    elif resource.key == "jobs.batch":
        for key in ("selector",):
            if key not in spec and key in was:
                spec[key] = clone(was[key])
        for key, value in ((was.get("template") or {}).get("metadata") or {}).get("labels", {}).items():
            if key in _JOB_LABELS:
                spec.setdefault("template", {}).setdefault("metadata", {}).setdefault("labels", {}).setdefault(key, value)
    elif resource.key == "pods":
        for key in ("nodeName", "serviceAccountName", "serviceAccount", "priority", "preemptionPolicy", "tolerations"):
            if key not in spec and key in was:
                spec[key] = clone(was[key])
    elif resource.key == "namespaces":
        spec["finalizers"] = clone(was.get("finalizers") or [])


# --- pods ------------------------------------------------------------------------------------------------------------


def pod_spec(spec: Doc) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    if spec.get("serviceAccountName"):
        spec["serviceAccount"] = spec["serviceAccountName"]
    elif spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"]
    for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ()), *(spec.get("ephemeralContainers") or ())]:
        _container(container, host_network=bool(spec.get("hostNetwork")))
    for volume in spec.get("volumes") or ():
        _volume(volume)
    for constraint in spec.get("topologySpreadConstraints") or ():
        constraint.setdefault("nodeAffinityPolicy", "Honor")
        constraint.setdefault("nodeTaintsPolicy", "Ignore")


def _container(container: Doc, *, host_network: bool) -> None:
    image = str(container.get("image") or "")
    latest = ":" not in image.rsplit("/", 1)[-1].split("@")[0] if "@" not in image else False
    container.setdefault("imagePullPolicy", "Always" if image and (latest or image.endswith(":latest")) else "IfNotPresent")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    resources = container.setdefault("resources", {})
    limits = resources.get("limits") or {}
    if limits:
        requests = resources.setdefault("requests", {})
        for key, value in limits.items():
            requests.setdefault(key, value)
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if host_network and port.get("containerPort"):
            port.setdefault("hostPort", port["containerPort"])
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if isinstance(container.get(probe), dict):
            _probe(container[probe])
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict) and "httpGet" in hook:
            _http_get(hook["httpGet"])
    for variable in container.get("env") or ():
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference is not None:
            reference.setdefault("apiVersion", "v1")
        resource = (variable.get("valueFrom") or {}).get("resourceFieldRef")
        if resource is not None:
            resource.setdefault("divisor", "0")


def _probe(probe: Doc) -> None:
    for key, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        if not probe.get(key):
            probe[key] = value
    if "httpGet" in probe:
        _http_get(probe["httpGet"])
    if "grpc" in probe:
        probe["grpc"].setdefault("service", "")


def _http_get(action: Doc) -> None:
    if not action.get("path"):
        action["path"] = "/"
    if not action.get("scheme"):
        action["scheme"] = "HTTP"


def _volume(volume: Doc) -> None:
    if not any(key != "name" for key in volume):
        volume["emptyDir"] = {}
    for key in ("secret", "configMap", "downwardAPI", "projected"):
        if isinstance(volume.get(key), dict):
            volume[key].setdefault("defaultMode", 420)
    items = list((volume.get("downwardAPI") or {}).get("items") or ())
    for source in (volume.get("projected") or {}).get("sources") or ():
        items += (source.get("downwardAPI") or {}).get("items") or ()
        if "serviceAccountToken" in source:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
    for item in items:
        if "fieldRef" in item:
            item["fieldRef"].setdefault("apiVersion", "v1")
        if "resourceFieldRef" in item:
            item["resourceFieldRef"].setdefault("divisor", "0")
    if isinstance(volume.get("hostPath"), dict):
        volume["hostPath"].setdefault("type", "")


def qos_class(spec: Doc) -> str:
    """Guaranteed, Burstable or BestEffort, by the requests and limits of CPU and memory."""
    requests: set[str] = set()
    guaranteed = True
    for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
        resources = container.get("resources") or {}
        limits, wanted = resources.get("limits") or {}, resources.get("requests") or {}
        requests |= {key for key in (*limits, *wanted) if key in {"cpu", "memory"} and (wanted.get(key) or limits.get(key)) != "0"}
        guaranteed &= all(key in limits and wanted.get(key, limits[key]) == limits[key] for key in ("cpu", "memory"))
    if not requests:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _pod(doc: Doc) -> None:
    spec = doc.setdefault("spec", {})
    pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)


def _template(spec: Doc) -> None:
    template = spec.get("template")
    if isinstance(template, dict) and isinstance(template.get("spec"), dict):
        template.setdefault("metadata", {})
        pod_spec(template["spec"])


# --- workloads -------------------------------------------------------------------------------------------------------


def _replicas(spec: Doc) -> None:
    spec.setdefault("replicas", 1)
    _template(spec)


def _statefulset(doc: Doc) -> None:
    spec = doc.setdefault("spec", {})
    _replicas(spec)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = spec.setdefault("updateStrategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
    retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    retention.setdefault("whenDeleted", "Retain")
    retention.setdefault("whenScaled", "Retain")
    for claim in spec.get("volumeClaimTemplates") or ():
        claim.setdefault("apiVersion", "v1")
        claim.setdefault("kind", "PersistentVolumeClaim")
        _claim(claim)
        claim.setdefault("status", {"phase": "Pending"})


def _deployment(doc: Doc) -> None:
    spec = doc.setdefault("spec", {})
    _replicas(spec)
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)


def _replicaset(doc: Doc) -> None:
    _replicas(doc.setdefault("spec", {}))


_JOB_LABELS = ("controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name")


def _job(doc: Doc) -> None:
    spec = doc.setdefault("spec", {})
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = spec["parallelism"] = 1
    spec.setdefault("parallelism", 1)
    if "backoffLimitPerIndex" not in spec:
        spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    spec.setdefault("podReplacementPolicy", "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed")
    _template(spec)
    uid, name = doc["metadata"].get("uid"), doc["metadata"].get("name")
    if uid and not spec["manualSelector"] and isinstance(spec.get("template"), dict) and "selector" not in spec:
        labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
        labels.update(zip(_JOB_LABELS, (uid, name, uid, name), strict=True))
        spec["selector"] = {"matchLabels": {_JOB_LABELS[2]: uid}}


# --- the rest --------------------------------------------------------------------------------------------------------


def _service(doc: Doc) -> None:
    spec = doc.setdefault("spec", {})
    spec.setdefault("sessionAffinity", "None")
    spec.setdefault("type", "ClusterIP")
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] in {"NodePort", "LoadBalancer"}:
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if not port.get("targetPort"):
            port["targetPort"] = port.get("port")


def _claim(doc: Doc) -> None:
    doc.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")


def _volume_object(doc: Doc) -> None:
    spec = doc.setdefault("spec", {})
    spec.setdefault("volumeMode", "Filesystem")
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")


def _namespace(doc: Doc) -> None:
    doc.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    name = doc["metadata"].get("name")
    if name:
        doc["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name


def _secret(doc: Doc) -> None:
    doc.setdefault("type", "Opaque")
    plain = doc.pop("stringData", None)
    for key, value in (plain or {}).items():
        doc.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()
    for value in (doc.get("data") or {}).values():
        try:
            base64.b64decode(value, validate=True)
        except ValueError:
            raise bad_request('Secret in version "v1" cannot be handled as a Secret: illegal base64 data at input byte 0') from None


def _network_policy(doc: Doc) -> None:
    spec = doc.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    spec.setdefault("policyTypes", ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    for rule in [*(spec.get("ingress") or ()), *(spec.get("egress") or ())]:
        for port in rule.get("ports") or ():
            port.setdefault("protocol", "TCP")


def _storage_class(doc: Doc) -> None:
    doc.setdefault("reclaimPolicy", "Delete")
    doc.setdefault("volumeBindingMode", "Immediate")


def _priority_class(doc: Doc) -> None:
    doc.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _node(doc: Doc) -> None:
    doc.setdefault("spec", {})


def _limit_range(doc: Doc) -> None:
    for item in (doc.get("spec") or {}).get("limits") or ():
        if item.get("type") == "Container":
            limits = item.setdefault("default", {})
            for key, value in (item.get("max") or {}).items():
                limits.setdefault(key, value)
            requests = item.setdefault("defaultRequest", {})
            for source in (item["default"], item.get("min") or {}):
                for key, value in source.items():
                    requests.setdefault(key, value)
            for key in ("default", "defaultRequest"):
                if not item[key]:
                    del item[key]


def _binding(doc: Doc) -> None:
    if isinstance(doc.get("roleRef"), dict):
        doc["roleRef"].setdefault("apiGroup", "rbac.authorization.k8s.io")
    for subject in doc.get("subjects") or ():
        if subject.get("kind") in {"User", "Group"}:
            subject.setdefault("apiGroup", "rbac.authorization.k8s.io")


def _crd(doc: Doc) -> None:
    spec = doc.setdefault("spec", {})
    names = spec.get("names")
    if isinstance(names, dict) and names.get("kind"):
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", names["kind"] + "List")
    spec.setdefault("conversion", {}).setdefault("strategy", "None")


def _event(doc: Doc) -> None:
    for key, value in (
        ("source", {}),
        ("firstTimestamp", None),
        ("lastTimestamp", None),
        ("eventTime", None),
        ("reportingComponent", ""),
        ("reportingInstance", ""),
    ):
        doc.setdefault(key, value)


_BY_KEY: dict[str, Any] = {
    "pods": _pod,
    "statefulsets.apps": _statefulset,
    "deployments.apps": _deployment,
    "replicasets.apps": _replicaset,
    "jobs.batch": _job,
    "services": _service,
    "persistentvolumeclaims": _claim,
    "persistentvolumes": _volume_object,
    "namespaces": _namespace,
    "secrets": _secret,
    "networkpolicies.networking.k8s.io": _network_policy,
    "storageclasses.storage.k8s.io": _storage_class,
    "priorityclasses.scheduling.k8s.io": _priority_class,
    "nodes": _node,
    "limitranges": _limit_range,
    "rolebindings.rbac.authorization.k8s.io": _binding,
    "clusterrolebindings.rbac.authorization.k8s.io": _binding,
    "customresourcedefinitions.apiextensions.k8s.io": _crd,
    "events": _event,
}
