"""What happens by itself: garbage collection by owner, ends of namespaces, protection of claims in use, custom kinds, quotas' status."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from . import namespaces
from .admission import quota
from .admission.storage import IN_USE
from .client import Client
from .documents import Doc, at, clone, meta, name_of, namespace_of, now, parse_time
from .errors import StatusError
from .kinds import Resource
from .objects import FOREGROUND, ORPHAN, Request
from .store import Change

log = logging.getLogger(__name__)

EVENT_SECONDS, EVENT_CHECK_SECONDS = 3600.0, 60.0
Place = tuple[str, str, str]  # storage key, namespace, name


class Housekeeper:
    """One task: changes mark what must be looked at, and each mark is worked off by looking at the objects as they are now."""

    def __init__(self, client: Client, authority: str) -> None:
        self.client = client
        self.store = client.store
        self.authority = authority
        self._due: dict[Place, None] = {}  # a dict, so that the order is kept
        self._quotas: set[str] = set()
        self._spaces: set[str] = set()
        self._woken = asyncio.Event()
        self._subscription = self.store.subscribe(None, self._noticed)
        for doc in self.store.docs("customresourcedefinitions.apiextensions.k8s.io"):
            self._define(doc)
        for key, table in self.store.objects.items():
            for place in table:
                self._due[key, *place] = None
        self._quotas |= {namespace_of(each) for each in self.store.docs("resourcequotas")}
        self._woken.set()

    async def run(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            # A breath, so that a burst of changes is handled at once and requests are not held up.
            await asyncio.sleep(0.005)
            await self._work()

    async def expiring(self) -> None:
        """Events are kept for an hour, as in Kubernetes, or they would be most of the state."""
        while True:
            await asyncio.sleep(EVENT_CHECK_SECONDS)
            expire_events(self.client, time.time() - EVENT_SECONDS)

    def close(self) -> None:
        self._subscription.close()

    async def _work(self) -> None:
        count = 0
        while self._due:
            place = next(iter(self._due))
            del self._due[place]
            self._guard(self._look, *place)
            count += 1
            if count % 50 == 0:
                await asyncio.sleep(0)
        for space in list(self._spaces):
            self._spaces.discard(space)
            self._guard(self._namespace, space)
        for space in list(self._quotas):
            self._quotas.discard(space)
            self._guard(self._quota_status, space)

    def _guard(self, action: Callable[..., None], *arguments: str) -> None:
        try:
            action(*arguments)
        except StatusError as error:
            if error.code not in {404, 409}:
                log.warning("housekeeping of %s: %s", arguments, error)
        except Exception:
            log.exception("housekeeping of %s failed", arguments)

    # --- noticing --------------------------------------------------------------------------------------------------

    def _noticed(self, change: Change) -> None:
        doc = change.object
        key, space = change.store_key, namespace_of(doc)
        if key == "events":
            return
        if change.type == "DELETED":
            for place in self.store.owned.get(meta(doc).get("uid", ""), ()):
                self._due[place] = None
            for owner in meta(doc).get("ownerReferences") or ():
                # An owner that waits for its dependents may now be able to go.
                where = self.store.by_uid.get(owner["uid"])
                if where:
                    self._due[where] = None
            if key == "pods":
                self._claims_of(doc)
            if key == "customresourcedefinitions.apiextensions.k8s.io":
                self._undefine(doc)
            if self.store.get("customresourcedefinitions.apiextensions.k8s.io", "", key) is not None:
                self._due["customresourcedefinitions.apiextensions.k8s.io", "", key] = None
        elif meta(doc).get("ownerReferences") or meta(doc).get("deletionTimestamp"):
            self._due[key, space, name_of(doc)] = None
        if key == "customresourcedefinitions.apiextensions.k8s.io" and change.type != "DELETED":
            # At once, so that the kind is served when the answer to its creation is.
            self._define(doc)
            self._due[key, "", name_of(doc)] = None
        if key == "namespaces":
            self._due[key, "", name_of(doc)] = None
        elif key == "pods" and at(doc, "status.phase") in {"Succeeded", "Failed"}:
            self._claims_of(doc)
        if space:
            parent = self.store.get("namespaces", "", space)
            if parent is not None and meta(parent).get("deletionTimestamp"):
                self._spaces.add(space)
            own = key == "resourcequotas"
            limited = any(place[0] == space for place in self.store.objects.get("resourcequotas", ()))
            # Its own status is no reason to look at a quota again.
            fresh = change.previous is None or change.previous.get("spec") != doc.get("spec")
            if fresh if own else limited:
                self._quotas.add(space)
        self._woken.set()

    def _claims_of(self, pod: Doc) -> None:
        for volume in at(pod, "spec.volumes", []):
            claim = at(volume, "persistentVolumeClaim.claimName")
            if claim:
                self._due["persistentvolumeclaims", namespace_of(pod), claim] = None

    # --- looking ---------------------------------------------------------------------------------------------------

    def _look(self, key: str, space: str, name: str) -> None:
        doc, resource = self.store.get(key, space, name), self.client.kinds.stored(key)
        if doc is None or resource is None:
            return
        if key == "namespaces":
            if meta(doc).get("deletionTimestamp"):
                self._spaces.add(name)
            else:
                namespaces.furnish(self.client, doc, self.authority)
        elif key == "customresourcedefinitions.apiextensions.k8s.io":
            self._establish(doc)
        if meta(doc).get("deletionTimestamp"):
            finalizers = meta(doc).get("finalizers") or ()
            if ORPHAN in finalizers:
                self._orphan(resource, doc)
            elif FOREGROUND in finalizers:
                self._foreground(resource, doc)
            elif IN_USE in finalizers and key == "persistentvolumeclaims":
                self._release_claim(resource, doc)
        elif meta(doc).get("ownerReferences"):
            self._collect(resource, doc)

    def _collect(self, resource: Resource, doc: Doc) -> None:
        """Deletes an object whose owners are all gone; drops references to those that are."""
        owners = meta(doc)["ownerReferences"]
        there = [each for each in owners if self._owner(each, namespace_of(doc)) is not None]
        if not there:
            self._delete(resource, doc, "Background")
            return
        waiting = [each for each in there if self._waits(each, namespace_of(doc))]
        if len(waiting) == len(there):
            self._delete(resource, doc, "Foreground" if self.store.owned.get(meta(doc)["uid"]) else "Background")
        elif len(there) < len(owners):
            self.client.objects.modify(resource, namespace_of(doc), name_of(doc), lambda new: new["metadata"].update(ownerReferences=clone(there)))

    def _owner(self, reference: Doc, space: str) -> Doc | None:
        where = self.store.by_uid.get(reference.get("uid", ""))
        if where is None or where[1] not in {"", space} or where[2] != reference.get("name"):
            return None
        return self.store.get(*where)

    def _waits(self, reference: Doc, space: str) -> bool:
        owner = self._owner(reference, space)
        return owner is not None and bool(meta(owner).get("deletionTimestamp")) and FOREGROUND in (meta(owner).get("finalizers") or ())

    def _delete(self, resource: Resource, doc: Doc, propagation: str) -> None:
        options = {"propagationPolicy": propagation, "preconditions": {"uid": meta(doc)["uid"]}}
        self.client.objects.delete(resource, namespace_of(doc), name_of(doc), options, Request(inside=True))

    def _dependents(self, doc: Doc) -> list[tuple[Resource, Doc]]:
        found = []
        for key, space, name in list(self.store.owned.get(meta(doc)["uid"], ())):
            each, resource = self.store.get(key, space, name), self.client.kinds.stored(key)
            if each is not None and resource is not None:
                found.append((resource, each))
        return found

    def _orphan(self, resource: Resource, doc: Doc) -> None:
        uid = meta(doc)["uid"]
        for other, each in self._dependents(doc):
            kept = [owner for owner in meta(each).get("ownerReferences") or () if owner.get("uid") != uid]

            def disown(new: Doc, kept: list[Doc] = kept) -> None:
                new["metadata"]["ownerReferences"] = clone(kept)
                if not kept:
                    del new["metadata"]["ownerReferences"]

            self.client.objects.modify(other, namespace_of(each), name_of(each), disown)
        self._unblock(resource, doc, ORPHAN)

    def _foreground(self, resource: Resource, doc: Doc) -> None:
        uid, blocking = meta(doc)["uid"], 0
        for other, each in self._dependents(doc):
            if not meta(each).get("deletionTimestamp"):
                self._look(other.store_key, namespace_of(each), name_of(each))
            if self.store.by_uid.get(meta(each)["uid"]):
                blocking += any(owner.get("uid") == uid and owner.get("blockOwnerDeletion") for owner in meta(each).get("ownerReferences") or ())
        if not blocking:
            self._unblock(resource, doc, FOREGROUND)

    def _unblock(self, resource: Resource, doc: Doc, finalizer: str) -> None:
        def drop(new: Doc) -> None:
            left = [each for each in new["metadata"].get("finalizers") or () if each != finalizer]
            new["metadata"]["finalizers"] = left
            if not left:
                del new["metadata"]["finalizers"]

        self.client.objects.modify(resource, namespace_of(doc), name_of(doc), drop)

    def _release_claim(self, resource: Resource, claim: Doc) -> None:
        for pod in self.store.docs("pods", namespace_of(claim)):
            used = {at(volume, "persistentVolumeClaim.claimName") for volume in at(pod, "spec.volumes", [])}
            if name_of(claim) in used and at(pod, "status.phase") not in {"Succeeded", "Failed"} and pod["spec"].get("nodeName"):
                return
        self._unblock(resource, claim, IN_USE)

    # --- namespaces, quotas, custom kinds --------------------------------------------------------------------------

    def _namespace(self, name: str) -> None:
        space = self.store.get("namespaces", "", name)
        if space is not None and meta(space).get("deletionTimestamp"):
            namespaces.empty(self.client, space)

    def _quota_status(self, space: str) -> None:
        for each in self.store.docs("resourcequotas", space):
            status = quota.status(self.store, each)

            def change(new: Doc, status: Doc = status) -> None:
                new["status"] = status

            self.client.objects.modify(self.client.kinds.named("ResourceQuota"), space, name_of(each), change)

    def _define(self, crd: Doc) -> None:
        if not meta(crd).get("deletionTimestamp"):
            self.client.kinds.define(crd)

    def _undefine(self, crd: Doc) -> None:
        self.client.kinds.undefine(crd["spec"]["group"], crd["spec"]["names"]["plural"])

    def _establish(self, crd: Doc) -> None:
        resource, spec = self.client.kinds.named("CustomResourceDefinition"), crd["spec"]
        name = name_of(crd)
        if meta(crd).get("deletionTimestamp"):
            custom = self.client.kinds.stored(name)
            for doc in self.store.docs(name):
                if custom is not None and not meta(doc).get("deletionTimestamp"):
                    self._delete(custom, doc, "Background")
            if not self.store.docs(name):
                self._unblock(resource, crd, CUSTOM_CLEANUP)
            return

        def change(new: Doc) -> None:
            if CUSTOM_CLEANUP not in new["metadata"].setdefault("finalizers", []):
                new["metadata"]["finalizers"].append(CUSTOM_CLEANUP)
            had = {each["type"] for each in at(new, "status.conditions", [])}
            conditions = list(at(new, "status.conditions", []))
            for kind, reason, message in (
                ("NamesAccepted", "NoConflicts", "no conflicts found"),
                ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            ):
                if kind not in had:
                    conditions.append({"type": kind, "status": "True", "lastTransitionTime": now(), "reason": reason, "message": message})
            stored = [each["name"] for each in spec["versions"] if each.get("storage")]
            new["status"] = {"conditions": conditions, "acceptedNames": clone(spec["names"]), "storedVersions": at(new, "status.storedVersions", stored)}

        self.client.objects.modify(resource, "", name, change)


def expire_events(client: Client, before: float) -> None:
    """Removes events that were last seen before `before` (seconds since 1970)."""
    resource = client.kinds.named("Event")
    for doc in client.store.docs(resource.store_key):
        seen = at(doc, "series.lastObservedTime") or doc.get("lastTimestamp") or doc.get("eventTime") or meta(doc).get("creationTimestamp")
        if seen and parse_time(seen).timestamp() < before:
            client.store.remove(resource.store_key, resource.kind, namespace_of(doc), name_of(doc))


CUSTOM_CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
