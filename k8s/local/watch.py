"""Watches: a stream of changes from a known revision on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from .documents import Doc, encode
from .errors import StatusError, gone
from .kinds import Resource
from .selectors import Predicate
from .store import Change, Entry, Store, snapshot
from .views import Wanted, one

BOOKMARK_SECONDS = 30.0
INITIAL_EVENTS_END = "k8s.io/initial-events-end"
MAX_BEHIND = 20_000  # changes; a client that is slower than this must list again


@dataclass(kw_only=True)
class Watch:
    """One watch request."""

    resource: Resource
    namespace: str
    accepts: Predicate  # selectors
    since: int | None  # None: begin with everything there is
    view: Wanted
    seconds: float
    bookmarks: bool
    initial_end: bool  # say where the initial events end


def lifetime(text: str) -> float:
    """Seconds until the server ends a watch: as asked, or half an hour to an hour."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    return seconds if seconds > 0 else random.uniform(1800, 3600)


async def stream(store: Store, watch: Watch, stopping: asyncio.Event) -> AsyncIterator[bytes]:
    """Lines of JSON, one per event. Begins before the first await, so nothing is missed."""
    queue: asyncio.Queue[Change] = asyncio.Queue()
    key = watch.resource.store_key
    subscription = store.subscribe((key,), queue.put_nowait)
    stopped = asyncio.ensure_future(stopping.wait())
    try:
        start = store.revision
        try:
            first = _first(store, watch)
        except LookupError as error:
            yield _error(gone(f"too old resource version: {watch.since} ({error.args[0]})"))
            return
        for change in first:
            line = _line(watch, change)
            if line:
                yield line
        if watch.initial_end:
            yield _bookmark(watch, start, {INITIAL_EVENTS_END: "true"})
        async for line in _live(store, watch, queue, stopped):
            yield line
    finally:
        subscription.close()
        stopped.cancel()


def _first(store: Store, watch: Watch) -> list[Change]:
    key = watch.resource.store_key
    if watch.since is None:
        return sorted(snapshot(store, (key,), lambda _: watch.resource.kind), key=lambda each: each.revision)
    return store.since(key, watch.since)


async def _live(store: Store, watch: Watch, queue: asyncio.Queue[Change], stopped: asyncio.Future[Any]) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + watch.seconds
    marked = loop.time()
    while not stopped.done():
        if queue.qsize() > MAX_BEHIND:
            return
        wait = min(deadline, marked + BOOKMARK_SECONDS) - loop.time()
        try:
            if queue.empty():
                change = await _next(queue, stopped, max(0.0, wait))
            else:
                change = queue.get_nowait()
        except TimeoutError:
            change = None
        if change is not None:
            parts = [_line(watch, change)]
            while not queue.empty() and len(parts) < 200:
                parts.append(_line(watch, queue.get_nowait()))
            found = b"".join(parts)
            if found:
                yield found
        now = loop.time()
        if now >= marked + BOOKMARK_SECONDS or now >= deadline:
            marked = now
            if watch.bookmarks and queue.empty():
                yield _bookmark(watch, store.revision, {})
        if now >= deadline:
            return


async def _next(queue: asyncio.Queue[Change], stopped: asyncio.Future[Any], seconds: float) -> Change | None:
    """The next change; None when the server stops. TimeoutError when neither comes in time."""
    getter = asyncio.ensure_future(queue.get())
    try:
        await asyncio.wait((getter, stopped), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not getter.done():
            getter.cancel()
    if getter.done() and not getter.cancelled():
        return getter.result()
    if stopped.done():
        return None
    raise TimeoutError


def _line(watch: Watch, change: Change) -> bytes:
    """The event that this watch sees: an object that leaves the selection is DELETED for it, one that enters is ADDED."""
    doc = change.object
    if watch.namespace and doc["metadata"].get("namespace") != watch.namespace:
        return b""
    new = change.type != "DELETED" and watch.accepts(doc)
    old = change.previous is not None and watch.accepts(change.previous)
    entry = change.entry
    if new:
        kind = "MODIFIED" if old else "ADDED"
    elif old:
        kind = "DELETED"
        if change.type != "DELETED":
            # It is still there, but no longer selected: shown as it was, at the revision of the change.
            was: Doc = dict(change.previous or {})
            was["metadata"] = {**was["metadata"], "resourceVersion": doc["metadata"]["resourceVersion"]}
            entry = Entry(was, change.revision)
    else:
        return b""
    return b'{"type":"' + kind.encode() + b'","object":' + one(watch.resource, entry, watch.view) + b"}\n"


def _bookmark(watch: Watch, revision: int, annotations: dict[str, str]) -> bytes:
    metadata: Doc = {"resourceVersion": str(revision), "creationTimestamp": None}
    if annotations:
        metadata["annotations"] = annotations
    if watch.view.form == "table":
        shown: Doc = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": str(revision)}, "columnDefinitions": [], "rows": []}
    elif watch.view.form == "metadata":
        shown = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
    else:
        shown = {"kind": watch.resource.kind, "apiVersion": watch.resource.api_version, "metadata": metadata}
    return encode({"type": "BOOKMARK", "object": shown}) + b"\n"


def _error(error: StatusError) -> bytes:
    return encode({"type": "ERROR", "object": error.status()}) + b"\n"


def everything(*predicates: Predicate | None) -> Predicate:
    """All of the predicates at once."""
    tests: list[Callable[[Doc], bool]] = [each for each in predicates if each is not None]
    if not tests:
        return lambda _: True
    return tests[0] if len(tests) == 1 else lambda doc: all(test(doc) for test in tests)
