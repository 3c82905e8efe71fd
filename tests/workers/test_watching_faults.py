"""A mirror behind an API that stalls, cuts, forgets, tells old news and keeps deletions to itself."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from k8s import cluster as api
from k8s import names
from k8s.cluster import Cluster
from tests.embedded import EmbeddedCluster
from tests.faultproxy import Fault, FaultProxy, Kind, list_of, watch_of
from tests.stack import wait_until
from workers.mirror import Mirror, whole

pytestmark = pytest.mark.integration


class Site:
    """ConfigMaps changed directly, and a mirror that sees them through the proxy."""

    def __init__(self, embedded: EmbeddedCluster, proxy: FaultProxy, mark: str, **options: Any) -> None:
        self.cluster, self.proxy, self.mark = Cluster(embedded.kubeconfig), proxy, mark
        self.heard: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self.mirror = Mirror(Cluster(proxy.kubeconfig), api.CONFIG_MAPS, self._changed, whole, labels=f"mirrored={mark}", **options)

    def _changed(self, old: Any, new: Any) -> None:
        with self._lock:
            self.heard.append(((old or new)["metadata"]["name"], "gone" if new is None else "new" if old is None else "changed"))

    def apply(self, name: str, **data: str) -> dict[str, Any]:
        labels = {names.MANAGED_BY: names.MANAGER, names.INSTALL: "abc123", "mirrored": self.mark}
        metadata = {"name": f"{self.mark}-{name}", "namespace": "default", "labels": labels}
        return self.cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})

    def hears(self, name: str, what: str) -> None:
        wait_until(lambda: (f"{self.mark}-{name}", what) in self.heard, f"{name} {what}; heard {self.heard}")

    def names(self) -> list[str]:
        return sorted(item["metadata"]["name"].removeprefix(f"{self.mark}-") for item in self.mirror.objects())


@pytest.fixture
def site(embedded: EmbeddedCluster, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []
    with FaultProxy(embedded.kubeconfig, tmp_path) as proxy:

        def make(mark: str, **options: Any) -> Site:
            made.append(Site(embedded, proxy, mark, **options))
            made[-1].apply("first")
            made[-1].mirror.start()
            made[-1].hears("first", "new")
            return made[-1]

        yield make
        for each in made:
            each.mirror.stop()
        proxy.clear()


def test_a_watch_that_falls_silent_is_given_up_and_taken_up_again(site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "SILENCE_SECONDS", 3.0)
    here = site("silent", relist_seconds=3600.0)
    wait_until(lambda: here.proxy.watches, "the watch")
    stall = here.proxy.inject(Fault(Kind.STALL, match=watch_of("configmaps"), times=1, seconds=3600))
    here.apply("second")
    here.hears("second", "new")
    assert not stall.ended.is_set(), "the stalled watch is still held"
    assert here.heard.count(("silent-first", "new")) == 1


def test_a_watch_that_was_cut_goes_on_where_it_was(site: Callable[..., Site]) -> None:
    here = site("cut", relist_seconds=3600.0)
    for number in range(3):
        wait_until(lambda: here.proxy.watches, "a watch")
        here.proxy.inject(Fault(Kind.CUT, match=watch_of("configmaps"), times=1))
        here.apply(f"after-{number}")
        here.hears(f"after-{number}", "new")
    assert here.heard.count(("cut-first", "new")) == 1
    assert here.names() == ["after-0", "after-1", "after-2", "first"]


def test_a_watch_that_is_too_old_begins_with_a_list_and_a_server_that_says_so_for_ever_is_not_asked_without_end(site: Callable[..., Site]) -> None:
    here = site("gone")
    wait_until(lambda: here.proxy.watches, "the watch")
    gone = here.proxy.inject(Fault(Kind.GONE))
    here.apply("second")
    here.hears("second", "new")
    wait_until(lambda: len(here.proxy.hits(Kind.GONE)) >= 5, "some more of it")
    hits = [hit.at for hit in here.proxy.hits(Kind.GONE)]
    assert min(later - earlier for earlier, later in itertools.pairwise(hits[2:])) > 0.5
    here.proxy.withdraw(gone)
    here.cluster.delete(here.apply("second"))
    here.hears("second", "gone")
    assert here.names() == ["first"]


def test_a_list_that_is_older_than_what_is_known_is_not_believed(site: Callable[..., Site]) -> None:
    here = site("stale", relist_seconds=1.0)
    second = here.apply("second")
    here.hears("second", "new")
    stale = here.proxy.inject(Fault(Kind.STALE, match=list_of("configmaps"), seconds=3600))
    wait_until(lambda: len(here.proxy.hits(Kind.STALE)) >= 3, "old lists")
    assert here.names() == ["first", "second"]
    assert ("stale-second", "gone") not in here.heard
    here.proxy.withdraw(stale)
    here.cluster.delete(second)
    here.hears("second", "gone")


def test_a_deletion_that_no_watch_tells_is_found_by_a_list(site: Callable[..., Site]) -> None:
    here = site("dropped", relist_seconds=2.0)
    second = here.apply("second")
    here.hears("second", "new")
    wait_until(lambda: here.proxy.watches, "the watch")
    here.proxy.inject(Fault(Kind.DROP))
    here.cluster.delete(second)
    here.hears("second", "gone")
    assert here.proxy.hits(Kind.DROP)


def test_a_mirror_of_metadata_hears_the_same_of_less(site: Callable[..., Site]) -> None:
    here = site("lean", metadata_only=True)
    here.apply("first", a="1")
    here.hears("first", "changed")
    (item,) = here.mirror.objects()
    assert "data" not in item
    assert item["metadata"]["labels"]["mirrored"] == "lean"
    assert here.mirror.current
