"""The caller, quotas, tokens, catalogue, health, and the documents about the API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from portal.domain import services
from portal.domain.models import ApiToken, IdempotencyKey
from portal.runtime import ROOT
from tests.portal.world import World, node


def test_me_tells_teams_limits_and_scopes(world: World, alice: Any) -> None:
    world.limit("cpu", 4000)
    world.limit("cpu", 1000, user=world.alice)
    world.request()
    me = alice("GET", "/me").json()
    assert (me["username"], me["teams"], me["is_admin"]) == ("alice", [{"slug": "vision", "name": "Vision", "role": "engineer"}], False)
    assert me["scopes"] == ["environments:read", "environments:write", "tokens"]
    cpu = {row["user"]: (row["limit"], row["used"], row["free"], row["unit"]) for row in me["quotas"] if row["resource"] == "cpu"}
    assert cpu == {None: (4000, 1000, 3000, "millicores"), "alice": (1000, 1000, 0, "millicores")}


def test_quotas_of_members_are_shown_to_leads_only(world: World, alice: Any, caller: Any) -> None:
    world.request()
    world.request(actor=world.lena)

    def subjects(who: Any, query: str = "") -> set[str | None]:
        return {row["user"] for row in who("GET", f"/quotas{query}").json()["results"]}

    assert subjects(alice) == {None, "alice"}
    assert subjects(caller("lena")) == {None, "alice", "lena"}
    assert subjects(caller("bob")) == {None}
    assert subjects(alice, "?team=speech") == set()


def test_a_token_is_shown_once_and_then_only_recognisable(alice: Any, caller: Any) -> None:
    made = alice("POST", "/tokens", {"name": "ci", "scopes": ["environments:read"], "expires_in": "7d"})
    assert made.status_code == 201
    token = made.json()["token"]
    listed = alice("GET", "/tokens")
    assert token not in listed.content.decode()
    row = next(row for row in listed.json()["results"] if row["name"] == "ci")
    assert token.startswith(row["prefix"])
    bearer = {"Authorization": f"Bearer {token}"}
    assert caller(None)("GET", "/me", **bearer).status_code == 200
    assert alice("DELETE", f"/tokens/{row['id']}").status_code == 204
    assert caller(None)("GET", "/me", **bearer).status_code == 401
    assert "ci" not in [row["name"] for row in alice("GET", "/tokens").json()["results"]]


def test_a_token_can_pass_on_no_scope_that_it_lacks(caller: Any) -> None:
    narrow = caller("alice", "tokens")
    assert narrow("POST", "/tokens", {"name": "x", "scopes": ["environments:write"]}).status_code == 403
    assert narrow("POST", "/tokens", {"name": "x", "scopes": ["tokens"]}).status_code == 201


def test_a_repeated_request_for_a_token_keeps_and_tells_no_secret(alice: Any) -> None:
    wish, key = {"name": "x", "scopes": ["tokens"]}, {"Idempotency-Key": "k"}
    first, second = alice("POST", "/tokens", wish, **key).json(), alice("POST", "/tokens", wish, **key).json()
    assert first["id"] == second["id"]
    assert second["token"] is None
    assert first["token"] not in str(list(IdempotencyKey.objects.values()))
    assert first["token"] not in str(list(ApiToken.objects.values()))


@pytest.mark.parametrize(
    "body", [{"name": "x"}, {"name": "", "scopes": ["tokens"]}, {"name": "x", "scopes": ["root"]}, {"name": "x", "scopes": ["tokens"], "expires_in": "900d"}]
)
def test_a_bad_token_request_is_refused(alice: Any, body: dict[str, Any]) -> None:
    assert alice("POST", "/tokens", body).status_code == 422


def test_the_catalogue_speaks_the_language_asked_for(alice: Any) -> None:
    assert alice("GET", "/templates/dask").json()["title"] == "Dask cluster"
    assert alice("GET", "/templates/dask", **{"Accept-Language": "zh-hans"}).json()["title"] == "Dask 集群"
    assert alice("GET", "/templates/dask").json()["params"]["properties"]["workers"]["maximum"] == 32
    assert alice("GET", "/templates/nope").status_code == 404


def test_capacity_tells_what_is_free_and_what_is_simulated(world: World, alice: Any) -> None:
    assert alice("GET", "/flavors").json()["results"][0]["capacity"]["known"] is False
    gpu = {"devices": {"huawei.com/Ascend910": 8}, "devices_used": {"huawei.com/Ascend910": 2}, "simulated": True}
    services.nodes_observed([node("npu", cpu=128, gib=1024, **gpu)])
    world.limit("accelerator:ascend-910", 4)
    flavors = {row["slug"]: row for row in alice("GET", "/flavors").json()["results"]}
    assert flavors["ascend910-1"]["capacity"] == {"total": 8, "in_use": 2, "free": 6, "starts_now": 4, "known": True, "simulated": True} | {
        "nodes": 1,
        "nodes_free": 1,
        "largest": 6,
    }
    assert (flavors["a100-1"]["fits"], flavors["cpu-small"]["fits"]) == (False, True)
    chips = {row["slug"]: row["capacity"] for row in alice("GET", "/accelerators").json()["results"]}
    assert chips["ascend-910"] == {"total": 8, "in_use": 2, "free": 6, "known": True, "simulated": True, "nodes": 1, "nodes_free": 1, "largest": 6}


def test_health_is_open_and_redis_down_only_degrades(db: None) -> None:
    client = Client()
    assert client.get("/healthz").content == b"ok\n"
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["checks"]["database"] == "ok"
    assert ready.json()["status"] == ("ready" if ready.json()["checks"]["redis"] == "ok" else "degraded")
    assert client.post("/healthz").status_code == 405


def test_without_a_database_it_is_not_ready_but_alive_and_says_so(tmp_path: Path) -> None:
    code = """
import django, json
django.setup()
from django.test import Client
client, bearer = Client(), {"Authorization": "Bearer atl_" + "x" * 43}
ready, api = client.get("/readyz"), client.get("/api/v1/me", headers=bearer)
print(json.dumps([client.get("/healthz").status_code, ready.status_code, ready.json()["status"], api.status_code, api.json()["code"]]))
"""
    url = "postgres://nobody@127.0.0.1:1/nothing"  # nothing listens on port 1
    environment = os.environ | {"DATABASE_URL": url, "VAR_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "portal.settings"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout) == [200, 503, "unavailable", 503, "unavailable"]


def test_metrics_count_environments_and_name_nobody(world: World) -> None:
    world.running()
    text = Client().get("/metrics").content.decode()
    assert 'atelier_environments{state="running"} 1.0' in text
    assert "alice" not in text
    assert '"vision"' not in text


def test_the_docs_page_and_the_document_are_open(db: None, settings: Any) -> None:
    settings.STORAGES = settings.STORAGES | {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}
    page = Client().get("/api/v1/docs")
    assert page.status_code == 200
    assert b"<script>" not in page.content, "the content security policy runs no inline script"
    document = Client().get("/api/v1/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert "401" in operation["responses"], f"{method} {path}"
            assert any(status.startswith("2") for status in operation["responses"]), f"{method} {path}"
    assert "/api/v1/environments/{environment_id}/logs" in document["paths"]
