"""Signs of use, measured: a real cluster with real processes, and a server that answers as Prometheus does. The Hub's are in tests/hub."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.utils import timezone

from k8s.cluster import Cluster
from portal.domain import services
from portal.domain.models import Environment
from tests.embedded import EmbeddedCluster
from tests.stack import free_ports, wait_until
from workers import idleness, teams
from workers.converge import converge
from workers.hub import Hub

from .conftest import World, make_world, only_runs, row

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]
CLUSTER_OPTIONS = ("--metrics-window", "1")
RULE = {"after": "1h", "warn": "10m", "cpu_percent": 20, "accelerator_percent": 5}
BUSY = ["sh", "-c", "while :; do :; done"]
SLEEPING = ["sleep", "infinity"]


@pytest.fixture
def cluster(embedded: EmbeddedCluster) -> Iterator[Cluster]:
    teams.forget()
    found = Cluster(embedded.kubeconfig)
    yield found
    found.close()


@pytest.fixture
def nobody() -> Iterator[Hub]:
    """A Hub that is away."""
    found = Hub(f"http://127.0.0.1:{free_ports(1)[0]}/hub/api", "none")
    yield found
    found.close()


class Prometheus:
    """Speaks `/api/v1/query`: answers with `samples` (namespace, pod, value) or, when `refuses`, with an error."""

    def __init__(self) -> None:
        self.samples: list[tuple[str, str, str]] = []
        self.refuses = False
        self.queries: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                address = urlsplit(self.path)
                outer.queries.append(parse_qs(address.query)["query"][0])
                result = [{"metric": {"namespace": space, "pod": pod, "gpu": "0"}, "value": [1767225600.0, value]} for space, pod, value in outer.samples]
                body: dict[str, Any] = {"status": "success", "data": {"resultType": "vector", "result": result}}
                if outer.refuses:
                    body = {"status": "error", "errorType": "bad_data", "error": "parse error"}
                payload = json.dumps(body).encode()
                self.send_response(400 if outer.refuses else 200 if address.path == "/api/v1/query" else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def prometheus(settings: Any) -> Iterator[Prometheus]:
    found = Prometheus()
    settings.PROMETHEUS_URL = found.url
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def world(transactional_db: None) -> World:
    return make_world()


def running(world: World, cluster: Cluster, hub: Hub, name: str, command: list[str]) -> Environment:
    """A cluster of two pods that run `command`, with a rule."""
    environment = world.request(name, params={"workers": 1})
    template = environment.template_spec
    for role in template["roles"]:
        only_runs(role, command, cpu="200m")
    template["idle"] = RULE
    Environment.objects.filter(pk=environment.pk).update(template_spec=template, reserved=environment.reserved | {"cpu": 400})

    def up() -> bool:
        converge(environment.pk, cluster=cluster, hub_client=hub)
        return row(environment.pk).state == "running"

    wait_until(up, f"{name} to run")
    return row(environment.pk)


@pytest.fixture
def leave_nothing(cluster: Cluster, nobody: Hub) -> Iterator[None]:
    yield
    for environment in Environment.objects.filter(kind="cluster").exclude(state="deleted"):
        services.environment_delete(actor=environment.owner, environment_id=environment.pk, purge=True)

        def gone(pk: Any = environment.pk) -> bool:
            converge(pk, cluster=cluster, hub_client=nobody)
            return row(pk).state == "deleted"

        wait_until(gone, "the cluster to be gone")


def signs(environment: Environment) -> dict[str, Any]:
    found = row(environment.pk).activity.get("signs")
    return dict(found) if found else {}


def measured(cluster: Cluster, hub: Hub, environment: Environment) -> dict[str, Any]:
    """The signs of a sample in which the CPU was measured."""

    def look() -> dict[str, Any]:
        idleness.measure(cluster, hub)
        found = signs(environment)
        return found if found.get("cpu_percent") is not None else {}

    return dict(wait_until(look, "the CPU to be measured"))


@pytest.mark.usefixtures("leave_nothing")
def test_what_computes_is_not_idle_and_what_sleeps_is(world: World, cluster: Cluster, nobody: Hub) -> None:
    busy = running(world, cluster, nobody, "busy", BUSY)
    asleep = running(world, cluster, nobody, "asleep", SLEEPING)
    assert measured(cluster, nobody, busy)["cpu_percent"] > RULE["cpu_percent"]
    found = measured(cluster, nobody, asleep)
    assert found["cpu_percent"] < RULE["cpu_percent"]
    assert (found["notebook"], found["accelerator_percent"]) == (None, None)
    assert row(busy.pk).idle_since is None
    assert row(asleep.pk).idle_since is not None


@pytest.mark.usefixtures("leave_nothing")
def test_a_busy_accelerator_is_not_idle_though_the_processor_is(world: World, cluster: Cluster, nobody: Hub, prometheus: Prometheus, settings: Any) -> None:
    environment = running(world, cluster, nobody, "train", SLEEPING)
    Environment.objects.filter(pk=environment.pk).update(reserved=environment.reserved | {"accelerator:nvidia-a100-80g": 1})
    namespace, pods = "atelier-vision", [item["name"] for item in environment.observed["replicas"]]
    prometheus.samples = [(namespace, pods[0], "0"), (namespace, pods[1], "0"), (namespace, pods[1], "87.5"), ("other", pods[0], "99"), ("", "", "99")]
    assert measured(cluster, nobody, environment)["accelerator_percent"] == 87.5
    assert prometheus.queries[-1] == settings.PROMETHEUS_ACCELERATOR_QUERY
    assert row(environment.pk).idle_since is None
    prometheus.samples = [(namespace, pods[0], "1"), (namespace, pods[1], "NaN")]
    assert measured(cluster, nobody, environment)["accelerator_percent"] == 1.0
    assert row(environment.pk).idle_since is not None


@pytest.mark.usefixtures("leave_nothing")
def test_a_source_that_is_away_is_not_measured_and_said_so(
    world: World, cluster: Cluster, nobody: Hub, prometheus: Prometheus, caplog: pytest.LogCaptureFixture
) -> None:
    environment = running(world, cluster, nobody, "train", SLEEPING)
    Environment.objects.filter(pk=environment.pk).update(reserved=environment.reserved | {"accelerator:nvidia-a100-80g": 1})
    prometheus.samples = [("atelier-vision", item["name"], "0") for item in environment.observed["replicas"]]
    measured(cluster, nobody, environment)
    since = row(environment.pk).idle_since
    assert since is not None
    measured(cluster, nobody, environment)
    assert row(environment.pk).idle_since == since
    prometheus.refuses = True
    with caplog.at_level(logging.WARNING, "workers.idleness"):
        assert measured(cluster, nobody, environment)["accelerator_percent"] is None
    assert "source=accelerators" in caplog.text
    assert "parse error" in caplog.text
    # It may have been used since it was last measured.
    later = row(environment.pk).idle_since
    assert later is None or later > since
    away = Cluster(cluster.kubeconfig.parent / "none")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "workers.idleness"):
        idleness.measure(away, nobody)
    assert signs(environment) == {"notebook": None, "cpu_percent": None, "accelerator_percent": None}
    assert "source=metrics.k8s.io" in caplog.text
    assert row(environment.pk).idle_since is None


def test_without_a_rule_nobody_is_asked(world: World, nobody: Hub, caplog: pytest.LogCaptureFixture, tmp_path: Any) -> None:
    environment = world.request()
    template = {key: value for key, value in environment.template_spec.items() if key != "idle"}
    Environment.objects.filter(pk=environment.pk).update(state="running", started_at=timezone.now(), template_spec=template)
    with caplog.at_level(logging.WARNING, "workers.idleness"):
        idleness.measure(Cluster(tmp_path / "none"), nobody)
    assert not caplog.text
    assert row(environment.pk).activity == {}


def test_a_pod_that_has_not_been_measured_makes_the_processor_unknown(world: World) -> None:
    environment = world.request()
    environment.observed = {"replicas": [{"name": "a", "state": "running"}, {"name": "b", "state": "running"}, {"name": "c", "state": "starting"}]}
    environment.reserved = {"cpu": 2000}
    space = "atelier-vision"
    assert idleness.signs_of(environment, None, {(space, "a"): 0.5, (space, "b"): 0.5}, None)["cpu_percent"] == 50.0
    assert idleness.signs_of(environment, None, {(space, "a"): 0.5}, None)["cpu_percent"] is None
    assert idleness.signs_of(environment, None, {}, None)["cpu_percent"] is None


def test_the_embedded_clusters_own_accelerators_are_read() -> None:
    text = (
        "# TYPE DCGM_FI_DEV_GPU_UTIL gauge\n"
        'DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-a",modelName="H100 \\"x\\"",namespace="atelier-vision",pod="train-0"} 12\n'
        'DCGM_FI_DEV_GPU_UTIL{gpu="1",UUID="GPU-b",namespace="atelier-vision",pod="train-0"} 97\n'
        'DCGM_FI_DEV_GPU_UTIL{gpu="2",UUID="GPU-c"} 50\n'
    )
    assert idleness.text_percents(text) == {("atelier-vision", "train-0"): 97.0}
