"""The write path: every create, update and delete, from outside or inside, goes through here.

The order is the API server's: defaults, mutating admission, validation (422), validating admission (403), store.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import defaults, managed, schema, validation
from .admission import Admission
from .documents import Doc, clone, meta, name_of, now
from .errors import already_exists, bad_request, conflict, invalid, invalid_value, not_found
from .kinds import Kinds, Resource
from .services import Addresses
from .store import Store

_NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclass(kw_only=True)
class Request:
    """How a write was asked for."""

    dry_run: bool = False
    manager: str = ""  # field manager; empty: ownership of fields is not tracked (writes from inside)
    owners: list[Doc] | None = None  # managedFields as server-side apply has settled them
    inside: bool = False  # from the cluster's own parts: may also place a pod on a node
    field_validation: str = "Ignore"
    warnings: list[str] = field(default_factory=list)  # sent back as Warning headers


class Objects:
    def __init__(self, store: Store, kinds: Kinds, toleration_seconds: int = 300) -> None:
        self.store = store
        self.kinds = kinds
        self.admission = Admission(store, toleration_seconds)
        self.addresses = Addresses(store)

    def live(self, resource: Resource, namespace: str, name: str) -> Doc:
        found = self.store.get(resource.store_key, namespace, name)
        if found is None:
            raise not_found(resource.group, resource.plural, name)
        return found

    # --- create ----------------------------------------------------------------------------------------------------

    def create(self, resource: Resource, namespace: str, given: Doc, request: Request) -> Doc:
        doc = schema.clean(resource, given, request.field_validation, request.warnings)
        self._place(resource, namespace, doc)
        metadata = doc["metadata"]
        if metadata.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        for key in ("uid", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation", "managedFields"):
            metadata.pop(key, None)
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = self._generated(resource, namespace, str(metadata["generateName"]))
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = now()
        defaults.apply(resource, doc)
        if resource.status:
            defaults.fresh_status(resource, doc)
        self.admission.mutate(resource, doc, None)
        if resource.generation:
            metadata["generation"] = 1
        self._refuse_invalid(resource, doc, validation.on_create(resource, doc))
        if self.store.get(resource.store_key, namespace, name_of(doc)) is not None:
            raise already_exists(resource.group, resource.plural, name_of(doc))
        self.admission.validate(resource, doc, None, request.warnings)
        self.addresses.assign(resource, doc, None, dry_run=request.dry_run)
        managed.on_write(resource, doc, None, request.manager, "", request.owners)
        if request.dry_run:
            return doc
        self.admission.charge(resource, doc, None)
        return self._stored(resource, doc)

    def record_event(self, doc: Doc) -> Doc | None:
        """Stores an Event of one of the cluster's own parts; None when its namespace is going away."""
        resource = self.kinds.named("Event")
        metadata = doc["metadata"]
        metadata["name"] = f"{metadata.pop('generateName').rstrip('.')}.{time.time_ns():x}"
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = now()
        doc.setdefault("eventTime", None)
        space = self.store.get("namespaces", "", metadata["namespace"])
        if space is None or meta(space).get("deletionTimestamp"):
            return None
        return self._stored(resource, doc)

    def _place(self, resource: Resource, namespace: str, doc: Doc) -> None:
        metadata = doc.setdefault("metadata", {})
        rest = {key: value for key, value in doc.items() if key not in {"apiVersion", "kind", "metadata"}}
        doc.clear()
        doc.update(apiVersion=resource.api_version, kind=resource.kind, metadata=metadata, **rest)
        if not resource.namespaced:
            metadata.pop("namespace", None)
            return
        if metadata.setdefault("namespace", namespace) != namespace:
            raise bad_request(f"the namespace of the provided object does not match the namespace sent on the request ({metadata['namespace']} != {namespace})")

    def _generated(self, resource: Resource, namespace: str, prefix: str) -> str:
        base = prefix[: 63 - 5] if len(prefix) > 63 - 5 else prefix
        for _ in range(8):
            name = base + "".join(secrets.choice(_NAME_LETTERS) for _ in range(5))
            if self.store.get(resource.store_key, namespace, name) is None:
                return name
        raise already_exists(resource.group, resource.plural, prefix)

    def _refuse_invalid(self, resource: Resource, doc: Doc, causes: list[Any]) -> None:
        if causes:
            name = name_of(doc) or str(meta(doc).get("generateName") or "")
            raise invalid(resource.group, resource.kind, name, causes)

    def _stored(self, resource: Resource, doc: Doc) -> Doc:
        canonical = self.kinds.stored(resource.store_key) or resource
        return self.store.put(resource.store_key, canonical.kind, doc)

    # --- update ----------------------------------------------------------------------------------------------------

    def update(self, resource: Resource, namespace: str, name: str, given: Doc, request: Request, *, subresource: str = "") -> Doc:
        old = self.live(resource, namespace, name)
        if subresource == "status":
            # Nothing else is taken over, so nothing else need be looked at: status is what is written most.
            given = {key: given[key] for key in ("metadata", "status") if key in given}
        doc = schema.clean(resource, given, request.field_validation, request.warnings)
        self._place(resource, namespace, doc)
        self._same_object(resource, old, doc, name)
        was, metadata = old["metadata"], doc["metadata"]
        for key in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion", "generateName"):
            if key in was:
                metadata[key] = was[key]
            else:
                metadata.pop(key, None)
        if was.get("deletionTimestamp"):
            fresh = set(metadata.get("finalizers") or ()) - set(was.get("finalizers") or ())
            if fresh:
                listed = ", ".join(f'"{each}"' for each in sorted(fresh))
                detail = f"no new finalizers can be added if the object is being deleted, found new finalizers []string{{{listed}}}"
                self._refuse_invalid(resource, doc, [invalid_value("metadata.finalizers", sorted(fresh), detail)])
        if subresource == "status":
            status = {"status": doc["status"]} if "status" in doc else {}
            owners = {"managedFields": doc["metadata"]["managedFields"]} if "managedFields" in doc["metadata"] else {}
            doc = {**{key: value for key, value in old.items() if key != "status"}, "metadata": {**was, **owners}, **status}
            metadata = doc["metadata"]
            self._refuse_invalid(resource, doc, validation.on_status(resource, doc, old))
        else:
            if resource.status:
                doc.pop("status", None)
                if "status" in old:
                    doc["status"] = clone(old["status"])
            defaults.apply(resource, doc)
            defaults.carry_over(resource, doc, old)
            self.admission.mutate(resource, doc, old)
            before = old
            if request.inside and resource.key == "pods" and "nodeName" not in old["spec"] and "nodeName" in doc["spec"]:
                before = {**old, "spec": {**old["spec"], "nodeName": doc["spec"]["nodeName"]}}
            self._refuse_invalid(resource, doc, validation.on_update(resource, doc, before))
            self.admission.validate(resource, doc, old, request.warnings)
            self.addresses.assign(resource, doc, old, dry_run=request.dry_run)
            if resource.generation and _substance(doc) != _substance(before):
                metadata["generation"] = int(was.get("generation") or 0) + 1
        managed.on_write(resource, doc, old, request.manager, subresource, request.owners)
        if _unchanged(doc, old):
            return old
        if request.dry_run:
            return doc
        if subresource != "status":
            self.admission.charge(resource, doc, old)
        stored = self._stored(resource, doc)
        if meta(stored).get("deletionTimestamp") and not meta(stored).get("finalizers") and meta(stored).get("deletionGracePeriodSeconds", 0) == 0:
            self._remove(resource, stored)
        return stored

    def _same_object(self, resource: Resource, old: Doc, doc: Doc, name: str) -> None:
        was, metadata = old["metadata"], doc["metadata"]
        if metadata.setdefault("name", name) != name:
            raise bad_request(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")
        if metadata.get("uid") and metadata["uid"] != was["uid"]:
            why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {was['uid']}"
            raise conflict(resource.group, resource.plural, name, why)
        version = str(metadata.get("resourceVersion") or "")
        if version and version not in {was["resourceVersion"], "0"}:
            raise conflict(resource.group, resource.plural, name)

    def modify(self, resource: Resource, namespace: str, name: str, change: Callable[[Doc], None]) -> Doc | None:
        """An inside change of one object, past validation: for the cluster's own bookkeeping (finalizers, quota status)."""
        old = self.store.get(resource.store_key, namespace, name)
        if old is None:
            return None
        new: Doc = clone(old)
        change(new)
        if new == old:
            return old
        stored = self._stored(resource, new)
        if meta(stored).get("deletionTimestamp") and not meta(stored).get("finalizers") and meta(stored).get("deletionGracePeriodSeconds", 0) == 0:
            self._remove(resource, stored)
        return stored

    # --- delete ----------------------------------------------------------------------------------------------------

    def delete(self, resource: Resource, namespace: str, name: str, options: Doc, request: Request) -> tuple[Doc, bool]:
        """Returns the object in its last known version, and whether it is gone already."""
        old = self.live(resource, namespace, name)
        self._preconditions(resource, old, name, options)
        self.admission.before_delete(resource, old)
        if request.dry_run or options.get("dryRun"):
            return old, True
        doc: Doc = clone(old)
        metadata = doc["metadata"]
        finalizers = self._finalizers_for(resource, metadata, options, request)
        grace = self._grace(resource, doc, options)
        if metadata.get("deletionTimestamp"):
            # Again: only a shorter grace period or another propagation changes anything.
            grace = min(grace, int(metadata.get("deletionGracePeriodSeconds") or 0))
        if grace == 0 and not finalizers:
            if resource.store_key == "namespaces" and (doc.get("spec") or {}).get("finalizers"):
                return self._terminate_namespace(resource, doc, old), False
            return self._remove(resource, old), True
        if finalizers:
            metadata["finalizers"] = finalizers
        else:
            metadata.pop("finalizers", None)
        if not metadata.get("deletionTimestamp"):
            metadata["deletionTimestamp"] = now() if not grace else _in_seconds(grace)
            if resource.generation:
                metadata["generation"] = int(metadata.get("generation") or 0) + 1
        metadata["deletionGracePeriodSeconds"] = grace
        return (old if doc == old else self._stored(resource, doc)), False

    def _preconditions(self, resource: Resource, old: Doc, name: str, options: Doc) -> None:
        wanted = options.get("preconditions") or {}
        for key, label, found in (("uid", "UID", old["metadata"]["uid"]), ("resourceVersion", "ResourceVersion", old["metadata"]["resourceVersion"])):
            if wanted.get(key) and wanted[key] != found:
                why = f"Precondition failed: {label} in precondition: {wanted[key]}, {label} in object meta: {found}"
                raise conflict(resource.group, resource.plural, name, why)

    def _finalizers_for(self, resource: Resource, metadata: Doc, options: Doc, request: Request) -> list[str]:
        policy = options.get("propagationPolicy")
        finalizers = [each for each in metadata.get("finalizers") or () if each not in {FOREGROUND, ORPHAN}]
        before = metadata.get("finalizers") or []
        if policy == "Foreground":
            return [*finalizers, FOREGROUND]
        if policy == "Orphan" or options.get("orphanDependents") is True:
            return [*finalizers, ORPHAN]
        if policy is None and "orphanDependents" not in options:
            if resource.key == "jobs.batch":
                request.warnings.append(
                    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them "
                    "or set propagationPolicy=Orphan to suppress this warning"
                )
                return [*finalizers, ORPHAN]
            return list(before)
        return finalizers

    def _grace(self, resource: Resource, doc: Doc, options: Doc) -> int:
        if resource.store_key != "pods":
            return 0
        spec, phase = doc.get("spec") or {}, (doc.get("status") or {}).get("phase")
        given = options.get("gracePeriodSeconds")
        if not spec.get("nodeName") or phase in {"Succeeded", "Failed"}:
            return 0
        return max(0, int(given if given is not None else spec.get("terminationGracePeriodSeconds", 30)))

    def _terminate_namespace(self, resource: Resource, doc: Doc, old: Doc) -> Doc:
        if doc["metadata"].get("deletionTimestamp"):
            return old
        doc["metadata"]["deletionTimestamp"] = now()
        doc["status"] = {**(doc.get("status") or {}), "phase": "Terminating"}
        return self._stored(resource, doc)

    def _remove(self, resource: Resource, doc: Doc) -> Doc:
        canonical = self.kinds.stored(resource.store_key) or resource
        removed = self.store.remove(resource.store_key, canonical.kind, meta(doc).get("namespace", ""), name_of(doc)) or doc
        self.addresses.release(resource, doc)
        return removed

    def finalize(self, resource: Resource, namespace: str, name: str, given: Doc) -> Doc:
        """The `finalize` subresource of namespaces: takes over spec.finalizers, and the namespace goes when none is left."""
        old = self.live(resource, namespace, name)
        doc: Doc = clone(old)
        doc["spec"] = {**(doc.get("spec") or {}), "finalizers": (given.get("spec") or {}).get("finalizers") or []}
        stored = self._stored(resource, doc)
        if meta(stored).get("deletionTimestamp") and not doc["spec"]["finalizers"] and not meta(stored).get("finalizers"):
            self._remove(resource, stored)
        return stored


def _in_seconds(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


def _substance(doc: Doc) -> Doc:
    """What metadata.generation counts the changes of."""
    return {key: value for key, value in doc.items() if key not in {"metadata", "status", "apiVersion", "kind"}}


def _unchanged(doc: Doc, old: Doc) -> bool:
    if doc.keys() != old.keys() or any(doc[key] != old[key] for key in doc if key not in {"metadata", "apiVersion"}):
        return False
    one = {key: value for key, value in doc["metadata"].items() if key not in {"managedFields", "resourceVersion"}}
    two = {key: value for key, value in old["metadata"].items() if key not in {"managedFields", "resourceVersion"}}
    return one == two and managed.same_owners(doc["metadata"].get("managedFields"), old["metadata"].get("managedFields"))
