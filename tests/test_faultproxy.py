"""The fault proxy does what it says: otherwise tests that rely on it prove nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k8s import cluster as api
from k8s import errors
from k8s.cluster import Cluster
from tests.embedded import EmbeddedCluster, embedded
from tests.faultproxy import Fault, FaultProxy, Kind, list_of, watch_of
from tests.stack import wait_until

__all__ = ["embedded"]


@pytest.fixture
def direct(embedded: EmbeddedCluster) -> Iterator[Cluster]:
    cluster = Cluster(embedded.kubeconfig)
    yield cluster
    cluster.close()


@pytest.fixture
def proxy(embedded: EmbeddedCluster, tmp_path: Path) -> Iterator[FaultProxy]:
    with FaultProxy(embedded.kubeconfig, tmp_path, seed=1) as proxy:
        yield proxy


@pytest.fixture
def through(proxy: FaultProxy) -> Iterator[Cluster]:
    cluster = Cluster(proxy.kubeconfig)
    yield cluster
    cluster.close()


def note(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default", "labels": {}, "annotations": {}}, "data": {}}


class Following(threading.Thread):
    """A watch of config maps in a thread: what came, and how it ended."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self.cluster = cluster
        self.seen: list[tuple[str, str]] = []
        self.end: Exception | None = None
        self.version = cluster.find_at(api.CONFIG_MAPS, "default")[1]
        self.start()

    def run(self) -> None:
        try:
            for event, item in self.cluster.watch(api.CONFIG_MAPS, "default", resource_version=self.version):
                self.seen.append((event, item["metadata"].get("name", "")))
        except errors.ClusterError as error:
            self.end = error


def names(cluster: Cluster) -> set[str]:
    return {item["metadata"]["name"] for item in cluster.find(api.CONFIG_MAPS, "default")}


def test_without_a_fault_everything_passes(through: Cluster, direct: Cluster, proxy: FaultProxy) -> None:
    following = Following(through)
    wait_until(lambda: proxy.watches, "the watch")
    made = through.apply(note("passes"))
    assert "passes" in names(direct)
    assert through.delete(made)
    wait_until(lambda: ("DELETED", "passes") in following.seen, "the watch to tell")
    assert through.get(api.CONFIG_MAPS, "passes", "default") is None
    assert proxy.hits() == []


def test_429_and_500_are_answered_as_often_as_asked(through: Cluster, proxy: FaultProxy) -> None:
    proxy.inject(Fault(Kind.THROTTLED, times=1, seconds=7))
    with pytest.raises(errors.Throttled) as throttled:
        names(through)
    assert throttled.value.retry_after == 7
    proxy.inject(Fault(Kind.ERROR, times=2))
    for _ in range(2):
        with pytest.raises(errors.ServerFault):
            names(through)
    names(through)
    assert [hit.kind for hit in proxy.hits()] == [Kind.THROTTLED, Kind.ERROR, Kind.ERROR]


def test_a_cut_loses_the_answer_or_the_request(through: Cluster, direct: Cluster, proxy: FaultProxy) -> None:
    before = proxy.inject(Fault(Kind.CUT, after=False, match=lambda asked: asked.method == "PATCH"))
    with pytest.raises(errors.Unreachable):
        through.apply(note("unasked"))
    assert "unasked" not in names(direct)
    proxy.withdraw(before)
    proxy.inject(Fault(Kind.CUT, after=True, match=lambda asked: asked.method == "PATCH"))
    with pytest.raises(errors.Unreachable):
        through.apply(note("unanswered"))
    assert "unanswered" in names(direct)


def test_an_open_watch_is_told_410_or_cut(through: Cluster, proxy: FaultProxy) -> None:
    for kind, error in ((Kind.GONE, errors.Expired), (Kind.CUT, errors.Unreachable)):
        following = Following(through)
        wait_until(lambda: proxy.watches, "the watch")
        proxy.inject(Fault(kind, times=1, match=watch_of("configmaps")))
        following.join(60)
        # a connection that is cut between two chunks may also look like an end
        assert isinstance(following.end, error) or (kind is Kind.CUT and not following.is_alive())
        wait_until(lambda: not proxy.watches, "no watch")


def test_a_stalled_watch_tells_later_and_a_stalled_request_is_let_go(through: Cluster, direct: Cluster, proxy: FaultProxy) -> None:
    following = Following(through)
    wait_until(lambda: proxy.watches, "the watch")
    stall = proxy.inject(Fault(Kind.STALL, seconds=600))
    answers: list[set[str]] = []
    asking = threading.Thread(target=lambda: answers.append(names(through)), daemon=True)
    asking.start()
    direct.apply(note("late"))
    wait_until(lambda: len(proxy.hits(Kind.STALL)) == 2, "both to be held")
    assert not answers
    assert ("ADDED", "late") not in following.seen
    proxy.withdraw(stall)
    asking.join(60)
    assert "late" in answers[0]
    wait_until(lambda: ("ADDED", "late") in following.seen, "the watch to tell")


def test_a_stale_list_is_as_it_was(through: Cluster, direct: Cluster, proxy: FaultProxy) -> None:
    before = names(through)
    direct.apply(note("fresh"))
    stale = proxy.inject(Fault(Kind.STALE, seconds=600, match=list_of("configmaps")))
    assert names(through) == before
    assert through.get(api.CONFIG_MAPS, "fresh", "default") is not None, "only lists are stale"
    proxy.withdraw(stale)
    assert names(through) == before | {"fresh"}


def test_dropped_deletions_do_not_arrive(through: Cluster, direct: Cluster, proxy: FaultProxy) -> None:
    made = direct.apply(note("dropped"))
    following = Following(through)
    wait_until(lambda: proxy.watches, "the watch")
    proxy.inject(Fault(Kind.DROP))
    direct.delete(made)
    direct.apply(note("afterwards"))
    wait_until(lambda: ("ADDED", "afterwards") in following.seen, "what came after")
    assert ("DELETED", "dropped") not in following.seen
    assert len(proxy.hits(Kind.DROP)) == 1


def test_with_the_cluster_away_the_proxy_is_too(embedded: EmbeddedCluster, through: Cluster) -> None:
    names(through)
    embedded.kill()
    with pytest.raises(errors.Unreachable):
        names(through)
    embedded.start()
    began = time.monotonic()
    while True:
        try:
            assert "kube-root-ca.crt" in names(through)
            return
        except errors.Unreachable:
            assert time.monotonic() - began < 60
