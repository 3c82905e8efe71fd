"""Orphans go, look-alikes stay: the real embedded cluster, real rows, and the mirrors of a watcher."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from k8s import cluster as api
from k8s import names
from k8s.cluster import Cluster
from portal.domain import services
from portal.domain.models import Environment, Volume
from tests.embedded import EmbeddedCluster
from tests.faultproxy import Fault, FaultProxy, Kind
from tests.stack import wait_until
from workers.hub import Hub
from workers.orphans import Orphans, Thing, thing
from workers.watcher import Watcher

from .conftest import World, make_world
from .lookalikes import NAMESPACE, config_map, create_all, labels, look_alikes, orphans, places, stateful_set
from .many import many_environments

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]


class Site:
    """A watcher of which only the mirrors run, and orphans looked for by hand, at times of the test's choosing."""

    def __init__(self, world: World, kubeconfig: Path, install: str) -> None:
        self.world, self.install = world, install
        self.cluster = Cluster(kubeconfig)
        self.watcher = Watcher(self.cluster, Hub("http://127.0.0.1:9/hub/api", "none"))
        self.acts, self.nudged = True, list[str]()
        self.orphans = Orphans(self.cluster, Hub("http://127.0.0.1:9/hub/api", "none"), lambda: self.acts, self.nudged.append, apart=10.0)
        for mirror in self.watcher.mirrors:
            mirror.start()

    def things(self) -> list[Thing]:
        return wait_until(self.watcher.things, "complete mirrors")

    def until_seen(self, count: int, prefix: str) -> list[Thing]:
        def seen() -> list[Thing] | None:
            found = self.things()
            return found if sum(item.name.startswith(prefix) for item in found) == count else None

        return wait_until(seen, f"{count} of {prefix} in the mirrors")

    def row(self, state: str, **more: Any) -> str:
        (made,) = many_environments(1, owner=self.world.alice, team=self.world.vision, states=(state,), **more)
        Environment.objects.filter(pk=made.pk).update(name=f"n{made.pk.hex[:8]}")
        return str(made.pk)


@pytest.fixture(scope="module", autouse=True)
def _namespace(embedded: EmbeddedCluster) -> None:
    Cluster(embedded.kubeconfig).create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})


@pytest.fixture
def site(embedded: EmbeddedCluster, settings: Any, transactional_db: None) -> Iterator[Site]:
    site = Site(make_world(), embedded.kubeconfig, settings.INSTALL_ID)
    yield site
    site.watcher.stop()
    for kind in (api.CONFIG_MAPS, api.POLICIES, api.SECRETS, api.SERVICES, api.STATEFUL_SETS, api.CLAIMS):
        for item in site.cluster.find(kind):
            if item["metadata"]["name"].startswith(("lost", "alike", "home")):
                site.cluster.delete(item)


def test_every_orphan_goes_at_the_second_sighting_and_no_look_alike(site: Site) -> None:
    living, deleted = site.row("running"), site.row("deleted")
    made = [*orphans(60, site.install), config_map("lost-of-deleted", labels(site.install, deleted))]
    create_all(site.cluster, made)
    create_all(site.cluster, look_alikes(60, site.install, living, deleted))
    alike = places(site.cluster, "alike")
    assert len(alike) == 60
    found = site.until_seen(61, "lost")
    assert site.orphans.objects(found, 100.0) == 0
    assert site.orphans.objects(found, 109.0) == 0
    assert len(places(site.cluster, "lost")) == 61
    assert site.orphans.objects(site.things(), 110.0) == 61
    assert places(site.cluster, "lost") == set()
    assert site.orphans.objects(site.until_seen(0, "lost"), 200.0) == 0
    assert places(site.cluster, "alike") == alike


def test_what_was_wanted_between_two_sightings_begins_anew(site: Site) -> None:
    environment = site.row("stopped")
    create_all(site.cluster, [config_map("lost-1", labels(site.install, environment))])
    found = site.until_seen(1, "lost")
    assert site.orphans.objects(found, 100.0) == 0
    Environment.objects.filter(pk=environment).update(state="queued")
    assert site.orphans.objects(found, 111.0) == 0
    Environment.objects.filter(pk=environment).update(state="stopped")
    assert site.orphans.objects(found, 122.0) == 0
    assert site.orphans.objects(found, 133.0) == 1


def test_nothing_of_a_stopped_environment_goes_while_a_worker_is_at_it(site: Site) -> None:
    environment = site.row("stopped")
    create_all(site.cluster, [config_map("lost-1", labels(site.install, environment))])
    found = site.until_seen(1, "lost")
    site.orphans.objects(found, 100.0)
    assert services.lease_take(environment, "a worker", 60) is not None
    assert site.orphans.objects(found, 111.0) == 0
    services.lease_release(environment, "a worker", 600)
    assert site.orphans.objects(found, 112.0) == 1
    assert Environment.objects.get(pk=environment).lease_holder == ""


def test_the_live_object_decides_not_the_picture_of_it(site: Site) -> None:
    made = create_all(site.cluster, [config_map(f"lost-{number}", labels(site.install, str(uuid4()))) for number in range(3)])
    found = site.until_seen(3, "lost")
    site.orphans.objects(found, 100.0)
    site.cluster.replace({**made[0], "metadata": {**made[0]["metadata"], "labels": {**made[0]["metadata"]["labels"], names.INSTALL: "other"}}})
    site.cluster.delete(made[1])
    wait_until(lambda: site.cluster.get(api.CONFIG_MAPS, "lost-1", NAMESPACE) is None, "it to go")
    site.cluster.create(config_map("lost-1", labels(site.install, str(uuid4()))))
    assert site.orphans.objects(found, 111.0) == 1, "of the old picture only the one that is still as it was"
    assert [bool(site.cluster.get(api.CONFIG_MAPS, f"lost-{number}", NAMESPACE)) for number in range(3)] == [True, True, False]


def test_what_was_written_to_since_it_was_read_is_not_deleted(site: Site) -> None:
    (made,) = create_all(site.cluster, [config_map("lost-1", labels(site.install, str(uuid4())))])
    site.cluster.annotate(made, {"somebody": "was here"})
    assert not site.cluster.delete(made, unchanged=True)
    assert site.cluster.delete(made)


def test_whoever_may_not_act_deletes_nothing(site: Site) -> None:
    create_all(site.cluster, orphans(5, site.install))
    found = site.until_seen(5, "lost")
    site.orphans.objects(found, 100.0)
    site.acts = False
    assert site.orphans.objects(found, 111.0) == 0
    site.acts = True
    site.orphans.forget()  # another led meanwhile
    assert site.orphans.objects(found, 112.0) == 0
    assert site.orphans.objects(found, 123.0) == 5


def test_mirrors_that_hear_nothing_are_no_ground_to_act_on(site: Site, embedded: EmbeddedCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultProxy(embedded.kubeconfig, tmp_path) as proxy:
        watcher = Watcher(Cluster(proxy.kubeconfig), Hub("http://127.0.0.1:9/hub/api", "none"))
        assert watcher.things() is None, "not before the first lists"
        for mirror in watcher.mirrors:
            mirror.start()
        try:
            wait_until(lambda: watcher.things() is not None, "complete mirrors")
            monkeypatch.setattr("workers.mirror.SILENCE_SECONDS", 2.0)
            proxy.inject(Fault(Kind.STALL, seconds=3600))
            wait_until(lambda: watcher.things() is None, "the silence to be noticed")
        finally:
            watcher.stop()
            proxy.clear()


def test_what_should_run_and_has_nothing_in_the_cluster_is_looked_at(site: Site) -> None:
    bare, starting, whole = site.row("running"), site.row("queued"), site.row("running")
    create_all(site.cluster, [config_map("alike-parent", labels(site.install, whole))])
    found = site.until_seen(1, "alike")
    site.orphans.objects(found, 100.0)
    assert site.nudged == []
    site.orphans.objects(found, 111.0)
    site.orphans.objects(found, 116.0)
    assert site.nudged == [bare]
    assert starting not in site.nudged


def test_a_home_claim_without_a_volume_is_told_and_stays(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    def claim(name: str) -> dict[str, Any]:
        marks = labels(site.install, "")
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
        metadata = {"name": name, "namespace": NAMESPACE, "labels": marks}
        return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}

    create_all(site.cluster, [claim("home-known"), claim("home-lost")])
    Volume.objects.create(team=site.world.vision, owner=site.world.alice, name="nb", claim="home-known", size_bytes=1)
    found = site.until_seen(2, "home")
    assert site.orphans.claims(found, 100.0) == []
    for now in (111.0, 200.0):
        assert [item.name for item in site.orphans.claims(found, now)] == ["home-lost"]
        assert site.orphans.objects(found, now) == 0
    assert caplog.text.count("home-lost") == 1
    assert {item["metadata"]["name"] for item in site.cluster.find(api.CLAIMS, NAMESPACE)} == {"home-known", "home-lost"}


def test_a_watcher_that_leads_removes_orphans_by_itself(site: Site) -> None:
    create_all(site.cluster, [*orphans(10, site.install), stateful_set("alike-set", labels("other", str(uuid4())))])
    watcher = Watcher(Cluster(site.cluster.kubeconfig), Hub("http://127.0.0.1:9/hub/api", "none"))
    looking = threading.Thread(target=watcher._keep_house, daemon=True)
    for mirror in watcher.mirrors:
        mirror.start()
    watcher.leader._until = time.monotonic() + 600  # as after the lease was got
    looking.start()
    try:
        wait_until(lambda: places(site.cluster, "lost") == set(), "them to go")
    finally:
        watcher.stop()
        looking.join(30)
    assert len(places(site.cluster, "alike")) == 1


def test_only_what_bears_the_labels_of_this_installation_is_a_thing_of_ours(site: Site) -> None:
    identifier = str(uuid4())
    item = {**config_map("x", labels(site.install, identifier)), "metadata": {"uid": "1", "name": "x", "namespace": NAMESPACE}}
    assert thing(api.CONFIG_MAPS, item) is None
    item["metadata"]["labels"] = labels(site.install, identifier)
    assert thing(api.CONFIG_MAPS, item) == Thing(kind=api.CONFIG_MAPS, namespace=NAMESPACE, name="x", uid="1", environment=identifier)
