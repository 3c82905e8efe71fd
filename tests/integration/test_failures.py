"""What goes wrong is said in words, soon, and can be mended: real processes, some of which are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from k8s import cluster as api_
from k8s import names
from k8s.cluster import Cluster
from portal.ops.client import Api
from tests.stack import Parts, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def request_environment(api: Api) -> Iterator[Any]:
    made: list[str] = []

    def request(name: str, template: str, **more: Any) -> str:
        body = {"name": name, "template": template, "flavor": "cpu-small", "team": "vision", **more}
        made.append(api.call("POST", "/environments", json=body)["id"])
        return made[-1]

    yield request
    for identifier in made:
        if api.environment(identifier)["state"] != "deleted":
            api.call("DELETE", f"/environments/{identifier}", params={"purge": "true"})
            wait_until(lambda: api.environment(identifier)["state"] == "deleted", "teardown")  # noqa: B023


def failed(api: Api, identifier: str) -> dict[str, Any]:
    return wait_until(lambda: (found := api.environment(identifier))["state"] == "failed" and found, f"{identifier} to fail")


def refused(api: Api, **body: Any) -> httpx.Response:
    answer = api.http.post("/environments", json={"name": "wrong", "template": "sleeper", "flavor": "cpu-small", "team": "vision", **body})
    assert answer.headers["content-type"].startswith("application/problem+json")
    return answer


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("template", "no-such-template"),
        ("flavor", "no-such-flavor"),
        ("team", "speech"),
        ("name", "n" * 300),
        ("name", "../../etc"),
        ("name", 7),
        ("params", {"workers": -1}),
        ("params", {"workers": 10**9}),
        ("params", {"workers": "many"}),
        ("params", {"colour": "red"}),
        ("flavor", "giant"),
        ("expires_in", "for ever"),
        ("shoe_size", 43),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_made(api: Api, field: str, value: Any) -> None:
    before = [environment["id"] for environment in api.call("GET", "/environments")["results"]]
    answer = refused(api, **{field: value})
    assert answer.status_code in (400, 409, 422)
    assert any(name.split(".")[0] == field for name in answer.json()["errors"]), answer.text
    assert [environment["id"] for environment in api.call("GET", "/environments")["results"]] == before


@pytest.mark.parametrize("template", ["unpullable", "unpullable-notebook"])
def test_an_image_that_cannot_be_pulled_fails_with_its_name_and_can_be_retried(api: Api, request_environment: Any, template: str) -> None:
    identifier = request_environment(f"{template[:20]}-one", template)
    found = failed(api, identifier)
    assert "nowhere/not" in found["message"]
    assert "cannot be pulled" in found["message"]
    api.call("POST", f"/environments/{identifier}/retry")
    wait_until(lambda: "Retr" in str(api.call("GET", f"/environments/{identifier}/events")), "the retry in the events")
    failed(api, identifier)


def test_a_command_that_exits_at_once_fails_with_its_exit_code_and_its_log_stays(api: Api, request_environment: Any) -> None:
    identifier = request_environment("quitter", "exits")
    found = failed(api, identifier)
    assert "3" in found["message"]
    wait_until(lambda: "giving up for a reason" in api.call("GET", f"/environments/{identifier}/logs"), "the archived log")


def test_with_the_hub_away_a_notebook_says_so_and_starts_when_it_is_back(api: Api, parts: Parts, request_environment: Any) -> None:
    parts.kill_part("hub")
    identifier = request_environment("hubless", "notebook")
    found = wait_until(lambda: (now := api.environment(identifier))["reason"] == "HubUnreachable" and now, "the reason")
    assert "Hub" in found["message"]
    parts.start_part("hub")
    api.wait_state(identifier, "running", timeout=180)


def test_with_redis_away_a_request_is_kept_and_served_when_it_is_back(api: Api, parts: Parts, request_environment: Any) -> None:
    parts.kill_part("redis")
    identifier = request_environment("redisless", "sleeper")
    assert api.environment(identifier)["state"] == "requested"
    parts.start_part("redis")
    api.wait_state(identifier, "running", timeout=180)


def test_with_the_cluster_away_a_request_says_so_and_starts_when_it_is_back(api: Api, parts: Parts, request_environment: Any) -> None:
    survivor = request_environment("survivor", "sleeper")
    api.wait_state(survivor, "running")
    parts.kill_part("cluster")
    identifier = request_environment("clusterless", "sleeper")
    found = wait_until(lambda: (now := api.environment(identifier))["reason"] == "ClusterUnreachable" and now, "the reason")
    assert "cluster" in found["message"].lower()
    parts.start_part("cluster")
    api.wait_state(identifier, "running", timeout=180)
    restarts = [replica["restarts"] for replica in api.environment(survivor)["replicas"]]
    assert restarts == [0], "a pod's process outlives the cluster's, so it was not restarted"


def test_a_killed_worker_and_watcher_lose_nothing(api: Api, parts: Parts, request_environment: Any) -> None:
    identifier = request_environment("workerless", "sleeper", params={"workers": 2})
    parts.kill_part("worker")
    parts.kill_part("watcher")
    parts.start_part("worker")
    parts.start_part("watcher")
    api.wait_state(identifier, "running", timeout=180)
    wait_until(lambda: sum(replica["ready"] for replica in api.environment(identifier)["replicas"]) == 2, "both replicas")


def leader(cluster: Cluster) -> int:
    """The process that holds the watcher's lease; 0 when nobody does."""
    (lease,) = [item for item in cluster.find(api_.LEASES, "default") if item["metadata"]["name"].startswith("atelier-watcher-")] or [{}]
    pid = str((lease.get("spec") or {}).get("holderIdentity") or "").split("_")[-2:-1]
    return int(pid[0]) if pid else 0


def test_of_two_watchers_the_other_leads_when_the_leader_is_killed(api: Api, parts: Parts, request_environment: Any) -> None:
    cluster = Cluster(parts.var / "cluster" / "kubeconfig")
    first = wait_until(lambda: leader(cluster), "a leader")
    assert first == parts.parts["watcher"].pid
    out = parts.var / "watcher.out"
    before = out.stat().st_size
    watchers = {"first": parts.parts.pop("watcher")}
    parts.start_part("watcher")  # another beside it
    second = parts.parts["watcher"]
    try:
        wait_until(lambda: b"watcher started" in out.read_bytes()[before:], "the second watcher")
        running = request_environment("watched", "sleeper")
        api.wait_state(running, "running", timeout=180)
        assert leader(cluster) == first, "it goes on leading while it lives"
    finally:
        os.killpg(watchers["first"].pid, signal.SIGKILL)
        watchers["first"].wait()
    wait_until(lambda: leader(cluster) == second.pid, "the other to lead", 60)
    # It acts: a pod's end is heard by nobody else.
    (pod,) = cluster.find(api_.PODS, "atelier-vision", labels=f"{names.ENVIRONMENT}={running}")
    cluster.delete(pod, grace_seconds=0)

    def told() -> bool:
        replicas = api.environment(running)["replicas"]
        pods = cluster.find(api_.PODS, "atelier-vision", labels=f"{names.ENVIRONMENT}={running}")
        return [replica["ready"] for replica in replicas] == [True] and bool(pods) and pods[0]["metadata"]["uid"] != pod["metadata"]["uid"]

    wait_until(told, "the pod in its place", 180)
    cluster.close()


ALLOW = """
from portal.domain import services
from portal.domain.models import Team
services.quota_set(actor=None, team=Team.objects.get(slug="vision"), user=None, resource="accelerator:ascend-910", limit=8)
"""


def test_on_a_full_node_one_of_high_priority_takes_the_place_of_a_preemptible_one(api: Api, parts: Parts, request_environment: Any) -> None:
    """Four fill the one node that has such devices: warned, stopped and not deleted, and the other runs."""
    parts.manage("shell", "--no-imports", "-c", ALLOW)
    victim = request_environment("yields", "yielding", flavor="ascend910-1", params={"workers": 4})
    api.wait_state(victim, "running", timeout=240)
    with Api(parts.url, parts.token("lena")) as lead:
        body = {"name": "urgent", "template": "sleeper", "flavor": "ascend910-1", "team": "vision", "priority": "high"}
        urgent = lead.call("POST", "/environments", json=body)["id"]
        try:
            lead.wait_state(urgent, "running", timeout=240)
            found = api.wait_state(victim, "stopped", timeout=120)
            assert found["reason"] == "Preempted"
            codes = [event["code"] for event in api.call("GET", f"/environments/{victim}/events?limit=200")["results"]]
            assert codes.index("PreemptionSoon") < codes.index("Preempted")
        finally:
            lead.call("DELETE", f"/environments/{urgent}")
            wait_until(lambda: lead.environment(urgent)["state"] == "deleted", "teardown", 120)
