"""The kinds that are served: names, group and version, scope, what they can do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One served resource of one group and version."""

    kind: str
    plural: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    singular: str = ""
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False  # has the `status` subresource
    scale: bool = False
    schema: str = ""  # definition's name in `schema`; empty for custom resources without one
    storage: str = ""  # key under which objects are stored; differs from `key` for another view of the same objects
    generation: bool = False  # whether metadata.generation counts changes of spec
    custom: dict[str, Any] | None = field(default=None, compare=False)  # spec.versions[] of the CustomResourceDefinition
    priority: int = 100

    @property
    def key(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def store_key(self) -> str:
        return self.storage or self.key

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def verbs(self) -> list[str]:
        return ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def _r(kind: str, plural: str, group: str = "", short: str = "", **more: Any) -> Resource:
    more.setdefault("schema", kind)
    return Resource(kind=kind, plural=plural, group=group, singular=kind.lower(), short=tuple(short.split()), **more)


_ALL = ("all",)
BUILT_IN: tuple[Resource, ...] = (
    _r("Namespace", "namespaces", short="ns", namespaced=False, status=True),
    _r("Node", "nodes", short="no", namespaced=False, status=True),
    _r("Pod", "pods", short="po", categories=_ALL, status=True, generation=True),
    _r("Service", "services", short="svc", categories=_ALL, status=True),
    _r("Endpoints", "endpoints", short="ep"),
    _r("ConfigMap", "configmaps", short="cm"),
    _r("Secret", "secrets"),
    _r("PersistentVolumeClaim", "persistentvolumeclaims", short="pvc", status=True),
    _r("PersistentVolume", "persistentvolumes", short="pv", namespaced=False, status=True),
    _r("ServiceAccount", "serviceaccounts", short="sa"),
    _r("Event", "events", short="ev"),
    _r("ResourceQuota", "resourcequotas", short="quota", status=True),
    _r("LimitRange", "limitranges", short="limits"),
    _r("StatefulSet", "statefulsets", "apps", "sts", categories=_ALL, status=True, scale=True, generation=True),
    _r("Deployment", "deployments", "apps", "deploy", categories=_ALL, status=True, scale=True, generation=True),
    _r("ReplicaSet", "replicasets", "apps", "rs", categories=_ALL, status=True, scale=True, generation=True),
    _r("ControllerRevision", "controllerrevisions", "apps"),
    _r("Job", "jobs", "batch", categories=_ALL, status=True, generation=True),
    _r("EndpointSlice", "endpointslices", "discovery.k8s.io", generation=True),
    _r("Event", "events", "events.k8s.io", "ev", storage="events", schema="events.Event"),
    _r("NetworkPolicy", "networkpolicies", "networking.k8s.io", "netpol", generation=True),
    _r("Ingress", "ingresses", "networking.k8s.io", "ing", status=True, generation=True),
    _r("IngressClass", "ingressclasses", "networking.k8s.io", namespaced=False, generation=True),
    _r("StorageClass", "storageclasses", "storage.k8s.io", "sc", namespaced=False),
    _r("PriorityClass", "priorityclasses", "scheduling.k8s.io", "pc", namespaced=False, generation=True),
    _r("RuntimeClass", "runtimeclasses", "node.k8s.io", namespaced=False),
    _r("DeviceClass", "deviceclasses", "resource.k8s.io", namespaced=False, generation=True, schema="resource.DeviceClass"),
    _r("ResourceSlice", "resourceslices", "resource.k8s.io", namespaced=False, generation=True, schema="resource.ResourceSlice"),
    _r("ResourceClaim", "resourceclaims", "resource.k8s.io", status=True, schema="resource.ResourceClaim"),
    _r("ResourceClaimTemplate", "resourceclaimtemplates", "resource.k8s.io", schema="resource.ResourceClaimTemplate"),
    _r("Lease", "leases", "coordination.k8s.io"),
    _r("PodDisruptionBudget", "poddisruptionbudgets", "policy", "pdb", status=True, generation=True),
    _r("Role", "roles", "rbac.authorization.k8s.io"),
    _r("RoleBinding", "rolebindings", "rbac.authorization.k8s.io"),
    _r("ClusterRole", "clusterroles", "rbac.authorization.k8s.io", namespaced=False),
    _r("ClusterRoleBinding", "clusterrolebindings", "rbac.authorization.k8s.io", namespaced=False),
    _r(
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "apiextensions.k8s.io",
        "crd crds",
        namespaced=False,
        status=True,
        generation=True,
        categories=("api-extensions",),
    ),
)


class Kinds:
    """The table, which grows and shrinks with CustomResourceDefinitions."""

    def __init__(self) -> None:
        self._by_path: dict[tuple[str, str, str], Resource] = {}
        self._by_kind: dict[tuple[str, str], Resource] = {}
        self._names: dict[str, Resource] = {}
        self._stored: dict[str, Resource] = {}
        self.generation = 0  # counts changes, so that what is computed from the table can be cached
        for resource in BUILT_IN:
            self._add(resource)

    def _add(self, resource: Resource) -> None:
        self._by_path[resource.group, resource.version, resource.plural] = resource
        self._by_kind[resource.api_version, resource.kind] = resource
        self._names.setdefault(resource.kind, resource)
        self._names.setdefault(f"{resource.kind}.{resource.group}", resource)
        self._stored.setdefault(resource.store_key, resource)
        self.generation += 1

    def define(self, crd: dict[str, Any]) -> None:
        """Serves the custom resource of a CustomResourceDefinition, in each of its served versions."""
        spec = crd["spec"]
        names = spec["names"]
        self.undefine(spec["group"], names["plural"])
        base = Resource(
            kind=names["kind"], plural=names["plural"], group=spec["group"], namespaced=spec["scope"] == "Namespaced",
            singular=names.get("singular") or names["kind"].lower(), short=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()), generation=True, priority=1000,
        )  # fmt: skip
        # The storage version first: it is the one that the in-process client reads.
        for version in sorted(spec["versions"], key=lambda each: not each.get("storage")):
            if version.get("served", True):
                sub = version.get("subresources") or {}
                self._add(replace(base, version=version["name"], status="status" in sub, scale="scale" in sub, custom=version))

    def undefine(self, group: str, plural: str) -> None:
        for path, resource in list(self._by_path.items()):
            if resource.group == group and resource.plural == plural:
                del self._by_path[path]
                self._by_kind.pop((resource.api_version, resource.kind), None)
                for table in (self._names, self._stored):
                    for name in [name for name, each in table.items() if each.key == resource.key]:
                        del table[name]
                self.generation += 1

    def by_path(self, group: str, version: str, plural: str) -> Resource | None:
        return self._by_path.get((group, version, plural))

    def by_kind(self, api_version: str, kind: str) -> Resource | None:
        return self._by_kind.get((api_version, kind))

    def named(self, kind: str) -> Resource:
        """By kind ("Pod"), or kind and group ("Widget.example.com") where a kind is served twice. KeyError when it is not served."""
        return self._names[kind]

    def stored(self, store_key: str) -> Resource | None:
        """The resource through which the objects under a storage key are read."""
        return self._stored.get(store_key)

    def all(self) -> Iterable[Resource]:
        return self._by_path.values()

    def stored_all(self) -> Iterable[Resource]:
        return list(self._stored.values())

    def groups(self) -> dict[str, list[str]]:
        """Group name to its versions, in the order in which they were added."""
        found: dict[str, list[str]] = {}
        for group, version, _ in self._by_path:
            versions = found.setdefault(group, [])
            if version not in versions:
                versions.append(version)
        return found
