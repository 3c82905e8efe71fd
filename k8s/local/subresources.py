"""Scale, binding and eviction."""

from __future__ import annotations

import math
from typing import Any

from .documents import Doc, at, clone, meta, name_of, namespace_of
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
    for budget in objects.store.docs("poddisruptionbudgets.policy", namespace):
        if matches_selector(at(budget, "spec.selector"), meta(pod).get("labels") or {}) and _ready(pod) and _allowed(objects, budget) < 1:
            cause = {"reason": "DisruptionBudget", "message": f"The disruption budget {name_of(budget)} does not allow evicting this pod now"}
            raise StatusError(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.", {"causes": [cause]})
    options = (given.get("deleteOptions") or {}) if isinstance(given, dict) else {}
    if options.get("dryRun"):
        request.dry_run = True
    objects.delete(pods, namespace, name, {**options, "propagationPolicy": "Background"}, request)
    return {**_OK, "code": 201}


def _ready(pod: Doc) -> bool:
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in at(pod, "status.conditions", []))


def _allowed(objects: Objects, budget: Doc) -> int:
    """How many pods of a budget may go now, counted afresh."""
    pods = [each for each in objects.store.docs("pods", namespace_of(budget)) if matches_selector(at(budget, "spec.selector"), meta(each).get("labels") or {})]
    healthy = sum(_ready(each) and not meta(each).get("deletionTimestamp") for each in pods)
    spec = budget["spec"]
    if spec.get("minAvailable") is not None:
        return healthy - _count(spec["minAvailable"], len(pods))
    if spec.get("maxUnavailable") is not None:
        return healthy - (len(pods) - _count(spec["maxUnavailable"], len(pods)))
    return healthy


def _count(value: Any, of: int) -> int:
    return math.ceil(of * int(value.rstrip("%")) / 100) if isinstance(value, str) else int(value)
