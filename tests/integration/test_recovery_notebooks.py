"""What goes wrong with a notebook, and what becomes of it: a whole installation, each process by itself, the real Hub."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from k8s import names
from k8s.cluster import CLAIMS, PODS, Cluster
from portal.ops.client import Api
from portal.runtime import secret
from tests.stack import Parts, wait_until

pytestmark = pytest.mark.integration

NAMESPACE = "atelier-vision"


@pytest.fixture(scope="module")
def cluster(parts: Parts) -> Iterator[Cluster]:
    cluster = Cluster(parts.var / "cluster" / "kubeconfig")
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def notebook(api: Api) -> str:
    """One notebook for all of these tests: each leaves it running."""
    body = {"name": "lab", "template": "notebook", "flavor": "cpu-small", "team": "vision"}
    identifier = api.call("POST", "/environments", json=body)["id"]
    api.wait_state(identifier, "running", timeout=300)
    return str(identifier)


def pod_of(cluster: Cluster, notebook: str) -> dict[str, Any] | None:
    found = cluster.find(PODS, NAMESPACE, labels=f"{names.ENVIRONMENT}={notebook}")
    return found[0] if found else None


def uid_of(cluster: Cluster, notebook: str) -> str:
    pod = pod_of(cluster, notebook)
    return pod["metadata"]["uid"] if pod else ""


def homes(cluster: Cluster) -> list[dict[str, Any]]:
    """Claims of the notebook; other notebooks of the installation have theirs."""
    return [claim for claim in cluster.find(CLAIMS, NAMESPACE) if "lab" in claim["metadata"]["name"].split("-")]


def events(api: Api, notebook: str, code: str) -> list[str]:
    found = api.call("GET", f"/environments/{notebook}/events?limit=200")["results"]
    return [event["message"] for event in found if event["code"] == code]


def back(api: Api, cluster: Cluster, notebook: str, before: str) -> None:
    """Waits until it runs in another pod than `before`."""
    wait_until(lambda: uid_of(cluster, notebook) not in ("", before), "another pod")
    wait_until(lambda: api.environment(notebook)["state"] == "running", "the notebook to be back")


def test_a_running_notebook_outlives_its_hub(parts: Parts, api: Api, cluster: Cluster, notebook: str) -> None:
    before = uid_of(cluster, notebook)
    parts.kill_part("hub")
    parts.start_part("hub")
    parts.manage("prepare", "--wait", "hub")
    api.call("POST", f"/environments/{notebook}/stop")
    api.wait_state(notebook, "stopped", timeout=240)  # so the Hub answers again, and is asked
    assert events(api, notebook, "NotebookRestarted") == []
    assert before
    api.call("POST", f"/environments/{notebook}/start")
    api.wait_state(notebook, "running", timeout=240)


def test_a_home_volume_that_is_gone_is_told_before_an_empty_one_takes_its_place(api: Api, cluster: Cluster, notebook: str) -> None:
    api.call("POST", f"/environments/{notebook}/stop")
    api.wait_state(notebook, "stopped", timeout=240)
    (claim,) = homes(cluster)
    cluster.delete(claim)
    wait_until(lambda: not homes(cluster), "the claim to go")
    api.call("POST", f"/environments/{notebook}/start")
    api.wait_state(notebook, "running", timeout=240)
    (told,) = events(api, notebook, "HomeLost")
    assert claim["metadata"]["name"] in told
    assert "a new, empty one is made" in told


def test_a_server_stopped_behind_the_portals_back_is_started_again(parts: Parts, api: Api, cluster: Cluster, notebook: str) -> None:
    before = pod_of(cluster, notebook)
    assert before is not None
    url = f"http://127.0.0.1:{parts.settings['HUB_API_PORT']}/hub/api/users/alice/servers/{before['metadata']['name']}"
    token = secret(parts.var, "hub_service_token")
    answer = httpx.request("DELETE", url, json={"remove": True}, headers={"Authorization": f"token {token}"}, trust_env=False, timeout=60)
    assert answer.status_code in (202, 204), answer.text
    back(api, cluster, notebook, before["metadata"]["uid"])
    assert len(events(api, notebook, "NotebookRestarted")) == 1


def test_an_evicted_notebook_is_started_again_up_to_a_limit_and_a_retry_has_all_tries_again(api: Api, cluster: Cluster, notebook: str) -> None:
    def evict() -> str:
        pod = wait_until(lambda: pod_of(cluster, notebook), "its pod")
        name = pod["metadata"]["name"]
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
        cluster._json("POST", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction", body=eviction)
        return str(pod["metadata"]["uid"])

    for _ in range(3 - len(events(api, notebook, "NotebookRestarted"))):
        back(api, cluster, notebook, evict())
    restarts = events(api, notebook, "NotebookRestarted")
    assert len(restarts) == 3, "each loss is told once"
    assert any("off its node" in message for message in restarts)
    evict()
    found = wait_until(lambda: (now := api.environment(notebook))["state"] == "failed" and now, "it to be given up")
    assert "lost 4 times within an hour" in found["message"]
    wait_until(lambda: pod_of(cluster, notebook) is None, "its pod to go")

    api.call("POST", f"/environments/{notebook}/retry")
    api.wait_state(notebook, "running", timeout=240)
    back(api, cluster, notebook, evict())
    assert len(events(api, notebook, "NotebookRestarted")) == 4
