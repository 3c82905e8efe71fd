"""Every route: what a stranger, an outsider, and a token without the scope are told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import URLPattern
from django.utils import timezone

from portal.api import urls
from portal.domain import services
from portal.domain.models import ApiToken, Approval, Artifact, ArtifactVersion, Environment, Notification
from tests.portal.world import World

ID = "{id}"
ROUTES: list[tuple[str, str, str, Any]] = [  # method, path, scope, body
    ("GET", "/me", "environments:read", None),
    ("PATCH", "/me", "environments:write", {"timezone": "Asia/Shanghai"}),
    ("GET", "/templates", "environments:read", None),
    ("GET", "/templates/dask", "environments:read", None),
    ("GET", "/flavors", "environments:read", None),
    ("GET", "/accelerators", "environments:read", None),
    ("GET", "/quotas", "environments:read", None),
    ("GET", "/volumes", "environments:read", None),
    ("DELETE", "/volumes/{volume}", "environments:write", None),
    ("GET", "/environments", "environments:read", None),
    ("POST", "/environments", "environments:write", {"name": "x", "template": "notebook", "flavor": "cpu-small", "team": "vision"}),
    ("GET", f"/environments/{ID}", "environments:read", None),
    ("PATCH", f"/environments/{ID}", "environments:write", {"expires_in": "1h"}),
    ("DELETE", f"/environments/{ID}", "environments:write", None),
    ("POST", f"/environments/{ID}/start", "environments:write", None),
    ("POST", f"/environments/{ID}/stop", "environments:write", None),
    ("POST", f"/environments/{ID}/retry", "environments:write", None),
    ("POST", f"/environments/{ID}/keep", "environments:write", None),
    ("POST", f"/environments/{ID}/in-use", "environments:write", None),
    ("GET", f"/environments/{ID}/events", "environments:read", None),
    ("GET", "/storages", "environments:read", None),
    ("GET", "/datasets", "environments:read", None),
    ("POST", "/datasets", "environments:write", {"name": "x", "team": "vision"}),
    ("GET", "/datasets/{dataset}", "environments:read", None),
    ("PATCH", "/datasets/{dataset}", "environments:write", {"description": "mine"}),
    ("DELETE", "/datasets/{dataset}", "environments:write", None),
    ("GET", "/datasets/{dataset}/versions", "environments:read", None),
    ("POST", "/datasets/{dataset}/versions", "environments:write", {"path": "x", "storage": "team-shared"}),
    ("DELETE", "/datasets/{dataset}/versions/1", "environments:write", None),
    ("GET", "/models", "environments:read", None),
    ("POST", "/models", "environments:write", {"name": "x", "team": "vision"}),
    ("GET", "/models/{model}", "environments:read", None),
    ("PATCH", "/models/{model}", "environments:write", {"description": "mine"}),
    ("DELETE", "/models/{model}", "environments:write", None),
    ("GET", "/models/{model}/versions", "environments:read", None),
    ("POST", "/models/{model}/versions", "environments:write", {"path": "x", "storage": "team-shared"}),
    ("DELETE", "/models/{model}/versions/1", "environments:write", None),
    ("GET", "/approvals", "environments:read", None),
    ("GET", "/approvals/{approval}", "environments:read", None),
    ("POST", "/approvals/{approval}/approve", "environments:write", {}),
    ("POST", "/approvals/{approval}/refuse", "environments:write", {"note": "no"}),
    ("GET", "/queue", "environments:read", None),
    ("GET", "/priorities", "environments:read", None),
    ("GET", "/usage", "environments:read", None),
    ("GET", "/notifications", "environments:read", None),
    ("POST", "/notifications/read", "environments:write", {}),
    ("GET", "/tokens", "tokens", None),
    ("POST", "/tokens", "tokens", {"name": "x", "scopes": ["environments:read"]}),
    ("DELETE", "/tokens/{token}", "tokens", None),
]
ARTIFACTS = {"dataset": "alices-dataset", "model": "alices-model"}
NAMES = [f"{method} {path}" for method, path, _, _ in ROUTES]


@pytest.fixture
def address(world: World) -> Any:
    """Fills a route's path with things of Alice's."""
    environment = world.running()
    approval = Approval.objects.create(environment=environment, asked_by=world.alice, lapses_at=timezone.now() + timedelta(hours=1))
    services.notify([world.alice], "Note", "for alice of vision", environment, source="test")
    for kind in ("dataset", "model"):
        services.artifact_create(actor=world.alice, kind=kind, name=f"alices-{kind}", team="vision")
        services.artifact_version_add(actor=world.alice, kind=kind, name=f"alices-{kind}", storage="team-shared", path="x")

    def fill(path: str) -> str:
        token = ApiToken.objects.filter(user=world.alice).first()
        return path.format(id=environment.pk, volume=environment.volume_id, approval=approval.pk, token=token.pk if token else uuid4(), **ARTIFACTS)

    return fill


def is_problem(response: Any, status: int) -> bool:
    body = response.json()
    assert response.status_code == status, body
    assert response["Content-Type"] == "application/problem+json"
    assert body["status"] == status
    return {"type", "title", "status", "detail", "code"} <= set(body)


def test_the_table_of_routes_names_every_address_of_the_api() -> None:
    open_to_all = {"openapi", "docs", None}
    named = {pattern.name for pattern in urls.urlpatterns if isinstance(pattern, URLPattern)} - open_to_all
    from django.urls import resolve

    filler = str(uuid4())
    tested = {resolve("/api/v1" + path.format(id=filler, volume=filler, token=filler, approval=1, **ARTIFACTS)).url_name for _, path, _, _ in ROUTES}
    assert tested == named


@pytest.mark.parametrize(("method", "path", "scope", "body"), ROUTES, ids=NAMES)
def test_a_stranger_is_asked_to_sign_in(caller: Any, address: Any, method: str, path: str, scope: str, body: Any) -> None:
    response = caller(None)(method, address(path), body)
    assert is_problem(response, 401)
    assert response["WWW-Authenticate"] == 'Bearer realm="atelier"'
    assert is_problem(caller(None)(method, address(path), body, Authorization="Bearer atl_" + "x" * 43), 401)


@pytest.mark.parametrize(("method", "path", "scope", "body"), ROUTES, ids=NAMES)
def test_a_token_without_the_scope_is_refused(caller: Any, address: Any, method: str, path: str, scope: str, body: Any) -> None:
    other = {"environments:read": "tokens", "environments:write": "environments:read", "tokens": "environments:write"}[scope]
    response = caller("alice", other)(method, address(path), body)
    assert is_problem(response, 403)
    assert scope in response.json()["detail"]


@pytest.mark.parametrize(("method", "path", "scope", "body"), ROUTES, ids=NAMES)
def test_an_outsider_sees_nothing_of_it_and_changes_nothing(caller: Any, world: World, address: Any, method: str, path: str, scope: str, body: Any) -> None:
    caller("alice")

    def present() -> Any:
        rows = Environment.objects.values("desired", "state", "name", "purge", "expires_in", "delete_at").get(), Approval.objects.values("status", "note").get()
        artifacts = list(Artifact.objects.values("name", "description", "last_number")), ArtifactVersion.objects.count()
        return (
            rows,
            artifacts,
            ApiToken.objects.filter(user=world.alice, revoked_at=None).count(),
            Notification.objects.filter(user=world.alice, read_at=None).count(),
        )

    before = present()
    response = caller("charlie")(method, address(path), body)
    if "{" in path:
        assert is_problem(response, 404)
    elif (method, path) in (("POST", "/environments"), ("POST", "/datasets"), ("POST", "/models")):
        assert is_problem(response, 422)
        assert "team" in response.json()["errors"]
    else:
        assert response.status_code in (200, 201)
        assert "vision" not in response.content.decode(), "teams of others are not named"
        if path in ("/environments", "/volumes", "/quotas", "/approvals", "/queue", "/usage", "/datasets", "/models", "/storages") or (method, path) == (
            "GET",
            "/notifications",
        ):
            assert response.json()["results"] == []
    assert present() == before


def test_a_browser_session_may_do_all_but_not_without_the_csrf_token(world: World) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(world.alice)
    assert browser.get("/api/v1/me").json()["scopes"] is None
    body = {"name": "nb", "template": "notebook", "flavor": "cpu-small"}
    assert is_problem(browser.post("/api/v1/environments", body, content_type="application/json"), 403)
    browser.get("/api/v1/me")
    browser.cookies["atelier_csrf"] = "a" * 32
    response = browser.post("/api/v1/environments", body, content_type="application/json", headers={"X-CSRFToken": "a" * 32})
    assert response.status_code == 201, response.content


def test_a_broken_token_is_refused_even_beside_a_session(world: World) -> None:
    browser = Client()
    browser.force_login(world.alice)
    assert is_problem(browser.get("/api/v1/me", headers={"Authorization": "Bearer nonsense"}), 401)


@pytest.mark.parametrize(
    "path", ["/nope", "/environments/nope", "/environments/nope/start", "/environments/", "/", "/templates/%2e%2e/x", "/volumes/%0A", "/environments/%0d%0ax"]
)
def test_nothing_at_an_address_is_a_problem_document_too(caller: Any, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert is_problem(caller("alice")(method, path), 404)


def test_a_wrong_method_body_and_type_are_problem_documents(caller: Any) -> None:
    alice = caller("alice")
    assert is_problem(alice("PUT", "/environments"), 405)
    assert is_problem(alice("POST", "/environments", "{"), 400)
    assert is_problem(alice("POST", "/environments", '{"name": NaN}'), 400)
    assert is_problem(alice("POST", "/environments", "[1]"), 422)
    response = alice.client.post("/api/v1/environments", {"name": "x"}, headers=alice.headers)
    assert is_problem(response, 415)


def test_answers_are_not_cached(caller: Any) -> None:
    assert caller("alice")("GET", "/me")["Cache-Control"] == "no-store"
    assert caller(None)("GET", "/me")["Cache-Control"] == "no-store"
