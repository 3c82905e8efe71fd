"""ResourceQuota: use is counted from the objects themselves, so it cannot drift; `status.used` shows it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from .. import quantity
from ..documents import Doc, at, clone, name_of, namespace_of
from ..errors import forbidden
from ..kinds import Resource
from ..store import Store
from .limits import pod_total

Amounts = dict[str, Decimal]
_COUNTED = {"services", "secrets", "configmaps", "persistentvolumeclaims", "resourcequotas", "replicationcontrollers"}
_COMPUTE = {"cpu", "memory", "ephemeral-storage"}
_ZERO = Decimal(0)
_CLAIMS, _CLASS_DEVICES = "resourceclaims.resource.k8s.io", ".deviceclass.resource.k8s.io/devices"


def usage(resource: Resource, doc: Doc) -> Amounts:
    """What one object counts for, under every name that a quota may limit it by."""
    if resource.key == "pods":
        return _pod_usage(doc)
    found: Amounts = {f"count/{resource.key}": Decimal(1)}
    if resource.key in _COUNTED:
        found[resource.key] = Decimal(1)
    if resource.key == "persistentvolumeclaims":
        size = quantity.parse(at(doc, "spec.resources.requests.storage", "0"))
        found["requests.storage"] = size
        name = at(doc, "spec.storageClassName", "")
        if name:
            found[f"{name}.storageclass.storage.k8s.io/requests.storage"] = size
            found[f"{name}.storageclass.storage.k8s.io/persistentvolumeclaims"] = Decimal(1)
    elif resource.key == _CLAIMS:
        for request in at(doc, "spec.devices.requests", []):
            exactly = request.get("exactly") or {}
            key = f"{exactly.get('deviceClassName', '')}{_CLASS_DEVICES}"
            found[key] = found.get(key, _ZERO) + Decimal(int(exactly.get("count", 1)))
    elif resource.key == "services":
        kind = at(doc, "spec.type", "")
        ports = len(at(doc, "spec.ports", []))
        found["services.loadbalancers"] = Decimal(int(kind == "LoadBalancer"))
        found["services.nodeports"] = Decimal(ports if kind in {"NodePort", "LoadBalancer"} else 0)
    return found


def _pod_usage(pod: Doc) -> Amounts:
    found: Amounts = {"count/pods": Decimal(1)}
    if at(pod, "status.phase") in {"Succeeded", "Failed"}:
        return found  # finished pods use nothing but their place in the list
    found["pods"] = Decimal(1)
    total = pod_total(pod["spec"])
    for key, value in total["requests"].items():
        number = quantity.parse(value)
        found[f"requests.{key}"] = number
        if key in _COMPUTE or key.startswith("hugepages-"):
            found[key] = number
    for key, value in total["limits"].items():
        if key in _COMPUTE:
            found[f"limits.{key}"] = quantity.parse(value)
    return found


def _in_scope(quota: Doc, resource: Resource, doc: Doc) -> bool:
    spec = quota.get("spec") or {}
    wanted = [{"scopeName": each, "operator": "Exists"} for each in spec.get("scopes") or ()] + list(at(spec, "scopeSelector.matchExpressions", []))
    return all(resource.key == "pods" and _scope(each, doc) for each in wanted)


def _scope(requirement: Doc, pod: Doc) -> bool:
    spec = pod.get("spec") or {}
    match requirement.get("scopeName"):
        case "BestEffort":
            return at(pod, "status.qosClass") == "BestEffort"
        case "NotBestEffort":
            return at(pod, "status.qosClass") != "BestEffort"
        case "Terminating":
            return spec.get("activeDeadlineSeconds") is not None
        case "NotTerminating":
            return spec.get("activeDeadlineSeconds") is None
        case "PriorityClass":
            name, values = spec.get("priorityClassName", ""), requirement.get("values") or ()
            match requirement.get("operator"):
                case "In":
                    return name in values
                case "NotIn":
                    return name not in values
                case "Exists":
                    return bool(name)
                case "DoesNotExist":
                    return not name
    return False


def total(store: Store, quota: Doc, without: tuple[str, str] = ("", "")) -> Amounts:
    """What the namespace uses of what the quota limits, leaving out one object (storage key, name)."""
    hard = at(quota, "spec.hard", {})
    found: Amounts = dict.fromkeys(hard, _ZERO)
    for key in _stored_kinds(store, hard):
        for doc in store.docs(key, namespace_of(quota)):
            if (key, name_of(doc)) == without:
                continue
            resource = _as_resource(key)
            if _in_scope(quota, resource, doc):
                for name, amount in usage(resource, doc).items():
                    if name in found:
                        found[name] += amount
    return found


def _stored_kinds(store: Store, hard: dict[str, Any]) -> list[str]:
    keys: set[str] = set()
    for name in hard:
        if name.startswith("count/"):
            keys.add(name.removeprefix("count/"))
        elif name in _COUNTED:
            keys.add(name)
        elif name.startswith("services."):
            keys.add("services")
        elif name == "requests.storage" or ".storageclass.storage.k8s.io/" in name:
            keys.add("persistentvolumeclaims")
        elif name.endswith(_CLASS_DEVICES):
            keys.add(_CLAIMS)
        else:
            keys.add("pods")
    return [key for key in keys if key in store.objects]


def _as_resource(key: str) -> Resource:
    plural, _, group = key.partition(".")
    return Resource(kind="", plural=plural, group=group)


def check(store: Store, resource: Resource, doc: Doc, old: Doc | None) -> None:
    """403 when the object would overshoot a quota of its namespace."""
    for quota in store.docs("resourcequotas", namespace_of(doc)) if resource.namespaced else ():
        hard = at(quota, "spec.hard", {})
        wanted = {key: value for key, value in usage(resource, doc).items() if key in hard}
        if not _in_scope(quota, resource, doc):
            continue
        if resource.key == "pods" and old is None:
            _must_specify(quota, doc)
        before = usage(resource, old) if old is not None and _in_scope(quota, resource, old) else {}
        grown = {key: value for key, value in wanted.items() if value > before.get(key, _ZERO)}
        if not grown:
            continue
        used = total(store, quota, (resource.store_key, name_of(doc)) if old is not None else ("", ""))
        over = sorted(key for key, value in grown.items() if used[key] + value > quantity.parse(hard[key]))
        if over:
            shown_used = {key: used[key] + before.get(key, _ZERO) for key in over}
            delta = {key: grown[key] - before.get(key, _ZERO) for key in over}
            limited = {key: hard[key] for key in over}
            why = f"exceeded quota: {name_of(quota)}, requested: {_text(delta, hard)}, used: {_text(shown_used, hard)}, limited: {_text(limited, hard)}"
            raise forbidden(resource.group, resource.plural, name_of(doc), why)


def _must_specify(quota: Doc, pod: Doc) -> None:
    """A quota on CPU or memory wants every container to say what it needs."""
    lacking: dict[str, list[str]] = {}
    for container in [*(pod["spec"].get("containers") or ()), *(pod["spec"].get("initContainers") or ())]:
        resources = container.get("resources") or {}
        for key in at(quota, "spec.hard", {}):
            field, _, name = key.rpartition(".")
            asked = name in {"cpu", "memory"} and field in {"", "requests", "limits"}
            if asked and name not in (resources.get(field or "requests") or {}):
                lacking.setdefault(key, []).append(container.get("name", ""))
    if lacking:
        text = "; ".join(f"{key} for: {','.join(sorted(lacking[key]))}" for key in sorted(lacking))
        raise forbidden("", "pods", name_of(pod), f"failed quota: {name_of(quota)}: must specify {text}")


def _text(amounts: dict[str, Any], hard: dict[str, str]) -> str:
    return ",".join(f"{key}={_shown(amounts[key], hard[key])}" for key in sorted(amounts))


def _shown(amount: Any, like: str) -> str:
    return amount if isinstance(amount, str) else quantity.write(amount, binary=quantity.is_binary(like) or (amount >= 1024 * 1024 and amount % 1024 == 0))


def status(store: Store, quota: Doc) -> Doc:
    """The status that a quota should show now."""
    hard = at(quota, "spec.hard", {})
    return {"hard": dict(hard), "used": {key: _shown(value, hard[key]) for key, value in total(store, quota).items()}}


def charge(store: Store, resource: Resource, doc: Doc, old: Doc | None) -> None:
    """Adds an object that is about to be stored to the shown use, so that a reader right after the write sees it."""
    for quota in store.docs("resourcequotas", namespace_of(doc)) if resource.namespaced and resource.store_key != "events" else ():
        hard = at(quota, "spec.hard", {})
        mine = {key: value for key, value in usage(resource, doc).items() if key in hard and value}
        if not mine or not _in_scope(quota, resource, doc):
            continue
        used = total(store, quota, (resource.store_key, name_of(doc)) if old is not None else ("", ""))
        for key, value in mine.items():
            used[key] += value
        new = clone(quota)
        new["status"] = {"hard": dict(hard), "used": {key: _shown(value, hard[key]) for key, value in used.items()}}
        if new["status"] != quota.get("status"):
            store.put("resourcequotas", "ResourceQuota", new)
