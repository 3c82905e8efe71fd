"""Environments over REST: the whole life, filters, pages, idempotency, bad input."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from portal.domain import services
from portal.domain.models import Environment, IdempotencyKey
from tests.portal.world import World, node

NOTEBOOK = {"name": "nb", "template": "notebook", "flavor": "cpu-small"}
DASK = {"name": "dk", "template": "dask", "flavor": "cpu-small", "team": "vision", "params": {"workers": 2}, "expires_in": "1h30m"}


def test_a_cluster_lives_from_request_to_deletion(world: World, alice: Any) -> None:
    made = alice("POST", "/environments", DASK)
    assert made.status_code == 201
    body = made.json()
    assert made["Location"] == f"http://testserver/api/v1/environments/{body['id']}"
    assert (body["state"], body["desired"], body["workers"], body["expires_in"], body["owner"]) == ("requested", "running", 2, "1h30m", "alice")
    assert body["resources"] == {"cpu": 3.0, "memory_bytes": 5 * 2**30, "accelerators": {}}
    address = f"/environments/{body['id']}"
    environment = Environment.objects.get(pk=body["id"])
    world.bring_to(environment, "queued", "provisioning", "running")
    observed = {
        "replicas": [{"name": "dk-worker-0", "role": "worker", "state": "running", "ready": True, "extra": 1}],
        "endpoints": [{"name": "comm", "url": "tcp://h:8786"}],
        "steps": [{"key": "ready", "state": "done"}],
        "snippet": "Client()",
    }
    services.environment_observe(environment.pk, observed)
    seen = alice("GET", address).json()
    (replica,) = seen["replicas"]
    assert (replica["name"], replica["role"], replica["state"], replica["ready"], replica["node"]) == ("dk-worker-0", "worker", "running", True, None)
    assert "extra" not in replica
    assert (seen["endpoints"][0]["url"], seen["steps"][0]["key"], seen["snippet"]) == ("tcp://h:8786", "ready", "Client()")

    assert alice("PATCH", address, {"workers": 4, "expires_in": "2h"}).json()["workers"] == 4
    assert alice("POST", f"{address}/stop").json()["desired"] == "stopped"
    world.bring_to(environment, "stopping", "stopped")
    assert alice("POST", f"{address}/start").json()["state"] == "queued"
    world.bring_to(environment, "failed")
    assert alice("POST", f"{address}/retry").json()["state"] == "queued"
    gone = alice("DELETE", address)
    assert (gone.status_code, gone.json()["desired"]) == (202, "deleted")
    world.bring_to(environment, "deleting", "deleted")
    assert alice("GET", address).json()["state"] == "deleted"
    assert alice("GET", "/environments").json()["results"] == []
    assert [row["id"] for row in alice("GET", "/environments?state=deleted").json()["results"]] == [body["id"]]


def test_a_notebooks_address_is_given_once_the_hub_has_one(world: World, alice: Any) -> None:
    environment = world.running()
    assert alice("GET", f"/environments/{environment.pk}").json()["url"] is None
    services.environment_observe(environment.pk, {"hub_url": "/user/alice/nb/"})
    assert alice("GET", f"/environments/{environment.pk}").json()["url"].endswith(":8010/user/alice/nb/")


def test_a_dry_run_makes_nothing_and_tells_the_effect_on_the_quota(world: World, alice: Any) -> None:
    world.limit("cpu", 500)
    response = alice("POST", "/environments?dry_run=true", NOTEBOOK)
    assert response.status_code == 200
    body = response.json()
    assert body["allowed"] is False
    assert {"scope": "team", "resource": "cpu", "limit": 500, "used": 0, "amount": 1000, "fits": False} in body["quota"]
    assert "may use 0.5 CPU" in body["refusals"][0]
    assert not Environment.objects.exists()
    refused = alice("POST", "/environments", NOTEBOOK)
    assert (refused.status_code, refused.json()["code"]) == (409, "quota_exceeded")
    assert refused.json()["errors"] == {"cpu": body["refusals"]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**NOTEBOOK, "name": "x" * 300}, "name"),
        ({**NOTEBOOK, "name": "../../etc"}, "name"),
        ({**NOTEBOOK, "name": 5}, "name"),
        ({**NOTEBOOK, "name": "x" * 5000}, "name"),
        ({**NOTEBOOK, "name": "nb\u0000"}, "name"),
        ({**NOTEBOOK, "template": "nope"}, "template"),
        ({**NOTEBOOK, "template": ["notebook"]}, "template"),
        ({**NOTEBOOK, "flavor": None}, "flavor"),
        ({**NOTEBOOK, "team": "speech"}, "team"),
        ({**NOTEBOOK, "params": []}, "params"),
        ({**NOTEBOOK, "params": {"image": "evil"}}, "params"),
        ({**DASK, "params": {"workers": -1}}, "params.workers"),
        ({**DASK, "params": {"workers": 10**100}}, "params.workers"),
        ({**NOTEBOOK, "expires_in": 3600}, "expires_in"),
        ({**NOTEBOOK, "expires_in": "400d"}, "expires_in"),
        ({**NOTEBOOK, "expires_in": "1s"}, "expires_in"),
        ({**NOTEBOOK, "flavour": "cpu-small"}, "flavour"),
        ({}, "name"),
    ],
)
def test_bad_input_is_refused_naming_the_field(alice: Any, body: dict[str, Any], field: str) -> None:
    for path in ("/environments", "/environments?dry_run=true"):
        response = alice("POST", path, body)
        assert response.status_code == 422, response.content
        assert field in response.json()["errors"]
    assert not Environment.objects.exists()


@pytest.mark.parametrize(
    "body", [{}, {"workers": "4"}, {"workers": True}, {"workers": 2.5}, {"workers": 0}, {"workers": 99}, {"state": "running"}, {"expires_in": "1m"}]
)
def test_a_bad_change_is_refused_and_changes_nothing(world: World, alice: Any, body: dict[str, Any]) -> None:
    environment = world.running(template="dask")
    assert alice("PATCH", f"/environments/{environment.pk}", body).status_code == 422
    environment.refresh_from_db()
    assert (environment.workers, environment.desired_generation) == (2, 1)


def test_a_change_of_several_things_is_made_as_a_whole_or_not_at_all(world: World, alice: Any) -> None:
    environment = world.running(template="dask")
    response = alice("PATCH", f"/environments/{environment.pk}", {"workers": 3, "expires_in": "99d"})
    assert response.status_code == 422
    environment.refresh_from_db()
    assert environment.workers == 2
    assert services.quota_recompute() == []


def test_a_flavor_no_node_can_hold_is_marked_and_refused_with_the_reason(world: World, alice: Any) -> None:
    services.nodes_observed([node("small", cpu=2, gib=4)])
    large = next(row for row in alice("GET", "/flavors").json()["results"] if row["slug"] == "cpu-large")
    assert large["fits"] is False
    assert "the largest node has 2 CPU" in large["reason"]
    response = alice("POST", "/environments", {**NOTEBOOK, "flavor": "cpu-large"})
    assert response.status_code == 422
    assert "the largest node has 2 CPU" in response.json()["errors"]["flavor"][0]


def test_the_wrong_state_is_a_conflict_that_names_it(world: World, alice: Any) -> None:
    environment = world.running()
    response = alice("POST", f"/environments/{environment.pk}/start")
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert "running" in response.json()["detail"]


def test_pages_follow_each_other_without_gaps_or_repeats(world: World, alice: Any) -> None:
    names = [f"nb-{index}" for index in range(7)]
    for name in names:
        world.request(name=name)
    seen, address = [], "/environments?limit=3"
    while address:
        page = alice("GET", address).json()
        seen += [row["name"] for row in page["results"]]
        address = page["next"]
    assert seen == names[::-1]
    assert alice("GET", "/environments?cursor=nonsense").status_code == 404
    for limit in ("0", "-1", "x", "201", "9" * 30):
        assert alice("GET", f"/environments?limit={limit}").status_code == 422


def test_filters_narrow_the_list(world: World, alice: Any, caller: Any) -> None:
    world.running(name="first")
    world.request(name="second", template="dask")
    world.request(name="third", actor=world.lena)
    lena = caller("lena")

    def names(who: Any, query: str) -> list[str]:
        return sorted(row["name"] for row in who("GET", f"/environments?{query}").json()["results"])

    assert names(alice, "") == ["first", "second"]
    assert names(lena, "") == ["first", "second", "third"]
    assert names(lena, "owner=lena") == ["third"]
    assert names(lena, "state=running&state=requested&kind=notebook") == ["first", "third"]
    assert names(lena, "q=ECO") == ["second"]
    assert names(lena, "team=speech") == []
    for wrong in ("state=flying", "kind=robot", "q=a%00b", "state=running,requested"):
        assert alice("GET", f"/environments?{wrong}").status_code == 422


def test_events_are_read_on_from_a_number(world: World, alice: Any) -> None:
    address = f"/environments/{world.running().pk}/events"
    page = alice("GET", f"{address}?limit=3").json()
    assert [row["seq"] for row in page["results"]] == [1, 2, 3]
    rest = alice("GET", page["next"]).json()
    assert [row["to_state"] for row in rest["results"]] == ["running"]
    assert rest["next"] is None
    assert alice("GET", f"{address}?after=4").json()["results"] == []
    for after in ("-1", "x", "1e3", "9" * 40):
        assert alice("GET", f"{address}?after={after}").status_code == 422


def test_the_same_idempotency_key_has_its_effect_once(world: World, alice: Any, caller: Any) -> None:
    key = {"Idempotency-Key": "7d1f"}
    first, second = alice("POST", "/environments", NOTEBOOK, **key), alice("POST", "/environments", NOTEBOOK, **key)
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    assert second["Idempotency-Replayed"] == "true"
    assert Environment.objects.count() == 1
    reused = alice("POST", "/environments", DASK, **key)
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")
    assert caller("lena")("POST", "/environments", NOTEBOOK, **key).status_code == 201, "keys are each user's own"
    address = f"/environments/{first.json()['id']}/stop"
    assert [alice("POST", address, **{"Idempotency-Key": "s"}).status_code for _ in range(2)] == [200, 200]
    assert alice("POST", address).status_code == 409


def test_a_refusal_frees_the_key(world: World, alice: Any) -> None:
    world.limit("cpu", 0)
    assert alice("POST", "/environments", NOTEBOOK, **{"Idempotency-Key": "k"}).status_code == 409
    assert not IdempotencyKey.objects.exists()
    world.limit("cpu", None)
    assert alice("POST", "/environments", NOTEBOOK, **{"Idempotency-Key": "k"}).status_code == 201
    assert alice("POST", "/environments", NOTEBOOK, **{"Idempotency-Key": "x" * 201}).status_code == 422


def test_a_kept_volume_is_listed_and_can_be_purged(world: World, alice: Any) -> None:
    environment = world.running()
    assert alice("GET", "/volumes").json()["results"][0]["environment"] == str(environment.pk)
    assert alice("DELETE", f"/volumes/{environment.volume_id}").status_code == 409
    alice("DELETE", f"/environments/{environment.pk}")
    world.bring_to(environment, "deleting", "deleted")
    (kept,) = alice("GET", "/volumes").json()["results"]
    assert (kept["environment"], kept["size_bytes"]) == (None, 10 * 2**30)
    response = alice("DELETE", f"/volumes/{kept['id']}")
    assert response.status_code == 202
    assert response.json()["purge_requested_at"]
    services.volume_forget(UUID(kept["id"]))
    assert alice("GET", "/volumes").json()["results"] == []


def test_it_says_with_which_version_of_its_template_it_starts_next(world: World, alice: Any) -> None:
    address = f"/environments/{alice('POST', '/environments', DASK).json()['id']}"
    environment = Environment.objects.get()
    before = alice("GET", address).json()
    assert (before["template_version"], before["update_available"]) == (environment.template_version, None)
    first = environment.template_version
    for number in (first + 1, first + 2):
        services.template_store(spec=environment.template_spec | {"version": number, "replaces": [number - 1]})
    assert alice("GET", address).json()["update_available"] == first + 2
    assert alice("GET", "/environments").json()["results"][0]["update_available"] == first + 2
    assert alice("GET", "/templates/dask").json()["version"] == first + 2
    world.bring_to(environment, "queued", "failed")
    after = alice("POST", f"{address}/retry").json()
    assert (after["template_version"], after["update_available"]) == (first + 2, None)
