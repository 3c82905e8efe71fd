"""ConfigMaps, Secrets, quotas, limits, priority classes, roles, budgets, CustomResourceDefinitions."""

from __future__ import annotations

from collections.abc import Iterator

from .. import names, quantity
from ..documents import Doc, name_of
from ..errors import Cause, duplicate, forbidden_field, invalid_value, not_supported, required, too_long
from .selectors import label_selector

MAX_BYTES = 1024 * 1024
_SECRET_KEYS = {
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",), "kubernetes.io/dockercfg": (".dockercfg",), "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}  # fmt: skip
_QUOTA_RESOURCES = {
    "cpu", "memory", "ephemeral-storage", "pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps", "persistentvolumeclaims",
    "services.nodeports", "services.loadbalancers", "requests.cpu", "requests.memory", "requests.storage", "requests.ephemeral-storage", "limits.cpu",
    "limits.memory", "limits.ephemeral-storage", "storage",
}  # fmt: skip


def configmap(doc: Doc) -> Iterator[Cause]:
    plain, binary = doc.get("data") or {}, doc.get("binaryData") or {}
    for field, found in (("data", plain), ("binaryData", binary)):
        for key in found:
            for why in names.config_key(key):
                yield invalid_value(f"{field}[{key}]", key, why)
    for key in plain.keys() & binary.keys():
        yield invalid_value(f"data[{key}]", key, "duplicate of key present in binaryData")
    if sum(len(value.encode()) for value in plain.values()) + sum(len(value) * 3 // 4 for value in binary.values()) > MAX_BYTES:
        yield too_long("", MAX_BYTES)


def immutable_update(doc: Doc, old: Doc) -> Iterator[Cause]:
    if not old.get("immutable"):
        return
    if not doc.get("immutable"):
        yield forbidden_field("immutable", "field is immutable when `immutable` is set")
    for key in ("data", "binaryData"):
        if doc.get(key) != old.get(key):
            yield forbidden_field(key, "field is immutable when `immutable` is set")


def secret(doc: Doc) -> Iterator[Cause]:
    data = doc.get("data") or {}
    for key in data:
        for why in names.config_key(key):
            yield invalid_value(f"data[{key}]", key, why)
    if sum(len(value) * 3 // 4 for value in data.values()) > MAX_BYTES:
        yield too_long("data", MAX_BYTES)
    for key in _SECRET_KEYS.get(doc.get("type", ""), ()):
        if key not in data:
            yield required(f"data[{key}]")


def secret_update(doc: Doc, old: Doc) -> Iterator[Cause]:
    if doc.get("type") != old.get("type"):
        yield invalid_value("type", doc.get("type"), "field is immutable")
    yield from immutable_update(doc, old)


def quota(doc: Doc) -> Iterator[Cause]:
    for key, value in ((doc.get("spec") or {}).get("hard") or {}).items():
        at = f"spec.hard[{key}]"
        for why in names.qualified(key):
            yield invalid_value(at, key, why)
        known = (
            key in _QUOTA_RESOURCES or key.startswith(("count/", "hugepages-", "requests.hugepages-")) or "/" in key or ".storageclass.storage.k8s.io/" in key
        )
        if not known:
            yield invalid_value(at, key, "must be a standard resource for quota")
        number = quantity.parse(value)
        if number < 0:
            yield invalid_value(at, value, "must be greater than or equal to 0")
        counted = key in {"pods", "services", "configmaps", "secrets", "persistentvolumeclaims"} or key.startswith("count/")
        counted = counted or (key.startswith("requests.") and "/" in key)
        if counted and number != number.to_integral_value():
            yield invalid_value(at, value, "must be an integer")


def limit_range(doc: Doc) -> Iterator[Cause]:
    for index, item in enumerate((doc.get("spec") or {}).get("limits") or ()):
        at = f"spec.limits[{index}]"
        if not item.get("type"):
            yield required(f"{at}.type")
        if item.get("type") == "Pod":
            for key in ("default", "defaultRequest"):
                if item.get(key):
                    yield forbidden_field(f"{at}.{key}", "may not be specified when `type` is 'Pod'")
        for low, high in (
            ("min", "max"),
            ("min", "defaultRequest"),
            ("min", "default"),
            ("defaultRequest", "default"),
            ("default", "max"),
            ("defaultRequest", "max"),
        ):
            for key, value in (item.get(low) or {}).items():
                limit = (item.get(high) or {}).get(key)
                if limit is not None and quantity.parse(value) > quantity.parse(limit):
                    field = low if low != "min" or high == "max" else high
                    yield invalid_value(f"{at}.{field}[{key}]", value if field == low else limit, f"{low} value {value} is greater than {high} value {limit}")


def priority_class(doc: Doc) -> Iterator[Cause]:
    name, value = name_of(doc), doc.get("value", 0)
    system = name in {"system-node-critical", "system-cluster-critical"}
    if name.startswith("system-") and not system:
        yield forbidden_field("metadata.name", "priority class names with 'system-' prefix are reserved for system use only. error: only system-node-critical, "
                              "system-cluster-critical priority classes are allowed")  # fmt: skip
    if value > 1_000_000_000 and not system:
        yield forbidden_field("value", "maximum allowed value of a user defined priority is 1000000000")
    if doc.get("preemptionPolicy") not in {"PreemptLowerPriority", "Never"}:
        yield not_supported("preemptionPolicy", doc.get("preemptionPolicy"), ("Never", "PreemptLowerPriority"))


def priority_class_update(doc: Doc, old: Doc) -> Iterator[Cause]:
    if doc.get("value", 0) != old.get("value", 0):
        yield forbidden_field("value", "may not be changed in an update.")
    if doc.get("preemptionPolicy") != old.get("preemptionPolicy"):
        yield invalid_value("preemptionPolicy", doc.get("preemptionPolicy"), "field is immutable")


def budget(doc: Doc) -> Iterator[Cause]:
    spec = doc.get("spec") or {}
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        yield invalid_value("spec", spec, "minAvailable and maxUnavailable cannot be both set")
    yield from label_selector(spec.get("selector") or {}, "spec.selector")


def role(doc: Doc) -> Iterator[Cause]:
    for index, rule in enumerate(doc.get("rules") or ()):
        at = f"rules[{index}]"
        if not rule.get("verbs"):
            yield required(f"{at}.verbs", "verbs must contain at least one value")
        if not rule.get("nonResourceURLs"):
            if "apiGroups" not in rule:
                yield required(f"{at}.apiGroups", "resource rules must supply at least one api group")
            if not rule.get("resources"):
                yield required(f"{at}.resources", "resource rules must supply at least one resource")


def role_binding(doc: Doc) -> Iterator[Cause]:
    reference = doc.get("roleRef") or {}
    if reference.get("kind") not in {"Role", "ClusterRole"}:
        yield not_supported("roleRef.kind", reference.get("kind", ""), ("ClusterRole", "Role"))
    for index, subject in enumerate(doc.get("subjects") or ()):
        if subject.get("kind") not in {"User", "Group", "ServiceAccount"}:
            yield not_supported(f"subjects[{index}].kind", subject.get("kind", ""), ("Group", "ServiceAccount", "User"))
        elif subject["kind"] == "ServiceAccount" and not subject.get("namespace") and doc.get("kind") == "ClusterRoleBinding":
            yield required(f"subjects[{index}].namespace")


def role_ref_update(doc: Doc, old: Doc) -> Iterator[Cause]:
    if doc.get("roleRef") != old.get("roleRef"):
        yield invalid_value("roleRef", doc.get("roleRef"), "cannot change roleRef")


def crd(doc: Doc) -> Iterator[Cause]:
    spec = doc.get("spec") or {}
    given = spec.get("names") or {}
    wanted = f"{given.get('plural', '')}.{spec.get('group', '')}"
    if name_of(doc) != wanted:
        yield invalid_value("metadata.name", name_of(doc), 'must be spec.names.plural+"."+spec.group')
    if spec.get("scope") not in {"Namespaced", "Cluster"}:
        yield not_supported("spec.scope", spec.get("scope", ""), ("Cluster", "Namespaced"))
    versions = spec.get("versions") or []
    seen: set[str] = set()
    for index, version in enumerate(versions):
        at = f"spec.versions[{index}]"
        for why in names.label_1035(version.get("name", "")):
            yield invalid_value(f"{at}.name", version.get("name", ""), why)
        if version.get("name") in seen:
            yield duplicate(f"{at}.name", version["name"])
        seen.add(version.get("name", ""))
        if not (version.get("schema") or {}).get("openAPIV3Schema"):
            yield required(f"{at}.schema.openAPIV3Schema", "schemas are required")
    if sum(bool(version.get("storage")) for version in versions) != 1:
        yield invalid_value("spec.versions", [version.get("name") for version in versions], "must have exactly one version marked as storage version")
