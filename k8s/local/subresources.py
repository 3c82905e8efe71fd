"""Scale, binding and eviction."""

from __future__ import annotations

import math
from typing import Any

from .documents import Doc, at, clone, meta, name_of, namespace_of, now
from .errors import StatusError, bad_request, conflict, invalid, invalid_value
from .kinds import Resource
from .objects import Objects, Request
from .selectors import matches_selector

_OK: Doc = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def _path(resource: Resource, which: str, default: str) -> str:
    """Dotted path of spec or status replicas: a custom resource names its own."""
    declared = at(resource.custom or {}, f"subresources.scale.{which}", "")
    return str(declared or default).lstrip(".")


def scale_of(resource: Resource, doc: Doc) -> Doc:
    selector = at(doc, "spec.selector", {})
    if resource.custom:
        text = at(doc, _path(resource, "labelSelectorPath", "status.selector"), "")
    else:
        text = ",".join(f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items()))
    status: Doc = {"replicas": at(doc, _path(resource, "statusReplicasPath", "status.replicas"), 0)}
    if text:
        status["selector"] = text
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: value for key, value in meta(doc).items() if key in kept},
        "spec": {"replicas": at(doc, _path(resource, "specReplicasPath", "spec.replicas"), 0)},
        "status": status,
    }


def rescale(objects: Objects, resource: Resource, old: Doc, given: Any, request: Request) -> Doc:
    replicas = at(given, "spec.replicas", 0) if isinstance(given, dict) else None
    if not isinstance(replicas, int) or isinstance(replicas, bool):
        raise bad_request(
            'Scale in version "v1" cannot be handled as a Scale: json: cannot unmarshal string into Go struct field ScaleSpec.spec.replicas of type int32'
        )
    if replicas < 0:
        raise invalid("autoscaling", "Scale", name_of(old), [invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")])
    wanted = meta(given).get("resourceVersion")
    if wanted and wanted != meta(old)["resourceVersion"]:
        raise conflict(resource.group, resource.plural, name_of(old))
    new = clone(old)
    *parents, last = _path(resource, "specReplicasPath", "spec.replicas").split(".")
    place = new
    for step in parents:
        place = place.setdefault(step, {})
    place[last] = replicas
    return objects.update(resource, namespace_of(old), name_of(old), new, request)


def bind(objects: Objects, namespace: str, name: str, given: Any, request: Request) -> Doc:
    """What a scheduler does: places a pod on a node, once."""
    node = at(given, "target.name", "") if isinstance(given, dict) else ""
    pods = objects.kinds.named("Pod")
    pod = objects.live(pods, namespace, name)
    if not node:
        raise invalid("", "Binding", name, [invalid_value("target.name", node, "Required value")])
    if meta(pod).get("deletionTimestamp"):
        raise conflict("", "pods/binding", name, f"pod {name} is being deleted, cannot be assigned to a host")
    if pod["spec"].get("nodeName"):
        raise conflict("", "pods/binding", name, f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"')
    new = clone(pod)
    new["spec"]["nodeName"] = node
    objects.update(pods, namespace, name, new, Request(inside=True, dry_run=request.dry_run))
    return {**_OK, "code": 201}


def evict(objects: Objects, namespace: str, name: str, given: Any, request: Request) -> Doc:
    """Deletes a pod unless a PodDisruptionBudget forbids it just now (429)."""
    pods = objects.kinds.named("Pod")
    pod = objects.live(pods, namespace, name)
    options = (given.get("deleteOptions") or {}) if isinstance(given, dict) else {}
    if options.get("dryRun"):
        request.dry_run = True
    # What does not run, or goes already, disturbs nobody.
    if not meta(pod).get("deletionTimestamp") and at(pod, "status.phase") not in {"Pending", "Succeeded", "Failed"}:
        _ask_budgets(objects, pod)
        if not request.dry_run:
            objects.modify(pods, namespace, name, _disrupted)
    options = {key: value for key, value in options.items() if key != "dryRun"}
    objects.delete(pods, namespace, name, {**options, "propagationPolicy": "Background"}, request)
    return {**_OK, "code": 201}


def _ask_budgets(objects: Objects, pod: Doc) -> None:
    """StatusError: 429 when the pod's budget does not allow an eviction now, 500 when it has more than one."""
    labels = meta(pod).get("labels") or {}
    found = [item for item in objects.store.docs("poddisruptionbudgets.policy", namespace_of(pod)) if matches_selector(at(item, "spec.selector"), labels)]
    if len(found) > 1:
        raise StatusError(500, "InternalError", "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.")
    for budget in found:
        healthy, wanted = _health(objects, budget)
        spare = healthy > wanted if _ready(pod) else healthy >= wanted > 0
        if not spare and (_ready(pod) or at(budget, "spec.unhealthyPodEvictionPolicy") != "AlwaysAllow"):
            why = f"The disruption budget {name_of(budget)} needs {wanted} healthy pods and has {healthy} currently"
            cause = {"reason": "DisruptionBudget", "message": why}
            raise StatusError(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.", {"causes": [cause]})


def _disrupted(pod: Doc) -> None:
    status = pod.setdefault("status", {})
    kept = [item for item in status.get("conditions") or [] if item["type"] != "DisruptionTarget"]
    new = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting", "lastTransitionTime": now()}
    status["conditions"] = [*kept, new]


def _ready(pod: Doc) -> bool:
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in at(pod, "status.conditions", []))


def _health(objects: Objects, budget: Doc) -> tuple[int, int]:
    """How many pods of a budget are healthy and how many must be, counted afresh."""
    pods = [each for each in objects.store.docs("pods", namespace_of(budget)) if matches_selector(at(budget, "spec.selector"), meta(each).get("labels") or {})]
    healthy = sum(_ready(each) and not meta(each).get("deletionTimestamp") for each in pods)
    live = [each for each in pods if at(each, "status.phase") not in {"Succeeded", "Failed"}]
    return healthy, desired(budget["spec"], len(live))


def desired(spec: Doc, pods: int) -> int:
    """How many of a budget's pods must stay healthy."""
    if spec.get("maxUnavailable") is not None:
        return max(0, pods - _count(spec["maxUnavailable"], pods))
    return _count(spec.get("minAvailable", 1), pods)


def _count(value: Any, of: int) -> int:
    return math.ceil(of * int(value.rstrip("%")) / 100) if isinstance(value, str) else int(value)
