"""Where objects live: in memory, with every change written to SQLite (in groups where nobody waits) and handed to those who watch.

Documents in the store are never changed in place: a write puts a new document there, so readers may keep what they got.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .documents import Doc, encode, meta, name_of, namespace_of

log = logging.getLogger(__name__)

HISTORY_CHANGES = 4000
HISTORY_SECONDS = 300.0
FIRST_REVISION = 100  # above 0 and 1, which mean "any" and "long ago" in requests
# After a crash, revisions that watchers saw but that never reached the disk must not be given out again.
RESTART_GAP = 10_000
FLUSH_SECONDS = 0.02  # for writes that no request waits for
CHECKPOINT_SECONDS = 5.0

_K = TypeVar("_K")
_V = TypeVar("_V")


class Entry:
    """One version of one object, encoded at most once."""

    __slots__ = ("_body", "doc", "revision")

    def __init__(self, doc: Doc, revision: int, body: bytes | None = None) -> None:
        self.doc = doc
        self.revision = revision
        self._body = body

    @property
    def body(self) -> bytes:
        if self._body is None:
            self._body = encode(self.doc)
        return self._body


@dataclass(slots=True)
class Change:
    """One change: ADDED, MODIFIED or DELETED. A deleted object comes in its last version, under the revision of its deletion."""

    type: str
    kind: str
    object: Doc
    entry: Entry
    store_key: str
    previous: Doc | None = None
    at: float = 0.0

    @property
    def revision(self) -> int:
        return self.entry.revision


@dataclass(eq=False)
class Subscription:
    """Receives every change of some kinds (all, when `keys` is None) by a plain function call."""

    keys: frozenset[str] | None
    receive: Callable[[Change], None]
    store: Store = field(repr=False)

    def close(self) -> None:
        with contextlib.suppress(ValueError):
            self.store.subscriptions.remove(self)


class Store:
    """Single-threaded: the event loop's own."""

    def __init__(self, path: Path) -> None:
        self.objects: dict[str, dict[tuple[str, str], Entry]] = {}
        self.revision = FIRST_REVISION
        self.history: deque[Change] = deque()
        self.oldest = FIRST_REVISION  # a watch may begin at this revision or later
        self.subscriptions: list[Subscription] = []
        self.owned: dict[str, set[tuple[str, str, str]]] = {}  # owner's uid -> (store key, namespace, name) of dependents
        self.free: dict[tuple[str, str], set[str]] = {}  # (store key, namespace) -> names of what nothing controls
        self.by_uid: dict[str, tuple[str, str, str]] = {}
        self._pending: list[tuple[str, str, str, Entry | None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._path = path
        self._db = sqlite3.connect(path, isolation_level=None)
        self._open()

    # --- reading ---------------------------------------------------------------------------------------------------

    def entry(self, store_key: str, namespace: str, name: str) -> Entry | None:
        return self.objects.get(store_key, {}).get((namespace, name))

    def get(self, store_key: str, namespace: str, name: str) -> Doc | None:
        found = self.objects.get(store_key, {}).get((namespace, name))
        return found.doc if found else None

    def entries(self, store_key: str, namespace: str | None = None) -> Iterator[Entry]:
        for (space, _), entry in list(self.objects.get(store_key, {}).items()):
            if not namespace or space == namespace:
                yield entry

    def docs(self, store_key: str, namespace: str | None = None) -> list[Doc]:
        return [entry.doc for entry in self.entries(store_key, namespace)]

    # --- writing ---------------------------------------------------------------------------------------------------

    def put(self, store_key: str, kind: str, doc: Doc) -> Doc:
        """Stores `doc`, which the caller gives away, under a new revision."""
        place = (namespace_of(doc), name_of(doc))
        table = self.objects.setdefault(store_key, {})
        before = table.get(place)
        self.revision += 1
        doc["metadata"]["resourceVersion"] = str(self.revision)
        entry = Entry(doc, self.revision)
        table[place] = entry
        self._index(store_key, place, before.doc if before else None, doc)
        self._changed(Change("MODIFIED" if before else "ADDED", kind, doc, entry, store_key, before.doc if before else None), place, entry)
        return doc

    def remove(self, store_key: str, kind: str, namespace: str, name: str) -> Doc | None:
        place = (namespace, name)
        before = self.objects.get(store_key, {}).pop(place, None)
        if before is None:
            return None
        self.revision += 1
        doc = {**before.doc, "metadata": {**before.doc["metadata"], "resourceVersion": str(self.revision)}}
        self._index(store_key, place, before.doc, None)
        self._changed(Change("DELETED", kind, doc, Entry(doc, self.revision), store_key, before.doc), place, None)
        return doc

    def _index(self, store_key: str, place: tuple[str, str], before: Doc | None, after: Doc | None) -> None:
        where = (store_key, *place)
        for doc, present in ((before, False), (after, True)):
            if doc is None:
                continue
            uid = meta(doc).get("uid", "")
            if present:
                self.by_uid[uid] = where
            else:
                self.by_uid.pop(uid, None)
            owners = meta(doc).get("ownerReferences") or ()
            for owner in owners:
                _mark(self.owned, owner["uid"], where, present)
            if not any(owner.get("controller") for owner in owners):
                _mark(self.free, (store_key, place[0]), place[1], present)

    def _changed(self, change: Change, place: tuple[str, str], entry: Entry | None) -> None:
        change.at = time.monotonic()
        self.history.append(change)
        while len(self.history) > HISTORY_CHANGES or self.history[0].at < change.at - HISTORY_SECONDS:
            self.oldest = self.history.popleft().revision
        self._pending.append((change.store_key, *place, entry))
        if self._timer is None:
            with contextlib.suppress(RuntimeError):  # no loop yet: `flush` or `close` writes it
                self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        for subscription in list(self.subscriptions):
            if subscription.keys is None or change.store_key in subscription.keys:
                subscription.receive(change)

    # --- watching --------------------------------------------------------------------------------------------------

    def subscribe(self, keys: Iterable[str] | None, receive: Callable[[Change], None]) -> Subscription:
        subscription = Subscription(None if keys is None else frozenset(keys), receive, self)
        self.subscriptions.append(subscription)
        return subscription

    def since(self, store_key: str, revision: int) -> list[Change]:
        """Changes of one kind after `revision`. LookupError when the history no longer reaches back that far."""
        if revision < self.oldest:
            raise LookupError(self.oldest)
        return [change for change in self.history if change.store_key == store_key and change.revision > revision]

    # --- the disk --------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        # WAL without full sync: a killed process loses nothing that was committed; only a power cut may lose the last moments.
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("PRAGMA wal_autocheckpoint=0")
        columns = "kind TEXT, namespace TEXT, name TEXT, revision INTEGER, body BLOB, PRIMARY KEY (kind, namespace, name)"
        self._db.execute(f"CREATE TABLE IF NOT EXISTS objects ({columns}) WITHOUT ROWID")
        self._db.execute("CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER)")
        for kind, namespace, name, revision, body in self._db.execute("SELECT kind, namespace, name, revision, body FROM objects"):
            doc = json.loads(body)
            self.objects.setdefault(kind, {})[namespace, name] = Entry(doc, revision, body)
            self._index(kind, (namespace, name), None, doc)
        row = self._db.execute("SELECT revision FROM counter").fetchone()
        if row:
            self.revision = row[0] + RESTART_GAP
        self.oldest = self.revision

    def flush(self) -> None:
        """Returns when everything written so far would survive the end of this process. sqlite3.Error when the disk refuses."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._pending:
            return
        self._db.execute("BEGIN")
        try:
            for kind, namespace, name, entry in self._pending:
                if entry is None:
                    self._db.execute("DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ?", (kind, namespace, name))
                else:
                    self._db.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", (kind, namespace, name, entry.revision, entry.body))
            self._db.execute("INSERT OR REPLACE INTO counter VALUES (1, ?)", (self.revision,))
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._pending.clear()

    async def checkpointing(self) -> None:
        """Moves the write-ahead log into the database now and then, in a thread: only this waits for the disk."""
        while True:
            await asyncio.sleep(CHECKPOINT_SECONDS)
            await asyncio.to_thread(self._checkpoint)

    def _checkpoint(self) -> None:
        with contextlib.closing(sqlite3.connect(self._path)) as db:
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        self.flush()
        self._db.close()


def _mark(index: dict[_K, set[_V]], key: _K, value: _V, present: bool) -> None:
    if present:
        index.setdefault(key, set()).add(value)
    elif key in index:
        index[key].discard(value)
        if not index[key]:
            del index[key]


def snapshot(store: Store, keys: Iterable[str], kind_of: Callable[[str], str]) -> Iterator[Change]:
    """Everything there is, as ADDED changes."""
    for key in keys:
        for entry in store.entries(key):
            yield Change("ADDED", kind_of(key), entry.doc, entry, key)


def matches(doc: Doc, labels: dict[str, str] | Any) -> bool:
    """Whether a document bears all of `labels`."""
    own = meta(doc).get("labels") or {}
    return all(own.get(key) == value for key, value in labels.items())
