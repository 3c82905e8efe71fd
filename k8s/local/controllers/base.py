"""What all controllers share: keys that are worked on one after the other, merged while they wait, tried again later when that fails."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from k8s.local.client import Change, Client
from k8s.local.documents import Doc, at, meta, name_of, namespace_of, now
from k8s.local.errors import StatusError
from k8s.local.scheduler import selector_matches

log = logging.getLogger(__name__)
Key = tuple[str, str]  # namespace, name
_RETRY_FIRST, _RETRY_MOST = 0.1, 15.0


class Controller:
    """`kind` is what it is responsible for; changes of `watched` kinds lead to the keys that `keys` names."""

    kind = ""
    watched: tuple[str, ...] = ()
    component = ""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._waiting: dict[Key, None] = {}
        self._wake = asyncio.Event()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}

    def keys(self, change: Change) -> Iterable[Key]:
        """Of the objects to look at after a change: itself, or the owner of what changed."""
        if change.kind == self.kind:
            return [(namespace_of(change.object), name_of(change.object))]
        owner = controller_of(change.object)
        return [(namespace_of(change.object), owner["name"])] if owner and owner["kind"] == self.kind else []

    def reconcile(self, namespace: str, name: str) -> float | None:
        """One step towards what is wanted; seconds after which to look again without a change, or None."""
        raise NotImplementedError

    def enqueue(self, key: Key) -> None:
        self._waiting[key] = None
        self._wake.set()

    async def run(self) -> None:
        work = asyncio.create_task(self._work())
        try:
            async for change in self.client.changes(self.kind, *self.watched):
                for key in self.keys(change):
                    self.enqueue(key)
        finally:
            work.cancel()
            for timer in self._timers.values():
                timer.cancel()

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                key = next(iter(self._waiting))
                del self._waiting[key]
                self._one(key)
                await asyncio.sleep(0)

    def _one(self, key: Key) -> None:
        delay: float | None = None
        try:
            delay = self.reconcile(*key)
            self._failures.pop(key, None)
        except Exception as error:
            count = self._failures[key] = self._failures.get(key, 0) + 1
            delay = min(_RETRY_FIRST * 2**count, _RETRY_MOST)
            if isinstance(error, StatusError):
                log.info("%s %s/%s: %s", self.kind, *key, error.message)
            else:
                log.exception("%s %s/%s", self.kind, *key)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if delay is not None:
            self._timers[key] = asyncio.get_running_loop().call_later(max(delay, 0.01), self.enqueue, key)

    # --- pods ---

    def pods_of(self, owner: Doc) -> list[Doc]:
        """The pods that `owner` controls; those that match its selector and belong to nobody are adopted."""
        found = [pod for pod in self.client.owned("Pod", owner) if (controller_of(pod) or {}).get("uid") == meta(owner)["uid"]]
        for pod in self.client.free("Pod", namespace_of(owner)):
            if not meta(pod).get("deletionTimestamp") and selector_matches(meta(pod).get("labels") or {}, at(owner, "spec.selector")):
                adopted = self.client.modify("Pod", namespace_of(pod), name_of(pod), lambda doc: _adopt(doc, owner))
                found += [adopted] if adopted else []
        return found

    def create_pod(self, owner: Doc, pod: Doc) -> Doc:
        """Creates a pod, with the event that says so. StatusError is recorded as an event and raised."""
        try:
            made = self.client.create("Pod", pod)
        except StatusError as error:
            self.client.event(owner, "Warning", "FailedCreate", f"Error creating: {error.message}", self.component)
            raise
        self.client.event(owner, "Normal", "SuccessfulCreate", f"Created pod: {name_of(made)}", self.component)
        return made

    def delete_pod(self, owner: Doc, pod: Doc) -> None:
        try:
            self.client.delete("Pod", namespace_of(pod), name_of(pod), uid=meta(pod)["uid"])
        except StatusError as error:
            if error.code not in (404, 409):
                raise
            return
        self.client.event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {name_of(pod)}", self.component)

    def set_status(self, document: Doc, status: dict[str, Any]) -> None:
        """Merges `status` into what is there; values of None are removed."""

        def change(doc: Doc) -> None:
            merged = {**(doc.get("status") or {}), **status}
            doc["status"] = {key: value for key, value in merged.items() if value is not None}

        self.client.modify(document["kind"], namespace_of(document) or None, name_of(document), change, subresource="status")


def _adopt(doc: Doc, owner: Doc) -> None:
    meta(doc).setdefault("ownerReferences", []).append(reference(owner))


def controller_of(doc: Doc) -> Doc | None:
    return next((item for item in meta(doc).get("ownerReferences") or [] if item.get("controller")), None)


def reference(owner: Doc) -> Doc:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": name_of(owner),
        "uid": meta(owner)["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def pod_from(owner: Doc, template: Doc, *, name: str = "", labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None) -> Doc:
    """A pod of a template. Without `name` the API makes one from the owner's."""
    from k8s.local.documents import clone

    given = template.get("metadata") or {}
    metadata: Doc = {
        "namespace": namespace_of(owner),
        "labels": {**(given.get("labels") or {}), **(labels or {})},
        "annotations": {**(given.get("annotations") or {}), **(annotations or {})},
        "finalizers": list(given.get("finalizers") or []),
        "ownerReferences": [reference(owner)],
    }
    metadata = {key: value for key, value in metadata.items() if value}
    metadata |= {"name": name} if name else {"generateName": f"{name_of(owner)}-"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": clone(template["spec"])}


_HASH_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


def template_hash(template: Doc, salt: str = "") -> str:
    """Ten letters that name a pod template, of the alphabet that Kubernetes uses for this."""
    plain = json.dumps(template, sort_keys=True, separators=(",", ":")) + salt
    number = int.from_bytes(sha256(plain.encode()).digest()[:8], "big")
    letters = ""
    for _ in range(10):
        number, rest = divmod(number, len(_HASH_LETTERS))
        letters += _HASH_LETTERS[rest]
    return letters


def is_ready(pod: Doc) -> bool:
    return any(item["type"] == "Ready" and item["status"] == "True" for item in at(pod, "status.conditions", []))


def available_in(pod: Doc, seconds: float) -> float | None:
    """Seconds until a pod has been ready for `seconds`; 0 when it has, None when it is not ready."""
    import time

    from k8s.local.documents import parse_time

    for item in at(pod, "status.conditions", []):
        if item["type"] == "Ready" and item["status"] == "True":
            if not seconds:
                return 0.0
            return max(0.0, parse_time(item["lastTransitionTime"]).timestamp() + seconds - time.time())
    return None


def terminating(pod: Doc) -> bool:
    return bool(meta(pod).get("deletionTimestamp"))


def ended(pod: Doc) -> bool:
    return at(pod, "status.phase") in ("Succeeded", "Failed")


def condition(old: list[Doc], kind: str, value: str, reason: str, message: str, **more: str) -> list[Doc]:
    """`old` with one condition set; the time of its last change is kept where the status is the same."""
    was = next((item for item in old if item["type"] == kind), None)
    since = was["lastTransitionTime"] if was and was["status"] == value else now()
    new = {"type": kind, "status": value, "reason": reason, "message": message, "lastTransitionTime": since, **more}
    return [new if item is was else item for item in old] if was else [*old, new]
