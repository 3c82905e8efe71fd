"""The API for what runs inside this process: the same defaulting, validation and admission as over HTTP, without the HTTP.

Everything runs on one event loop, so each call is one atomic step. Documents that come back belong to the store: never change them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

from .documents import Doc, clone, meta, name_of, namespace_of, now
from .errors import StatusError
from .objects import Objects, Request
from .store import Change, matches, snapshot

_REMEMBERED = 5000  # events that count up instead of being written again

__all__ = ["Change", "Client", "StatusError"]


class Client:
    """`kind` is a kind's name ("Pod"), or kind and group ("Widget.example.com") for a custom resource whose kind is taken."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.store = objects.store
        self.kinds = objects.kinds
        self._said: dict[tuple[str, ...], str] = {}  # what an event says about whom -> its name

    def get(self, kind: str, namespace: str | None, name: str) -> Doc | None:
        return self.store.get(self.kinds.named(kind).store_key, namespace or "", name)

    def owned(self, kind: str, owner: Doc) -> list[Doc]:
        """What names `owner` as one of its owners, in the order of its making. What others own costs nothing."""
        key = self.kinds.named(kind).store_key
        return _in_order(self.store.get(*place) for place in self.store.owned.get(meta(owner)["uid"], ()) if place[0] == key)

    def free(self, kind: str, namespace: str) -> list[Doc]:
        """What nothing controls, in the order of its making."""
        key = self.kinds.named(kind).store_key
        return _in_order(self.store.get(key, namespace, name) for name in self.store.free.get((key, namespace), ()))

    def list(self, kind: str, namespace: str | None = None, *, labels: Mapping[str, str] | None = None) -> list[Doc]:
        found = self.store.docs(self.kinds.named(kind).store_key, namespace)
        return [doc for doc in found if matches(doc, labels)] if labels else found

    def create(self, kind: str, obj: Doc) -> Doc:
        """Raises StatusError, as do all writes."""
        return self.objects.create(self.kinds.named(kind), namespace_of(obj), obj, Request(inside=True))

    def update(self, kind: str, obj: Doc) -> Doc:
        return self.objects.update(self.kinds.named(kind), namespace_of(obj), name_of(obj), obj, Request(inside=True))

    def modify(self, kind: str, namespace: str | None, name: str, change: Callable[[Doc], None], *, subresource: str = "") -> Doc | None:
        """Applies `change` to a copy and stores it. None when the object is gone; no new resourceVersion when nothing changed."""
        resource = self.kinds.named(kind)
        old = self.store.get(resource.store_key, namespace or "", name)
        if old is None:
            return None
        # `change` touches nothing but the status then, so nothing else is copied.
        parts = {"metadata": clone(old["metadata"]), "status": clone(old.get("status") or {})} if subresource == "status" else clone(old)
        new = {**old, **parts}
        change(new)
        if new == old:
            return old
        return self.objects.update(resource, namespace or "", name, new, Request(inside=True), subresource=subresource)

    def delete(self, kind: str, namespace: str | None, name: str, *, grace: int | None = None, propagation: str = "Background", uid: str | None = None) -> None:
        """Raises StatusError 404 when it is not there, 409 when `uid` is another's."""
        options: Doc = {"propagationPolicy": propagation}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        self.objects.delete(self.kinds.named(kind), namespace or "", name, options, Request(inside=True))

    async def changes(self, *kinds: str) -> AsyncIterator[Change]:
        """Every change of these kinds, for ever; begins with ADDED for everything there is."""
        keys = {self.kinds.named(kind).store_key: kind for kind in kinds}
        queue: asyncio.Queue[Change] = asyncio.Queue()
        subscription = self.store.subscribe(keys, queue.put_nowait)
        try:
            for change in list(snapshot(self.store, keys, lambda key: keys[key])):
                yield change
            while True:
                yield await queue.get()
        finally:
            subscription.close()

    def event(self, involved: Doc, type: str, reason: str, message: str, component: str) -> None:
        """Records a v1 Event ("Normal" or "Warning") about an object; the same one again counts up."""
        namespace = namespace_of(involved) or "default"
        about = {
            "kind": involved.get("kind", ""),
            "apiVersion": involved.get("apiVersion", ""),
            "namespace": namespace_of(involved),
            "name": name_of(involved),
            "uid": meta(involved).get("uid", ""),
            "resourceVersion": meta(involved).get("resourceVersion", ""),
        }
        about = {key: value for key, value in about.items() if value}
        said = (about.get("uid", ""), reason, message, type, component)
        known = self._said.get(said, "")
        if known and self.modify("Event", namespace, known, lambda new: new.update(count=new.get("count", 1) + 1, lastTimestamp=now())) is not None:
            return
        moment = now()
        made = self.objects.record_event(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"generateName": f"{name_of(involved)[:230]}.", "namespace": namespace},
                "involvedObject": about,
                "reason": reason,
                "message": message,
                "source": {"component": component},
                "firstTimestamp": moment,
                "lastTimestamp": moment,
                "count": 1,
                "type": type,
                "reportingComponent": component,
                "reportingInstance": "",
            }
        )
        if made is not None:
            self._said[said] = name_of(made)
            while len(self._said) > _REMEMBERED:
                del self._said[next(iter(self._said))]


def _in_order(found: Iterable[Doc | None]) -> list[Doc]:
    return sorted((doc for doc in found if doc is not None), key=lambda doc: (meta(doc).get("creationTimestamp") or "", name_of(doc)))
