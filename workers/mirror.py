"""One kind of object, followed for ever: list, watch, list again. Survives a cluster that is away, and watches that die in silence."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from k8s import errors
from k8s.cluster import Cluster, Kind

logger = logging.getLogger(__name__)

Object = dict[str, Any]

RELIST_SECONDS = 240.0  # a watch can lose events without anyone noticing; a list cannot
_MAX_PAUSE = 10.0


class Mirror(threading.Thread):
    """Keeps the objects of a kind in mind and reports what changes.

    `changed(old, new)` is called from this thread: old is None for a new object, new is None for one that is gone. It must
    be quick, and whatever it raises is logged and passed over.
    """

    def __init__(self, cluster: Cluster, kind: Kind, changed: Callable[[Object | None, Object | None], None], *, labels: str = "", keep: bool = True) -> None:
        super().__init__(name=f"watch-{kind.plural}", daemon=True)
        self.cluster, self.kind, self.labels, self.keep = cluster, kind, labels, keep
        self.synced = threading.Event()
        self._changed = changed
        self._objects: dict[str, Object] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()

    def stop(self) -> None:
        self._ending.set()

    def objects(self) -> list[Object]:
        """What is there, as last heard."""
        with self._lock:
            return list(self._objects.values())

    def run(self) -> None:
        pause = 0.0
        while not self._ending.is_set():
            try:
                version = self._relist()
                pause = 0.0
                self.synced.set()
                self._follow(version)
            except errors.Expired:
                continue
            except errors.ClusterError as error:
                pause = min(_MAX_PAUSE, max(0.5, pause * 2))
                logger.warning("watch broke off, starting over: kind=%s error=%s", self.kind.plural, error)
            except Exception:
                pause = _MAX_PAUSE
                logger.exception("watch failed unexpectedly, starting over: kind=%s", self.kind.plural)
            if pause:
                self._ending.wait(pause * random.uniform(0.8, 1.2))

    def _relist(self) -> str:
        items, version = self.cluster.find_at(self.kind, labels=self.labels)
        present = {item["metadata"]["uid"]: item for item in items}
        with self._lock:
            gone = [item for uid, item in self._objects.items() if uid not in present]
        for item in gone:
            self._set(item["metadata"]["uid"], None)
        for uid, item in present.items():
            self._set(uid, item)
        return version

    def _follow(self, version: str) -> None:
        """Watch from `version` on until it is time to list again. An ended watch is taken up where it ended."""
        until = time.monotonic() + RELIST_SECONDS * random.uniform(0.8, 1.2)
        while time.monotonic() < until and not self._ending.is_set():
            started = time.monotonic()
            try:
                for event, item in self.cluster.watch(self.kind, labels=self.labels, resource_version=version):
                    version = item["metadata"]["resourceVersion"]
                    if event != "BOOKMARK":
                        self._set(item["metadata"]["uid"], None if event == "DELETED" else item)
                    if self._ending.is_set():
                        return
            except errors.Unreachable:
                # Silent for too long, or cut: go on from where it was; a cluster that is away fails again at once and ends this.
                if time.monotonic() - started < 1:
                    raise
            if time.monotonic() - started < 0.2:
                self._ending.wait(0.5)  # a server that ends watches at once must not be asked in a tight loop

    def _set(self, uid: str, item: Object | None) -> None:
        with self._lock:
            old = self._objects.get(uid)
            if item is None:
                self._objects.pop(uid, None)
            elif self.keep:
                self._objects[uid] = item
        if old is None and item is None:
            return
        if old and item and old["metadata"]["resourceVersion"] == item["metadata"]["resourceVersion"]:
            return
        try:
            self._changed(old, item)
        except Exception:
            logger.exception("a change could not be handled: kind=%s", self.kind.plural)
