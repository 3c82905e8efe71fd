"""LimitRanger: defaults of containers, and limits of containers, pods and claims."""

from __future__ import annotations

from decimal import Decimal

from .. import quantity
from ..documents import Doc, at, name_of, namespace_of
from ..errors import forbidden
from ..kinds import Resource
from ..store import Store

ANNOTATION = "kubernetes.io/limit-ranger"


def fill(store: Store, pod: Doc) -> None:
    for limit_range in store.docs("limitranges", namespace_of(pod)):
        for item in at(limit_range, "spec.limits", []):
            if item.get("type") == "Container":
                _fill_containers(pod, item)


def _fill_containers(pod: Doc, item: Doc) -> None:
    notes: list[str] = []
    spec = pod["spec"]
    for word, group in (("container", spec.get("containers") or ()), ("init container", spec.get("initContainers") or ())):
        for container in group:
            for field, source in (("limits", item.get("default") or {}), ("requests", item.get("defaultRequest") or {})):
                have = container.setdefault("resources", {}).get(field) or {}
                missing = {key: value for key, value in source.items() if key not in have}
                if missing:
                    container["resources"][field] = {**have, **missing}
                    notes.append(f"{', '.join(sorted(missing))} {field[:-1]} for {word} {container.get('name', '')}")
    if notes:
        annotations = pod["metadata"].setdefault("annotations", {})
        annotations[ANNOTATION] = "LimitRanger plugin set: " + "; ".join(notes)


def check(store: Store, resource: Resource, doc: Doc, old: Doc | None) -> None:
    """403 for what lies outside a LimitRange."""
    if resource.key not in {"pods", "persistentvolumeclaims"} or (old is not None and resource.key == "pods"):
        return
    found: list[str] = []
    for limit_range in store.docs("limitranges", namespace_of(doc)):
        for item in at(limit_range, "spec.limits", []):
            kind = item.get("type")
            if kind == "Container" and resource.key == "pods":
                for container in doc["spec"].get("containers") or ():
                    found += _outside(item, container.get("resources") or {}, "Container")
            elif kind == "Pod" and resource.key == "pods":
                found += _outside(item, pod_total(doc["spec"]), "Pod")
            elif kind == "PersistentVolumeClaim" and resource.key == "persistentvolumeclaims":
                requests = at(doc, "spec.resources.requests", {})
                found += _outside(item, {"requests": requests, "limits": requests}, "PersistentVolumeClaim")
    if found:
        raise forbidden(resource.group, resource.plural, name_of(doc), found[0] if len(found) == 1 else f"[{', '.join(found)}]")


def _outside(item: Doc, resources: Doc, kind: str) -> list[str]:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    found = []
    for key, bound in (item.get("min") or {}).items():
        value = requests.get(key, limits.get(key))
        if value is None:
            found.append(f"minimum {key} usage per {kind} is {bound}.  No request is specified")
        elif quantity.parse(value) < quantity.parse(bound):
            found.append(f"minimum {key} usage per {kind} is {bound}, but request is {value}")
    for key, bound in (item.get("max") or {}).items():
        value = limits.get(key)
        if value is None:
            found.append(f"maximum {key} usage per {kind} is {bound}.  No limit is specified")
        elif quantity.parse(value) > quantity.parse(bound):
            found.append(f"maximum {key} usage per {kind} is {bound}, but limit is {value}")
    for key, ratio in (item.get("maxLimitRequestRatio") or {}).items():
        if key in limits and key in requests and quantity.parse(requests[key]) > 0:
            actual = quantity.parse(limits[key]) / quantity.parse(requests[key])
            if actual > quantity.parse(ratio):
                found.append(f"{key} max limit to request ratio per {kind} is {ratio}, but provided ratio is {float(actual):f}")
    return found


def pod_total(spec: Doc) -> Doc:
    """Requests and limits of a whole pod: its containers and sidecars together, or its largest init container."""
    total: dict[str, dict[str, str]] = {}
    for field in ("requests", "limits"):
        running: dict[str, Decimal] = {}
        peak: dict[str, Decimal] = {}
        binary: set[str] = set()

        def amounts(container: Doc, field: str = field, binary: set[str] = binary) -> dict[str, Decimal]:
            given = (container.get("resources") or {}).get(field) or {}
            binary.update(key for key, value in given.items() if quantity.is_binary(value))
            return {key: quantity.parse(value) for key, value in given.items()}

        for container in spec.get("initContainers") or ():
            mine = amounts(container)
            if container.get("restartPolicy") == "Always":
                for key, value in mine.items():
                    running[key] = running.get(key, Decimal(0)) + value
                mine = {}
            for key, value in {**running, **{k: v + running.get(k, Decimal(0)) for k, v in mine.items()}}.items():
                peak[key] = max(peak.get(key, Decimal(0)), value)
        for container in spec.get("containers") or ():
            for key, value in amounts(container).items():
                running[key] = running.get(key, Decimal(0)) + value
        for key, value in (spec.get("overhead") or {}).items():
            running[key] = running.get(key, Decimal(0)) + quantity.parse(value)
        for key, value in peak.items():
            running[key] = max(running.get(key, Decimal(0)), value)
        total[field] = {key: quantity.write(value, binary=key in binary) for key, value in running.items()}
    return total
