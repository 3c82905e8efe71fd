"""What goes wrong with a notebook, and what becomes of it: a whole installation, each process by itself, the real Hub."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from k8s import cluster as api
from k8s import names
from k8s.cluster import Cluster
from portal.ops.client import Api
from portal.runtime import secret
from tests.stack import Parts, wait_until

pytestmark = pytest.mark.integration

NAMESPACE = "atelier-vision"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    parts = Parts(tmp_path_factory.mktemp("parts") / "var", SWEEP_SECONDS="2")
    try:
        parts.start(240)
        yield parts
    finally:
        parts.stop()


@pytest.fixture(scope="module")
def portal(parts: Parts) -> Iterator[Api]:
    with Api(parts.url, parts.token()) as portal:
        yield portal


@pytest.fixture(scope="module")
def cluster(parts: Parts) -> Iterator[Cluster]:
    cluster = Cluster(parts.var / "cluster" / "kubeconfig")
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def notebook(portal: Api) -> str:
    """One notebook for all of these tests: each leaves it running."""
    body = {"name": "lab", "template": "notebook", "flavor": "cpu-small", "team": "vision"}
    identifier = portal.call("POST", "/environments", json=body)["id"]
    portal.wait_state(identifier, "running", timeout=300)
    return str(identifier)


def pod_of(cluster: Cluster, notebook: str) -> dict[str, Any] | None:
    found = cluster.find(api.PODS, NAMESPACE, labels=f"{names.ENVIRONMENT}={notebook}")
    return found[0] if found else None


def uid_of(cluster: Cluster, notebook: str) -> str:
    pod = pod_of(cluster, notebook)
    return pod["metadata"]["uid"] if pod else ""


def events(portal: Api, notebook: str, code: str) -> list[str]:
    found = portal.call("GET", f"/environments/{notebook}/events?limit=200")["results"]
    return [event["message"] for event in found if event["code"] == code]


def back(portal: Api, cluster: Cluster, notebook: str, before: str) -> None:
    """Waits until it runs in another pod than `before`."""
    wait_until(lambda: uid_of(cluster, notebook) not in ("", before), "another pod", 240)
    wait_until(lambda: portal.environment(notebook)["state"] == "running", "the notebook to be back", 240)


def test_a_running_notebook_outlives_its_hub(parts: Parts, portal: Api, cluster: Cluster, notebook: str) -> None:
    before = uid_of(cluster, notebook)
    parts.kill_part("hub")
    parts.start_part("hub")
    parts.manage("prepare", "--wait", "hub")
    portal.call("POST", f"/environments/{notebook}/stop")
    portal.wait_state(notebook, "stopped", timeout=240)  # so the Hub answers again, and is asked
    assert events(portal, notebook, "NotebookRestarted") == []
    assert before
    portal.call("POST", f"/environments/{notebook}/start")
    portal.wait_state(notebook, "running", timeout=240)


def test_a_home_volume_that_is_gone_is_told_before_an_empty_one_takes_its_place(portal: Api, cluster: Cluster, notebook: str) -> None:
    portal.call("POST", f"/environments/{notebook}/stop")
    portal.wait_state(notebook, "stopped", timeout=240)
    (claim,) = cluster.find(api.CLAIMS, NAMESPACE)
    cluster.delete(claim)
    wait_until(lambda: not cluster.find(api.CLAIMS, NAMESPACE), "the claim to go", 120)
    portal.call("POST", f"/environments/{notebook}/start")
    portal.wait_state(notebook, "running", timeout=240)
    (told,) = events(portal, notebook, "HomeLost")
    assert claim["metadata"]["name"] in told
    assert "a new, empty one is made" in told


def test_a_server_stopped_behind_the_portals_back_is_started_again(parts: Parts, portal: Api, cluster: Cluster, notebook: str) -> None:
    before = pod_of(cluster, notebook)
    assert before is not None
    url = f"http://127.0.0.1:{parts.settings['HUB_API_PORT']}/hub/api/users/alice/servers/{before['metadata']['name']}"
    token = secret(parts.var, "hub_service_token")
    answer = httpx.request("DELETE", url, json={"remove": True}, headers={"Authorization": f"token {token}"}, trust_env=False, timeout=60)
    assert answer.status_code in (202, 204), answer.text
    back(portal, cluster, notebook, before["metadata"]["uid"])
    assert len(events(portal, notebook, "NotebookRestarted")) == 1


def test_an_evicted_notebook_is_started_again_up_to_a_limit_and_a_retry_has_all_tries_again(portal: Api, cluster: Cluster, notebook: str) -> None:
    def evict() -> str:
        pod = wait_until(lambda: pod_of(cluster, notebook), "its pod", 120)
        name = pod["metadata"]["name"]
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
        cluster._json("POST", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction", body=eviction)
        return str(pod["metadata"]["uid"])

    for _ in range(3 - len(events(portal, notebook, "NotebookRestarted"))):
        back(portal, cluster, notebook, evict())
    restarts = events(portal, notebook, "NotebookRestarted")
    assert len(restarts) == 3, "each loss is told once"
    assert any("off its node" in message for message in restarts)
    evict()
    found = wait_until(lambda: (now := portal.environment(notebook))["state"] == "failed" and now, "it to be given up", 240)
    assert "lost 4 times within an hour" in found["message"]
    wait_until(lambda: pod_of(cluster, notebook) is None, "its pod to go", 120)

    portal.call("POST", f"/environments/{notebook}/retry")
    portal.wait_state(notebook, "running", timeout=240)
    back(portal, cluster, notebook, evict())
    assert len(events(portal, notebook, "NotebookRestarted")) == 4
