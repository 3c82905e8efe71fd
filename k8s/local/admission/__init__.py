"""What may come in: namespace lifecycle, service accounts, priorities, limits, Pod Security and quotas, in the API server's order."""

from __future__ import annotations

from ..documents import Doc, meta, name_of, namespace_of
from ..errors import forbidden, not_found
from ..kinds import Resource
from ..store import Store
from . import limits, pod_security, priority, quota, service_account, storage

# Always there, whatever is asked.
PERMANENT = ("default", "kube-system", "kube-public", "kube-node-lease")


class Admission:
    def __init__(self, store: Store, toleration_seconds: int) -> None:
        self.store = store
        self.toleration_seconds = toleration_seconds

    def mutate(self, resource: Resource, doc: Doc, old: Doc | None) -> None:
        """Changes a document before it is validated, in place."""
        if old is None:
            self._namespace(resource, doc)
        if resource.key == "pods" and old is None:
            limits.fill(self.store, doc)
            service_account.fill(self.store, doc)
            priority.fill(self.store, doc)
            service_account.tolerate(doc, self.toleration_seconds)
        elif resource.key == "persistentvolumeclaims" and old is None:
            storage.default_class(self.store, doc)

    def validate(self, resource: Resource, doc: Doc, old: Doc | None, warnings: list[str]) -> None:
        """Refuses (403) what is valid but not allowed. The quota comes last."""
        limits.check(self.store, resource, doc, old)
        pod_security.check(self.store, resource, doc, old, warnings)
        quota.check(self.store, resource, doc, old)

    def charge(self, resource: Resource, doc: Doc, old: Doc | None) -> None:
        """Shows the use of a document that is about to be stored in its namespace's quotas."""
        quota.charge(self.store, resource, doc, old)

    def before_delete(self, resource: Resource, doc: Doc) -> None:
        name = name_of(doc)
        if resource.key == "namespaces" and name in PERMANENT:
            raise forbidden("", "namespaces", name, "this namespace may not be deleted")
        if resource.key == "priorityclasses.scheduling.k8s.io" and name.startswith("system-"):
            raise forbidden(resource.group, resource.plural, name, "this is a system priority class and cannot be deleted")

    def _namespace(self, resource: Resource, doc: Doc) -> None:
        if not resource.namespaced:
            return
        space = namespace_of(doc)
        found = self.store.get("namespaces", "", space)
        if found is None:
            raise not_found("", "namespaces", space)
        if meta(found).get("deletionTimestamp"):
            why = f"unable to create new content in namespace {space} because it is being terminated"
            cause = {"reason": "NamespaceTerminating", "message": f"namespace {space} is being terminated", "field": "metadata.namespace"}
            raise forbidden(resource.group, resource.plural, name_of(doc), why, [cause])
