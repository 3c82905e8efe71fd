"""A cluster that is busy gets more workers: measured by the embedded cluster's own metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from k8s.cluster import Cluster
from portal.domain import services
from portal.domain.models import Environment, Template
from tests.embedded import EmbeddedCluster
from tests.stack import wait_until
from workers import autoscale, teams

from .conftest import make_world, row
from .test_converge import Site

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]

RULE = {"metric": "cpu", "target": 50, "min": 1, "max": 2, "up_after": "0s", "down_after": "0s"}
BUSY = ["python", "-c", "while True: pass"]  # 10m of a processor is less than any machine gives it


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATELIER_CLUSTER_METRICS_WINDOW", "1")
        embedded = EmbeddedCluster(tmp_path_factory.mktemp("cluster"))
        try:
            embedded.start()
            yield embedded
        finally:
            embedded.stop()


@pytest.fixture
def site(embedded: EmbeddedCluster, tmp_path: Any, transactional_db: None, settings: Any) -> Iterator[Site]:
    settings.STORAGES = {**settings.STORAGES, "archive": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(tmp_path)}}}
    teams.forget()
    cluster = Cluster(embedded.kubeconfig)
    site = Site(make_world(), cluster)
    yield site
    for environment in Environment.objects.exclude(state="deleted"):
        services.environment_delete(actor=environment.owner, environment_id=environment.pk)
        site.until_state(environment, "deleted")
    cluster.close()


def ask(site: Site, command: list[str], rule: dict[str, Any]) -> Environment:
    role = {"name": "worker", "replicas": {"min": 1, "max": 4, "default": 1}, "image": "python:3.11", "command": command}
    role["resources"] = {"cpu": "10m", "memory": "64Mi"}
    spec = {"slug": "elastic", "version": 1, "kind": "cluster", "title": {"en": "Elastic"}, "roles": [role], "autoscale": rule}
    Template.objects.create(slug="elastic", kind="cluster", title=spec["title"], spec=spec, version=1)
    return site.until_state(site.world.request("grid", template="elastic"), "running")


def test_busy_workers_get_company_by_what_is_measured(site: Site) -> None:
    environment = ask(site, BUSY, RULE)
    autoscale.measure(site.cluster)
    assert row(environment.pk).workers == 1, "nobody has turned it on"
    services.environment_autoscale_set(actor=site.world.alice, environment_id=environment.pk, on=True)

    def scaled() -> bool:
        autoscale.measure(site.cluster)
        return row(environment.pk).workers == 2

    wait_until(scaled, "the measure to ask for another worker", 120)
    up = site.until(environment, lambda now: sum(item["ready"] for item in now.observed["replicas"]) == 2, "the second worker")
    assert up.state == "running"
    autoscale.measure(site.cluster)
    assert row(environment.pk).workers == 2, "still busy, and there may not be more"


def test_a_source_that_is_away_changes_nothing(site: Site, caplog: pytest.LogCaptureFixture, settings: Any) -> None:
    environment = ask(site, ["sleep", "3600"], RULE | {"metric": "query", "query": "up", "default": True})
    for url, words in (("", "PROMETHEUS_URL is not set"), ("http://127.0.0.1:9", "does not answer")):
        settings.PROMETHEUS_URL = url
        with caplog.at_level(logging.WARNING, logger="workers.autoscale"):
            autoscale.measure(site.cluster)
        assert words in caplog.text
    now = row(environment.pk)
    assert (now.workers, now.autoscale) == (1, {})
