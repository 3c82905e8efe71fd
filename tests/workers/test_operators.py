"""Clusters whose pods an operator makes: the real embedded cluster with the operator's custom resource; the operator is a stand-in of a few
lines that makes pods of the object and says how it is, as its controller does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client, config

from k8s import cluster as api
from k8s import names
from k8s.cluster import Cluster, Kind
from portal.domain import services
from portal.domain.models import Environment, Template, TemplateVersion
from tests.embedded import EmbeddedCluster
from tests.stack import wait_until
from workers import served, teams
from workers.hub import Hub
from workers.watcher import Watcher

from .conftest import World, make_world, row
from .test_converge import Site
from .test_handed_over import _running, definition

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]

THINGS = Kind(version="example.test/v1", name="Thing", plural="things")
SLEEP = ["python", "-c", "import time; print('made by the operator', flush=True); time.sleep(3600)"]
DONE = ["python", "-c", "print('worked', flush=True)"]


def template(*, job: bool = False, **more: Any) -> dict[str, Any]:
    """Workers that the operator makes, and a keeper of our own beside them."""
    worker = {"name": "worker", "replicas": {"min": 0, "max": 5, "default": 2}, "image": "python:3.11", "command": SLEEP}
    rules: list[dict[str, Any]] = [
        {"path": "status.state", "values": ["broken"], "phase": "failed", "message": "status.why"},
        {"path": "status.state", "values": ["up"], "phase": "ready"},
    ]
    roles = [worker, {"name": "keeper", "image": "python:3.11", "command": [*SLEEP, "${roles.worker.first}"]}]
    if job:
        roles, rules = [worker | {"run": "once", "command": DONE, "replicas": 1}], [{"condition": "Complete", "phase": "completed"}]
        more |= {"success": {"role": "worker"}}
    for role in roles:
        role["resources"] = {"cpu": "50m", "memory": "128Mi"}
    operator = {
        "api": "example.test/v1",
        "kind": "Thing",
        "plural": "things",
        "hosts": {"worker": "{name}-w{index}.{name}"},
        "body": {"spec": {"count": {"$replicas": "worker"}, "template": {"$pod": "worker"}}},
        "status": rules,
    }
    return {"slug": "things", "version": 1, "kind": "cluster", "title": {"en": "Things"}, "roles": roles, "operators": [operator], **more}


class Operator:
    """The operator's part."""

    def __init__(self, embedded: EmbeddedCluster) -> None:
        self.client = config.new_client_from_config(str(embedded.kubeconfig))
        self.core, self.custom = client.CoreV1Api(self.client), client.CustomObjectsApi(self.client)

    def make(self, item: dict[str, Any]) -> None:
        """As many pods as the object asks for, owned by it."""
        metadata = item["metadata"]
        owner = {"apiVersion": item["apiVersion"], "kind": item["kind"], "name": metadata["name"], "uid": metadata["uid"], "controller": True}
        present = {pod.metadata.name for pod in self.core.list_namespaced_pod(metadata["namespace"]).items}
        for index in range(5):
            name = f"{metadata['name']}-w{index}"
            if index < item["spec"]["count"] and name not in present:
                template = item["spec"]["template"]
                body = {"metadata": {**template["metadata"], "name": name, "ownerReferences": [owner]}, "spec": template["spec"]}
                self.core.create_namespaced_pod(metadata["namespace"], body, _preload_content=False)
            elif index >= item["spec"]["count"] and name in present:
                self.core.delete_namespaced_pod(name, metadata["namespace"], grace_period_seconds=0)

    def say(self, item: dict[str, Any], **status: Any) -> None:
        metadata = item["metadata"]
        self.custom.patch_namespaced_custom_object_status("example.test", "v1", metadata["namespace"], "things", metadata["name"], {"status": status})


@pytest.fixture(scope="module")
def with_things(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCluster]:
    yield from _running(tmp_path_factory.mktemp("things"), definition("example.test", "v1", "Thing", "things"))


@pytest.fixture
def site(with_things: EmbeddedCluster, transactional_db: None, settings: Any, tmp_path: Any) -> Iterator[Site]:
    settings.STORAGES = {**settings.STORAGES, "archive": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(tmp_path)}}}
    teams.forget()
    served.forget()
    cluster = Cluster(with_things.kubeconfig)
    site = Site(make_world(), cluster)
    yield site
    for environment in Environment.objects.exclude(state="deleted"):
        services.environment_delete(actor=environment.owner, environment_id=environment.pk, purge=True)
        site.until_state(environment, "deleted")
    cluster.close()


def ask(world: World, spec: dict[str, Any]) -> Environment:
    defaults = {"kind": "cluster", "title": spec["title"], "spec": spec, "version": spec["version"]}
    stored, _ = Template.objects.update_or_create(slug=spec["slug"], defaults=defaults)
    TemplateVersion.objects.update_or_create(template=stored, version=spec["version"], defaults={"spec": spec})
    return world.request("grid", template=spec["slug"])


def thing_of(site: Site, environment: Environment) -> dict[str, Any] | None:
    return site.cluster.get(THINGS, names.object_name("grid", str(environment.pk)), "atelier-vision")


def made(site: Site, environment: Environment) -> dict[str, Any]:
    site.until(environment, lambda now: thing_of(site, environment), "the operator's object")
    found = thing_of(site, environment)
    assert found is not None
    return found


def test_an_operators_cluster_comes_up_scales_and_leaves_nothing(site: Site, with_things: EmbeddedCluster) -> None:
    operator, environment = Operator(with_things), ask(site.world, template())
    thing = made(site, environment)
    assert thing["spec"]["count"] == 2
    sets = site.cluster.find(api.STATEFUL_SETS, "atelier-vision", labels=f"{names.ENVIRONMENT}={environment.pk}")
    assert [item["metadata"]["labels"][names.ROLE] for item in sets] == ["keeper"]
    # what the keeper is told of the workers' hosts is what the operator calls them
    base = thing["metadata"]["name"]
    assert sets[0]["spec"]["template"]["spec"]["containers"][0]["command"][-1] == f"{base}-w0.{base}.atelier-vision.svc.cluster.local"

    operator.make(thing)
    waiting = site.until(environment, lambda now: now.reason == "OperatorNotReady", "all replicas, and no word of the operator")
    assert waiting.state == "provisioning"
    assert "Thing" in waiting.message
    operator.say(thing, state="up")
    up = site.until_state(environment, "running")
    assert {(item["name"], item["ready"]) for item in up.observed["replicas"]} == {(f"{base}-w0", True), (f"{base}-w1", True), (f"{base}-keeper-0", True)}

    services.environment_scale(actor=site.world.alice, environment_id=environment.pk, workers=1)
    site.until(environment, lambda now: (thing_of(site, environment) or {})["spec"]["count"] == 1, "the object to ask for one")
    operator.make(thing_of(site, environment) or {})
    down = site.until(environment, lambda now: len(now.observed["replicas"]) == 2, "one worker")
    assert down.state == "running"

    services.environment_stop(actor=site.world.alice, environment_id=environment.pk)
    site.until_state(environment, "stopped")
    assert thing_of(site, environment) is None
    assert site.left(environment) == []


def test_what_the_operator_gives_up_fails_in_its_words(site: Site, with_things: EmbeddedCluster) -> None:
    operator, environment = Operator(with_things), ask(site.world, template())
    operator.say(made(site, environment), state="broken", why="no licence for 2 workers")
    failed = site.until_state(environment, "failed")
    assert failed.reason == "OperatorFailed"
    assert "no licence for 2 workers" in failed.message
    assert failed.reserved == {}
    site.until(environment, lambda now: not site.left(environment) and thing_of(site, environment) is None, "nothing to be left")


def test_what_an_operator_says_wakes_a_worker_at_once(site: Site, with_things: EmbeddedCluster, settings: Any) -> None:
    operator, environment = Operator(with_things), ask(site.world, template())
    watcher = Watcher(site.cluster, Hub("http://127.0.0.1:9/hub/api", "none"))
    watcher.leader._until = float("inf")  # as with the lease
    nudged: list[str] = []
    watcher.nudges.nudge = nudged.append  # type: ignore[method-assign]
    try:
        thing = made(site, environment)
        watcher.operated.look()
        wait_until(lambda: nudged, "word of the object")
        nudged.clear()
        operator.say(thing, state="preparing", beat=1)  # no rule reads this
        operator.say(thing, state="broken", why="no licence")
        wait_until(lambda: nudged, "word of the fault")
        operator.say(thing, state="broken", why="no licence", beat=2)
        site.cluster.delete(thing)
        wait_until(lambda: len(nudged) > 1, "word of its end")
        assert nudged == [str(environment.pk)] * 2, "once for the fault, once for the end"

        settings.OPERATORS = "none"
        watcher.operated.look()
        again = made(site, environment)
        nudged.clear()
        operator.say(again, state="broken")
        settings.OPERATORS = "auto"
        watcher.operated.look()
        wait_until(lambda: nudged, "what was said while nobody listened")
        assert nudged == [str(environment.pk)]
    finally:
        watcher.operated.stop()


def test_what_the_operator_has_run_to_its_end_is_stopped(site: Site, with_things: EmbeddedCluster) -> None:
    operator, environment = Operator(with_things), ask(site.world, template(job=True))
    thing = made(site, environment)
    operator.make(thing)
    operator.say(thing, conditions=[{"type": "Complete", "status": "True", "message": "1 of 1 has ended"}])
    ended = site.until_state(environment, "stopped")
    assert ended.reason == "Completed"
    assert ended.reserved == {}


def test_an_object_removed_behind_the_portals_back_is_made_again(site: Site, with_things: EmbeddedCluster) -> None:
    operator, environment = Operator(with_things), ask(site.world, template())
    thing = made(site, environment)
    operator.make(thing)
    operator.say(thing, state="up")
    site.until_state(environment, "running")
    site.cluster.delete(thing)
    again = site.until(environment, lambda now: (thing_of(site, environment) or thing)["metadata"]["uid"] != thing["metadata"]["uid"], "another object")
    assert again.placement["operator"] == "example.test/v1/Thing"


@pytest.mark.parametrize("setting", ["auto", "none"])
def test_without_the_operator_the_built_in_way_is_taken_or_told_to_be_missing(site: Site, settings: Any, setting: str) -> None:
    settings.OPERATORS = setting
    spec = template()
    if setting == "auto":
        spec["operators"][0] |= {"plural": "others", "kind": "Other"}
    environment = ask(site.world, spec)
    up = site.until_state(environment, "running")
    assert len(up.observed["replicas"]) == 3
    assert up.placement["operator"] == ""
    services.environment_delete(actor=site.world.alice, environment_id=environment.pk)
    site.until_state(environment, "deleted")

    failed = site.until_state(ask(site.world, spec | {"slug": "only", "needs_operator": True}), "failed")
    assert failed.reason == "OperatorMissing"
    assert f"{spec['operators'][0]['kind']} of example.test/v1" in failed.message
    assert row(failed.pk).reserved == {}
