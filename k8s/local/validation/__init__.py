"""Refusals with 422: what is wrong with a document, each with its field's path and Kubernetes' wording."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .. import custom, names, schema
from ..documents import Doc, meta
from ..errors import Cause, invalid_value, required
from ..kinds import Resource
from . import config, pods, services, storage, workloads

Checks = Callable[[Doc], Iterator[Cause]]
UpdateChecks = Callable[[Doc, Doc], Iterator[Cause]]

_NAME_RULES: dict[str, Callable[[str], list[str]]] = {
    "namespaces": names.label,
    "services": names.label_1035,
    "roles.rbac.authorization.k8s.io": names.path_segment,
    "rolebindings.rbac.authorization.k8s.io": names.path_segment,
    "clusterroles.rbac.authorization.k8s.io": names.path_segment,
    "clusterrolebindings.rbac.authorization.k8s.io": names.path_segment,
}
_CREATE: dict[str, Checks] = {
    "pods": pods.check,
    "services": services.check,
    "statefulsets.apps": workloads.statefulset,
    "deployments.apps": workloads.deployment,
    "replicasets.apps": workloads.replicaset,
    "jobs.batch": workloads.job,
    "configmaps": config.configmap,
    "secrets": config.secret,
    "resourcequotas": config.quota,
    "limitranges": config.limit_range,
    "networkpolicies.networking.k8s.io": services.network_policy,
    "ingresses.networking.k8s.io": services.ingress,
    "persistentvolumeclaims": storage.claim,
    "persistentvolumes": storage.volume,
    "storageclasses.storage.k8s.io": storage.storage_class,
    "priorityclasses.scheduling.k8s.io": config.priority_class,
    "poddisruptionbudgets.policy": config.budget,
    "roles.rbac.authorization.k8s.io": config.role,
    "clusterroles.rbac.authorization.k8s.io": config.role,
    "rolebindings.rbac.authorization.k8s.io": config.role_binding,
    "clusterrolebindings.rbac.authorization.k8s.io": config.role_binding,
    "customresourcedefinitions.apiextensions.k8s.io": config.crd,
}
_UPDATE: dict[str, UpdateChecks] = {
    "pods": pods.check_update,
    "services": services.check_update,
    "statefulsets.apps": workloads.statefulset_update,
    "deployments.apps": workloads.selector_update,
    "replicasets.apps": workloads.selector_update,
    "jobs.batch": workloads.job_update,
    "configmaps": config.immutable_update,
    "secrets": config.secret_update,
    "persistentvolumeclaims": storage.claim_update,
    "storageclasses.storage.k8s.io": storage.storage_class_update,
    "priorityclasses.scheduling.k8s.io": config.priority_class_update,
    "rolebindings.rbac.authorization.k8s.io": config.role_ref_update,
    "clusterrolebindings.rbac.authorization.k8s.io": config.role_ref_update,
}


def on_create(resource: Resource, doc: Doc) -> list[Cause]:
    return [*_metadata(resource, doc), *_common(resource, doc)]


def on_update(resource: Resource, doc: Doc, old: Doc) -> list[Cause]:
    found = [*_metadata(resource, doc), *_common(resource, doc)]
    check = _UPDATE.get(resource.key)
    if check is not None:
        found += check(doc, old)
    return found


def on_status(resource: Resource, doc: Doc, old: Doc) -> list[Cause]:
    return custom.check(resource, doc) if resource.custom else []


def _common(resource: Resource, doc: Doc) -> Iterator[Cause]:
    if resource.custom:
        yield from custom.check(resource, doc)
        return
    type_ = schema.of(resource)
    if type_ is not None:
        # Status is the cluster's own to write, and an Event's empty times are null.
        for path in schema.missing(type_, {key: value for key, value in doc.items() if key != "status"}):
            if resource.store_key != "events" and path != "metadata":
                yield required(path)
    check = _CREATE.get(resource.key)
    if check is not None:
        yield from check(doc)


def _metadata(resource: Resource, doc: Doc) -> Iterator[Cause]:
    metadata = meta(doc)
    name = metadata.get("name")
    rule = _NAME_RULES.get(resource.key, names.subdomain)
    if not name:
        yield required("metadata.name", "name or generateName is required")
    else:
        for why in rule(name):
            yield invalid_value("metadata.name", name, why)
    if resource.namespaced:
        for why in names.label(metadata.get("namespace", "")):
            yield invalid_value("metadata.namespace", metadata.get("namespace"), why)
    yield from names.labels(metadata.get("labels") or {}, "metadata.labels")
    yield from names.annotation_keys(metadata.get("annotations") or {}, "metadata.annotations")
    controllers = 0
    for index, owner in enumerate(metadata.get("ownerReferences") or ()):
        for key in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(key):
                yield invalid_value(f"metadata.ownerReferences[{index}].{key}" if key != "apiVersion" else f"metadata.ownerReferences[{index}].apiVersion",
                                    owner.get(key, ""), f"{'version' if key == 'apiVersion' else key} must not be empty")  # fmt: skip
        controllers += bool(owner.get("controller"))
    if controllers > 1:
        yield invalid_value("metadata.ownerReferences", metadata["ownerReferences"], "Only one reference can have Controller set to true.")
    for finalizer in metadata.get("finalizers") or ():
        if finalizer not in {"orphan", "foregroundDeletion", "kubernetes"} and "/" not in finalizer:
            yield invalid_value("metadata.finalizers", finalizer, "name is neither a standard finalizer name nor is it fully qualified")
        else:
            for why in names.qualified(finalizer):
                yield invalid_value("metadata.finalizers", finalizer, why)
