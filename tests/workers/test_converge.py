"""Clusters brought up, changed and taken down: real rows, the real embedded cluster, and `converge` called as the worker would."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.files.storage import storages

from k8s import cluster as api
from k8s import names
from k8s.cluster import Cluster
from portal.domain import services
from portal.domain.models import Environment, Event, LogArchive, Quota
from tests.embedded import EmbeddedCluster
from tests.stack import wait_until
from workers import teams
from workers.converge import converge
from workers.hub import Hub

from .conftest import World, make_world, only_runs, row

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def cluster(embedded: EmbeddedCluster) -> Iterator[Cluster]:
    teams.forget()
    cluster = Cluster(embedded.kubeconfig)
    yield cluster
    cluster.close()


class Site:
    """The world, and the means to bring an environment to where it wants to be."""

    def __init__(self, world: World, cluster: Cluster) -> None:
        self.world, self.cluster = world, cluster
        self.hub = Hub("http://127.0.0.1:9/hub/api", "none")  # nobody listens: clusters must not need it

    def look(self, environment: Environment) -> Environment:
        converge(environment.pk, cluster=self.cluster, hub_client=self.hub)
        return row(environment.pk)

    def until(self, environment: Environment, condition: Callable[[Environment], Any], what: str) -> Environment:
        found: list[Environment] = []

        def check() -> bool:
            found.append(self.look(environment))
            return bool(condition(found[-1]))

        try:
            wait_until(check, what)
        except AssertionError as error:
            last = found[-1]
            raise AssertionError(f"{error}; it is {last.state}, {last.reason}: {last.message}") from error
        return found[-1]

    def until_state(self, environment: Environment, state: str) -> Environment:
        return self.until(environment, lambda now: now.state == state, f"state {state}")

    def left(self, environment: Environment) -> list[str]:
        found = self.cluster.list_labelled(names.namespace(environment.team.slug), {names.ENVIRONMENT: str(environment.pk)})
        return [f"{item['kind']}/{item['metadata']['name']}" for item in found]


@pytest.fixture
def site(cluster: Cluster, settings: Any, tmp_path: Any, transactional_db: None) -> Iterator[Site]:
    settings.STORAGES = {**settings.STORAGES, "archive": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(tmp_path)}}}
    site = Site(make_world(), cluster)
    yield site
    for environment in Environment.objects.filter(kind="cluster").exclude(state="deleted"):  # notebooks cannot go without the Hub; they have no pods here
        services.environment_delete(actor=environment.owner, environment_id=environment.pk, purge=True)
        site.until_state(environment, "deleted")


def small(environment: Environment, *, command: list[str] | None = None, image: str = "") -> Environment:
    """The environment with its processes replaced: what runs in them is not the point of these tests."""
    template = environment.template_spec
    for role in template["roles"]:
        only_runs(role, command or ["python", "-c", "import time; print('hello from', flush=True); time.sleep(3600)"])
        if image:
            role["image"] = image
    Environment.objects.filter(pk=environment.pk).update(template_spec=template)
    return row(environment.pk)


def codes(environment: Environment) -> list[str]:
    return list(Event.objects.filter(environment=environment).order_by("seq").values_list("code", flat=True))


def states(environment: Environment) -> list[str]:
    return list(Event.objects.filter(environment=environment, kind="state").order_by("seq").values_list("to_state", flat=True))


def test_a_cluster_comes_up_scales_stops_comes_back_and_leaves_nothing(site: Site) -> None:
    environment = small(site.world.request(params={"workers": 1}))
    up = site.until_state(environment, "running")
    assert states(environment) == ["requested", "queued", "provisioning", "running"]
    assert {(item["role"], item["ready"]) for item in up.observed["replicas"]} == {("scheduler", True), ("worker", True)}
    assert {step["state"] for step in up.observed["steps"]} == {"done"}
    assert up.observed["endpoints"][1]["url"].startswith("http://127.")

    services.environment_scale(actor=site.world.alice, environment_id=environment.pk, workers=3)
    up = site.until(environment, lambda now: sum(item["ready"] for item in now.observed["replicas"]) == 4, "three workers")
    assert up.state == "running"
    services.environment_scale(actor=site.world.alice, environment_id=environment.pk, workers=1)
    site.until(environment, lambda now: len(now.observed["replicas"]) == 2, "one worker")
    assert states(environment)[3:] == ["running"]

    services.environment_stop(actor=site.world.alice, environment_id=environment.pk)
    down = site.until_state(environment, "stopped")
    assert (site.left(environment), down.observed["replicas"], down.reserved) == ([], [], {})
    logs = {archive.role: storages["archive"].open(archive.path).read() for archive in LogArchive.objects.filter(environment=environment)}
    assert logs.keys() == {"scheduler", "worker"}
    assert all(b"hello from" in text for text in logs.values())

    services.environment_start(actor=site.world.alice, environment_id=environment.pk)
    site.until_state(environment, "running")
    services.environment_delete(actor=site.world.alice, environment_id=environment.pk)
    site.until_state(environment, "deleted")
    assert site.left(environment) == []
    assert site.cluster.get(api.POLICIES, "owner-alice", "atelier-vision") is None
    assert not Quota.objects.filter(used__gt=0).exists()


def test_an_image_that_cannot_be_pulled_fails_and_can_be_retried(site: Site) -> None:
    environment = small(site.world.request(params={"workers": 1}), image="nowhere.example/not:1")
    found = site.until_state(environment, "failed")
    assert found.reason in ("ErrImagePull", "ImagePullBackOff")
    assert "nowhere.example/not:1 cannot be pulled" in found.message
    assert "failed" in {step["state"] for step in found.observed["steps"]}
    assert found.reserved == {}
    site.until(environment, lambda _: not site.left(environment), "compute to be taken down")
    for role in found.template_spec["roles"]:
        role["image"] = "daskdev/dask:2026.8.0-py3.11"
    Environment.objects.filter(pk=found.pk).update(template_spec=found.template_spec)
    services.environment_retry(actor=site.world.alice, environment_id=environment.pk)
    site.until_state(environment, "running")


def test_a_command_that_ends_fails_with_its_exit_code_and_its_log_is_kept(site: Site) -> None:
    environment = small(site.world.request(params={"workers": 1}), command=["python", "-c", "import sys; print('so long', flush=True); sys.exit(7)"])
    found = site.until_state(environment, "failed")
    assert found.reason == "ContainerExited"
    assert "exit code 7" in found.message
    archive = LogArchive.objects.filter(environment=environment, role="scheduler").get()
    assert b"so long" in storages["archive"].open(archive.path).read()


def test_a_request_that_fits_no_node_waits_with_the_schedulers_words_and_can_be_deleted(site: Site) -> None:
    environment = small(site.world.request(params={"workers": 1}))
    template = environment.template_spec
    template["roles"][0]["resources"] = {"cpu": "4000", "memory": "128Mi"}
    Environment.objects.filter(pk=environment.pk).update(template_spec=template)
    found = site.until(environment, lambda now: now.reason == "Unschedulable", "the reason")
    assert found.state == "provisioning"
    assert "Insufficient cpu" in found.message
    services.environment_delete(actor=site.world.alice, environment_id=environment.pk)
    site.until_state(environment, "deleted")


def test_a_foreign_namespace_is_not_taken_over(site: Site) -> None:
    site.cluster._json("POST", "/api/v1/namespaces", body={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "atelier-speech"}})
    made = services.environment_request(actor=site.world.alice, name="grid", template="dask", flavor="cpu-small", team="speech", params={})
    found = site.until_state(row(made.pk), "failed")
    assert found.reason == "NameTaken"
    assert "atelier-speech" in found.message


def test_pods_that_are_killed_come_back_and_the_row_says_so(site: Site) -> None:
    environment = small(site.world.request(params={"workers": 1}))
    up = site.until_state(environment, "running")
    pod = next(item["name"] for item in up.observed["replicas"] if item["role"] == "scheduler")
    found = site.cluster.get(api.PODS, pod, "atelier-vision")
    assert found is not None
    site.cluster.delete(found)
    site.until(environment, lambda now: "provisioning" in states(now)[4:] and now.state == "running", "the scheduler to be back")


def test_objects_removed_behind_the_portals_back_are_made_again(site: Site) -> None:
    environment = small(site.world.request(params={"workers": 1}))
    site.until_state(environment, "running")
    base = names.object_name("grid", str(environment.pk))
    parent = site.cluster.get(api.CONFIG_MAPS, base, "atelier-vision")
    assert parent is not None
    site.cluster.delete(parent)
    wait_until(lambda: not site.left(environment), "everything to go")
    site.until(environment, lambda now: now.state == "running" and all(item["ready"] for item in now.observed["replicas"]), "everything to be back")
    assert len(site.left(environment)) >= 7


def test_notebooks_are_told_of_the_clusters_that_run(site: Site) -> None:
    services.environment_request(actor=site.world.alice, name="lab", template="notebook", flavor="cpu-small", team="vision", params={})
    environment = small(site.world.request(params={"workers": 1}))
    site.until_state(environment, "running")

    def told() -> list[str]:
        site.look(environment)
        found = site.cluster.get(api.CONFIG_MAPS, "clusters-alice", "atelier-vision")
        return [entry["name"] for entry in json.loads(found["data"]["clusters.json"])] if found else []

    wait_until(lambda: told() == ["grid"], "the cluster to be told")
    services.environment_stop(actor=site.world.alice, environment_id=environment.pk)
    site.until_state(environment, "stopped")
    assert told() == []


def test_a_cluster_api_that_is_away_is_said_and_waited_for(site: Site, embedded: EmbeddedCluster) -> None:
    environment = small(site.world.request(params={"workers": 1}))
    embedded.stop()
    try:
        found = site.look(environment)
        assert (found.state, found.reason) == ("queued", "ClusterUnreachable")
        assert "does not answer" in found.message
        assert found.attempts == 1
        assert found.lease_holder == ""
        site.look(environment)
        assert codes(environment).count("ClusterUnreachable") == 1
    finally:
        embedded.start()
    up = site.until_state(environment, "running")
    assert (up.reason, up.message, up.attempts) == ("", "", 0)


def test_a_second_worker_leaves_it_to_the_first_which_looks_again(site: Site) -> None:
    environment = small(site.world.request(params={"workers": 1}))
    assert services.lease_take(environment.pk, "another", 30) is not None
    assert converge(environment.pk, cluster=site.cluster, hub_client=site.hub) is False
    assert row(environment.pk).state == "requested"
    assert services.lease_release(environment.pk, "another", 3600)
    assert row(environment.pk).next_check_at <= datetime.now(UTC)


def test_an_unknown_environment_is_nobodys_business(site: Site) -> None:
    assert converge("0193aabb-0000-7000-8000-000000000000", cluster=site.cluster, hub_client=site.hub) is False
    assert converge("not-an-id", cluster=site.cluster, hub_client=site.hub) is False
