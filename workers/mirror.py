"""One kind of object, followed for ever: list, watch, list again.

Survives a cluster that is away, watches that die in silence, lists that are older than what is known already, and deletions that no
watch told: a list now and then finds them.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from k8s import errors
from k8s.cluster import SILENCE_SECONDS, Cluster, Kind

logger = logging.getLogger(__name__)

Object = dict[str, Any]
T = TypeVar("T")

RELIST_SECONDS = 60.0  # a watch can lose events without anyone noticing; a list cannot
_LIST_SHARE = 0.005  # of this process's time goes into lists at most: with very many objects they come less often
_MAX_PAUSE = 10.0
_STALE_PAUSE = 1.0
_CALM = 5.0  # seconds without a 410, after which the next one is answered at once
# A cluster restored from a backup counts from an older version on. Until then an older list is one that a cache gave.
_STALE_PATIENCE = 600.0


class Stale(Exception):
    """A list is older than what is known already."""


@dataclass(frozen=True)
class _Kept(Generic[T]):
    version: str
    value: T


class Mirror(threading.Thread, Generic[T]):
    """Keeps what `digest` makes of each object of a kind, and reports what changes.

    `changed(old, new)` is called from this thread with two digests: old is None for a new object, new is None for one that is gone. It is
    called for every new version of an object, must be quick, and whatever it raises is logged and passed over. An object of which
    `digest` makes None is passed over. With `keep` off nothing is remembered and every version is told as new.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind,
        changed: Callable[[T | None, T | None], None],
        digest: Callable[[Object], T | None],
        *,
        labels: str = "",
        keep: bool = True,
        metadata_only: bool = False,
        relist_seconds: float = RELIST_SECONDS,
    ) -> None:
        super().__init__(name=f"watch-{kind.plural}", daemon=True)
        self.cluster, self.kind, self.labels, self.keep, self.metadata_only = cluster, kind, labels, keep, metadata_only
        self.synced = threading.Event()
        self.relist_seconds = relist_seconds
        self._changed, self._digest = changed, digest
        self._objects: dict[str, _Kept[T]] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._newest = 0  # highest resourceVersion seen
        self._stale_since: float | None = None
        self._heard = 0.0
        self._list_cost = 0.0
        self._expired = 0.0

    def stop(self) -> None:
        self._ending.set()

    def objects(self) -> list[T]:
        """What is there, as last heard."""
        with self._lock:
            return [kept.value for kept in self._objects.values()]

    @property
    def current(self) -> bool:
        """True when what is known is complete and not older than the longest silence of a watch that lives."""
        return self.synced.is_set() and time.monotonic() - self._heard <= SILENCE_SECONDS

    # --- list, watch ---------------------------------------------------------------

    def run(self) -> None:
        pause = 0.0
        while not self._ending.is_set():
            try:
                version = self._relist()
                pause = 0.0
                self.synced.set()
                self._follow(version)
            except errors.Expired:
                now = time.monotonic()
                pause, self._expired = (0.0 if now - self._expired > _CALM else 1.0), now
            except Stale as error:
                pause = _STALE_PAUSE
                logger.warning("an old list is not believed, asked again: kind=%s %s", self.kind.plural, error)
            except errors.ClusterError as error:
                pause = max(min(error.retry_after or 0.0, _MAX_PAUSE), min(_MAX_PAUSE, max(0.5, pause * 2)))
                logger.warning("watch broke off, starting over: kind=%s error=%s", self.kind.plural, error)
            except Exception:
                pause = _MAX_PAUSE
                logger.exception("watch failed unexpectedly, starting over: kind=%s", self.kind.plural)
            if pause:
                self._ending.wait(pause * random.uniform(0.8, 1.2))

    def _relist(self) -> str:
        """Bring what is kept in line with a whole, new list; the version from which a watch goes on. Raises Stale, `k8s.errors`."""
        began = time.thread_time()
        items, version = self.cluster.find_at(self.kind, labels=self.labels, metadata_only=self.metadata_only)
        self._check_age(version)
        present = {item["metadata"]["uid"] for item in items}
        with self._lock:
            gone = [uid for uid in self._objects if uid not in present]
        for uid in gone:
            self._forget(uid)
        for item in items:
            self._take(item)
        self._heard = time.monotonic()
        self._list_cost = time.thread_time() - began
        return version

    def _check_age(self, version: str) -> None:
        number, now = _number(version), time.monotonic()
        if number >= self._newest:
            self._stale_since = None
        else:
            self._stale_since = self._stale_since or now
            if now - self._stale_since < _STALE_PATIENCE:
                raise Stale(f"version={version} known={self._newest}")
            logger.warning("the cluster's versions have gone back for good, believed now: kind=%s", self.kind.plural)
            self._stale_since = None
            with self._lock:
                self._objects = {uid: _Kept("", kept.value) for uid, kept in self._objects.items()}
        self._newest = number

    def _follow(self, version: str) -> None:
        """Watch from `version` on until it is time to list again. An ended watch is taken up where it ended."""
        until = time.monotonic() + max(self.relist_seconds, self._list_cost / _LIST_SHARE) * random.uniform(0.8, 1.2)
        while time.monotonic() < until and not self._ending.is_set():
            started = time.monotonic()
            seconds = until - started
            try:
                watch = self.cluster.watch(self.kind, labels=self.labels, resource_version=version, metadata_only=self.metadata_only, seconds=seconds)
                for event, item in watch:
                    version = item["metadata"]["resourceVersion"]
                    self._heard = time.monotonic()
                    self._newest = max(self._newest, _number(version))
                    if event == "DELETED":
                        self._forget(item["metadata"]["uid"])
                    elif event != "BOOKMARK":
                        self._take(item)
                    if self._ending.is_set():
                        return
            except errors.Unreachable:
                # Silent for too long, or cut: go on from where it was; a cluster that is away fails again at once and ends this.
                if time.monotonic() - started < 1:
                    raise
            if time.monotonic() - started < 0.2:
                self._ending.wait(0.5)  # a server that ends watches at once must not be asked in a tight loop

    # --- what is kept ----------------------------------------------------------------

    def _take(self, item: Object) -> None:
        metadata = item["metadata"]
        uid, version = metadata["uid"], metadata["resourceVersion"]
        old = self._objects.get(uid)
        if old is not None and (old.version == version or _number(version) < _number(old.version)):
            return
        value = self._digest(item)
        if value is None:
            self._forget(uid)
            return
        if self.keep:
            with self._lock:
                self._objects[uid] = _Kept(version, value)
        self._tell(old.value if old else None, value)

    def _forget(self, uid: str) -> None:
        with self._lock:
            old = self._objects.pop(uid, None)
        if old is not None:
            self._tell(old.value, None)

    def _tell(self, old: T | None, new: T | None) -> None:
        try:
            self._changed(old, new)
        except Exception:
            logger.exception("a change could not be handled: kind=%s", self.kind.plural)


def whole(item: Object) -> Mapping[str, Any]:
    """The digest that leaves everything as it is."""
    return item


def _number(version: str) -> int:
    """Versions of one kind of object can be compared as numbers. One that is no number says nothing about its age."""
    return int(version) if version.isdigit() else 0
