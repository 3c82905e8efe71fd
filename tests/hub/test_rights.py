"""Who may do what at the Hub: users reach their servers, the portal's service starts them, and nobody more."""

from __future__ import annotations

import httpx
import pytest
from jupyterhub import orm

from tests.hub.conftest import Site

pytestmark = pytest.mark.integration

REFUSED = (403, 404)


@pytest.fixture(scope="module")
def alice_token(site: Site) -> str:
    assert site.service("PUT", "/atelier/users/alice").status_code in (200, 201)
    assert site.service("PUT", "/atelier/users/bob").status_code in (200, 201)
    # Signed in, so that the only thing that can refuse is the lack of a right.
    site.browser("alice").enter_hub()
    return site.user_token("alice")


def as_user(site: Site, token: str, method: str, path: str, **kwargs: object) -> httpx.Response:
    return httpx.request(method, site.hub_api + path, headers={"Authorization": f"token {token}"}, timeout=30, trust_env=False, **kwargs)


def test_a_users_own_token_says_who_she_is_and_what_little_she_may_do(site: Site, alice_token: str) -> None:
    me = as_user(site, alice_token, "GET", "/user").json()
    assert me["name"] == "alice"
    assert not [scope for scope in me["scopes"] if scope.split("!")[0] in ("servers", "start:servers", "delete:servers", "tokens", "shares", "users", "self")]


@pytest.mark.parametrize("name", ["alice", "bob"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/users/{name}/servers/mine"),
        ("PUT", "/users/{name}/servers/mine"),
        ("PATCH", "/users/{name}/servers/mine"),
        ("DELETE", "/users/{name}/servers/mine"),
        ("POST", "/users/{name}/server"),
        ("DELETE", "/users/{name}/server"),
        ("GET", "/users/{name}/servers/mine/progress"),
        ("POST", "/users/{name}/tokens"),
        ("GET", "/users/{name}/tokens"),
        ("PATCH", "/users/{name}"),
        ("DELETE", "/users/{name}"),
        ("POST", "/shares/{name}/mine"),
        ("PUT", "/atelier/users/{name}"),
        ("DELETE", "/atelier/users/{name}/sessions"),
    ],
)
def test_a_users_own_token_can_neither_start_nor_stop_nor_alter_anything(site: Site, alice_token: str, method: str, path: str, name: str) -> None:
    body = {} if method == "GET" else {"json": {"environment": "x", "namespace": "atelier-vision", "pod": {}}}
    assert as_user(site, alice_token, method, path.format(name=name), **body).status_code in REFUSED
    with site.hub_database() as db:
        assert db.query(orm.Spawner).filter_by(name="mine").count() == 0


def test_a_users_session_cannot_start_a_server_either(site: Site) -> None:
    browser = site.browser("alice")
    browser.enter_hub()
    xsrf = {"X-XSRFToken": browser.cookies.get("_xsrf", path="/hub/") or ""}
    answer = browser.post(site.hub + "/hub/api/users/alice/servers/mine", json={}, headers=xsrf)
    assert answer.status_code in REFUSED
    assert browser.post(site.hub + "/hub/spawn/alice/mine", headers=xsrf).status_code in REFUSED


@pytest.mark.parametrize("page", ["/hub/home", "/hub/spawn", "/hub/spawn/alice/mine", "/hub/spawn-pending/alice/mine", "/hub/token", "/hub/admin", "/hub/"])
def test_pages_of_the_hub_give_way_to_the_portal(site: Site, page: str) -> None:
    browser = site.browser("alice")
    browser.enter_hub()
    answer = browser.get(site.hub + page, follow_redirects=False)
    assert answer.status_code == 302
    assert answer.headers["location"] == site.portal + "/"


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/atelier/users/zoe"), ("DELETE", "/atelier/users/alice/sessions"), ("POST", "/users/alice/servers/mine")]
)
def test_without_a_token_nothing_is_done(site: Site, method: str, path: str) -> None:
    assert httpx.request(method, site.hub_api + path, json={}, timeout=30, trust_env=False).status_code == 403


def test_the_service_makes_users_without_rights_and_only_once(site: Site) -> None:
    assert site.service("PUT", "/atelier/users/new.user@example.org").status_code == 201
    assert site.service("PUT", "/atelier/users/new.user@example.org").status_code == 200
    user = site.service("GET", "/users/new.user@example.org").json()
    assert user["name"] == "new.user@example.org"
    with site.hub_database() as db:
        made = orm.User.find(db, "new.user@example.org")
        assert made.admin is False
        assert [role.name for role in made.roles] == ["user"]


@pytest.mark.parametrize("name", ["..", ".", "%2e%2e", "a%2Fb"])
def test_a_name_that_cannot_be_routed_is_refused(site: Site, name: str) -> None:
    assert site.service("PUT", f"/atelier/users/{name}").status_code in (400, 404, 405)
    with site.hub_database() as db:
        assert not [user.name for user in db.query(orm.User) if "/" in user.name or ".." in user.name]


def test_the_service_cannot_read_oidc_tokens_nor_make_admins_nor_touch_the_hub_itself(site: Site, alice_token: str) -> None:
    with site.hub_database() as db:
        assert orm.User.find(db, "alice").encrypted_auth_state
    for user in [site.service("GET", "/users/alice").json(), *site.service("GET", "/users").json()]:
        assert not user.get("auth_state")
    for method, path, body in [
        ("PATCH", "/users/alice", {"admin": True}),
        ("POST", "/users", {"usernames": ["mallory"], "admin": True}),
        ("POST", "/users/mallory", {}),
        ("POST", "/users/alice/tokens", {}),
        ("GET", "/users/alice/tokens", None),
        ("DELETE", "/users/alice", None),
        ("GET", "/proxy", None),
        ("POST", "/shutdown", {}),
        ("GET", "/groups", None),
        ("GET", "/services", None),
    ]:
        assert site.service(method, path, **({"json": body} if body is not None else {})).status_code in REFUSED, (method, path)


def test_ending_sessions_locks_every_browser_and_token_of_that_user_out_at_once(site: Site) -> None:
    first, second, other = site.browser("alice"), site.browser("alice"), site.browser("bob")
    for browser in (first, second, other):
        browser.enter_hub()
    token = site.user_token("alice")
    assert as_user(site, token, "GET", "/user").status_code == 200
    assert site.service("DELETE", "/atelier/users/alice/sessions").status_code == 204
    assert (first.hub_user(), second.hub_user(), other.hub_user()) == ("", "", "bob")
    assert as_user(site, token, "GET", "/user").status_code == 403
    with site.hub_database() as db:
        assert orm.User.find(db, "alice").encrypted_auth_state is None
    # Still signed in at the portal: a new session needs no question.
    first.enter_hub()
    assert first.hub_user() == "alice"


def test_ending_sessions_of_an_unknown_user_is_no_error(site: Site) -> None:
    assert site.service("DELETE", "/atelier/users/nobody/sessions").status_code == 204
