"""What is served: /api, /apis, the group versions, in the plain and in the aggregated form, and /version."""

from __future__ import annotations

import platform
from typing import Any

from . import metrics
from .documents import Doc
from .kinds import Kinds, Resource
from .reviews import GROUPS

JSON = "application/json"
VERSION = "v1.36.0"
_ORDER = ["", "apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io", "batch", "networking.k8s.io", "policy", "rbac.authorization.k8s.io",
          "storage.k8s.io", "apiextensions.k8s.io", "scheduling.k8s.io", "coordination.k8s.io", "node.k8s.io", "discovery.k8s.io"]  # fmt: skip
_REVIEWS = {
    "authorization.k8s.io": (
        ("SelfSubjectAccessReview", "selfsubjectaccessreviews"),
        ("SelfSubjectRulesReview", "selfsubjectrulesreviews"),
        ("SubjectAccessReview", "subjectaccessreviews"),
    ),
    "authentication.k8s.io": (("SelfSubjectReview", "selfsubjectreviews"),),
}
_POD_SUBRESOURCES = (
    ("attach", "PodAttachOptions", "", ["create", "get"]),
    ("binding", "Binding", "", ["create"]),
    ("eviction", "Eviction", "policy/v1", ["create"]),
    ("exec", "PodExecOptions", "", ["create", "get"]),
    ("log", "Pod", "", ["get"]),
    ("portforward", "PodPortForwardOptions", "", ["create", "get"]),
)


def version() -> Doc:
    return {
        "major": "1",
        "minor": "36",
        "gitVersion": f"{VERSION}+atelier",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "2026-04-22T00:00:00Z",
        "goVersion": "none",
        "compiler": "python",
        "platform": f"linux/{'arm64' if platform.machine() == 'aarch64' else 'amd64'}",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
    }


def respond(kinds: Kinds, parts: list[str], accept: str, host: str) -> tuple[Any, str] | None:
    """The document at a discovery path and its media type; None when there is nothing there."""
    if parts == ["version"]:
        return version(), JSON
    if parts in (["api"], ["apis"]):
        for form in ("v2", "v2beta1"):
            if f"g=apidiscovery.k8s.io;v={form};as=APIGroupDiscoveryList" in accept.replace(" ", ""):
                return _aggregated(kinds, parts[0], form), f"{JSON};g=apidiscovery.k8s.io;v={form};as=APIGroupDiscoveryList"
        if parts == ["api"]:
            address = {"clientCIDR": "0.0.0.0/0", "serverAddress": host}
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [address]}, JSON
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name, versions) for name, versions in groups(kinds) if name]}, JSON
    if parts == ["api", "v1"]:
        return _resources(kinds, "", "v1"), JSON
    known = dict(groups(kinds))
    if len(parts) == 2 and parts[0] == "apis" and parts[1] in known:
        return {"kind": "APIGroup", "apiVersion": "v1", **_group(parts[1], known[parts[1]])}, JSON
    if len(parts) == 3 and parts[0] == "apis" and parts[2] in known.get(parts[1], ()):
        return _resources(kinds, parts[1], parts[2]), JSON
    if not parts[0]:
        return {
            "paths": [
                "/api",
                "/api/v1",
                "/apis",
                *[f"/apis/{name}" for name in known if name],
                "/healthz",
                "/livez",
                "/metrics",
                "/openapi/v2",
                "/openapi/v3",
                "/readyz",
                "/version",
            ]
        }, JSON
    return None


def groups(kinds: Kinds) -> list[tuple[str, list[str]]]:
    """Group names and their versions, newest first, in the order of a real API server; custom ones last."""
    found = kinds.groups()
    for name in GROUPS:
        found.setdefault(name, ["v1"])
    found.setdefault(metrics.GROUP, [metrics.VERSION])
    return sorted(found.items(), key=lambda each: (_ORDER.index(each[0]) if each[0] in _ORDER else len(_ORDER), each[0]))


def _group(name: str, versions: list[str]) -> Doc:
    listed = [{"groupVersion": f"{name}/{each}", "version": each} for each in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _of(kinds: Kinds, group: str, version: str) -> list[Resource]:
    return [each for each in kinds.all() if each.group == group and each.version == version]


def _subresources(resource: Resource) -> list[tuple[str, str, str, list[str]]]:
    """Name, kind, another group version where it has one, verbs."""
    found: list[tuple[str, str, str, list[str]]] = list(_POD_SUBRESOURCES) if resource.key == "pods" else []
    if resource.key == "namespaces":
        found.append(("finalize", "Namespace", "", ["update"]))
    if resource.scale:
        found.append(("scale", "Scale", "autoscaling/v1", ["get", "patch", "update"]))
    if resource.status:
        found.append(("status", resource.kind, "", ["get", "patch", "update"]))
    return found


def _resources(kinds: Kinds, group: str, version: str) -> Doc:
    listed: list[Doc] = []
    for resource in _of(kinds, group, version):
        entry: Doc = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": resource.verbs,
        }
        if resource.short:
            entry["shortNames"] = list(resource.short)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        if resource.key == "namespaces":
            entry["verbs"] = [each for each in resource.verbs if each != "deletecollection"]
        listed.append(entry)
        for name, kind, other, verbs in _subresources(resource):
            sub: Doc = {"name": f"{resource.plural}/{name}", "singularName": "", "namespaced": resource.namespaced, "kind": kind, "verbs": verbs}
            if other:
                sub["group"], _, sub["version"] = other.rpartition("/")
            listed.append(sub)
    for kind, plural in _REVIEWS.get(group, ()):
        listed.append({"name": plural, "singularName": kind.lower(), "namespaced": False, "kind": kind, "verbs": ["create"]})
    if group == metrics.GROUP:
        for plural, kind, namespaced in metrics.RESOURCES:
            listed.append({"name": plural, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"]})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{group}/{version}" if group else version, "resources": listed}


def _aggregated(kinds: Kinds, root: str, form: str) -> Doc:
    items = []
    for name, versions in groups(kinds):
        if (root == "api") is not (name == ""):
            continue
        item: Doc = {"metadata": {"creationTimestamp": None}, "versions": []}
        if name:
            item["metadata"]["name"] = name
        for each in versions:
            item["versions"].append({"version": each, "resources": _aggregated_resources(kinds, name, each), "freshness": "Current"})
        items.append(item)
    return {"kind": "APIGroupDiscoveryList", "apiVersion": f"apidiscovery.k8s.io/{form}", "metadata": {}, "items": items}


def _aggregated_resources(kinds: Kinds, group: str, version: str) -> list[Doc]:
    found: list[Doc] = []
    for resource in _of(kinds, group, version):
        entry: Doc = {
            "resource": resource.plural,
            "responseKind": {"group": group, "version": version, "kind": resource.kind},
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "singularResource": resource.singular,
            "verbs": resource.verbs,
        }
        if resource.short:
            entry["shortNames"] = list(resource.short)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        subs = []
        for name, kind, other, verbs in _subresources(resource):
            other_group, _, other_version = other.rpartition("/")
            subs.append(
                {
                    "subresource": name,
                    "responseKind": {"group": other_group if other else group, "version": other_version if other else version, "kind": kind},
                    "verbs": verbs,
                }
            )
        if subs:
            entry["subresources"] = subs
        found.append(entry)
    for kind, plural in _REVIEWS.get(group, ()):
        found.append(
            {
                "resource": plural,
                "responseKind": {"group": group, "version": version, "kind": kind},
                "scope": "Cluster",
                "singularResource": kind.lower(),
                "verbs": ["create"],
            }
        )
    if group == metrics.GROUP:
        for plural, kind, namespaced in metrics.RESOURCES:
            response = {"group": group, "version": version, "kind": kind}
            scope = "Namespaced" if namespaced else "Cluster"
            found.append({"resource": plural, "responseKind": response, "scope": scope, "singularResource": "", "verbs": ["get", "list"]})
    return found
