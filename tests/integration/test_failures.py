"""What goes wrong is said in words, soon, and can be mended: real processes, some of which are killed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

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
