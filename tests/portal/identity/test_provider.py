"""The OIDC provider, spoken to as the Hub does."""

from __future__ import annotations

import base64
import hashlib
import json
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import Client
from oauth2_provider.models import get_access_token_model, get_application_model, get_grant_model, get_refresh_token_model

from portal.domain.models import Membership, Team, User

pytestmark = pytest.mark.django_db

VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
CALLBACK = f"{settings.HUB_PUBLIC_URL}/hub/oauth_callback"


@pytest.fixture(autouse=True)
def _hub_is_a_client() -> None:
    call_command("oidc_client", verbosity=0)


@pytest.fixture
def alice() -> User:
    user = User.objects.create_user("alice", email="alice@example.org", first_name="Alice", last_name="Liddell")
    for slug in ("vision", "audio"):
        Membership.objects.create(team=Team.objects.create(slug=slug, name=slug), user=user)
    return user


def authorize(client: Client, **changes: str):
    asked = {
        "response_type": "code",
        "client_id": settings.OIDC_CLIENT_ID,
        "redirect_uri": CALLBACK,
        "scope": "openid profile email groups",
        "state": "state",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        **changes,
    }
    return client.get("/o/authorize/", {name: value for name, value in asked.items() if value})


def code_for(user: User) -> str:
    client = Client()
    client.force_login(user)
    answer = authorize(client)
    assert answer.headers["location"].startswith(CALLBACK)
    return parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]


def token(client: Client, **fields: str):
    secret = {"client_id": settings.OIDC_CLIENT_ID, "client_secret": settings.OIDC_CLIENT_SECRET}
    return client.post("/o/token/", {**secret, **fields})


def exchange(client: Client, issued: str, **changes: str):
    return token(client, **{"grant_type": "authorization_code", "code": issued, "redirect_uri": CALLBACK, "code_verifier": VERIFIER, **changes})


def userinfo(client: Client, access: str):
    return client.get("/o/userinfo/", headers={"Authorization": f"Bearer {access}"})


def test_discovery_names_this_portal_and_only_what_it_does(client: Client) -> None:
    document = client.get("/o/.well-known/openid-configuration").json()
    assert document["issuer"] == settings.PUBLIC_URL + "/o"
    assert document["token_endpoint"] == settings.PUBLIC_URL + "/o/token/"
    assert document["response_types_supported"] == ["code"]
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert {"preferred_username", "groups"} <= set(document["claims_supported"])
    assert client.get("/o/.well-known/jwks.json").json()["keys"][0]["alg"] == "RS256"


def test_the_hub_learns_who_someone_is_without_a_consent_page(client: Client, alice: User) -> None:
    tokens = exchange(client, code_for(alice)).json()
    claims = userinfo(client, tokens["access_token"]).json()
    assert claims == {
        "sub": str(alice.pk),
        "preferred_username": "alice",
        "name": "Alice Liddell",
        "email": "alice@example.org",
        "locale": "",
        "groups": ["audio", "vision"],
    }
    key = jwt.PyJWK(client.get("/o/.well-known/jwks.json").json()["keys"][0])
    signed = jwt.decode(tokens["id_token"], key, algorithms=["RS256"], audience=settings.OIDC_CLIENT_ID, issuer=settings.PUBLIC_URL + "/o")
    assert signed["preferred_username"] == "alice"


def test_platform_admins_have_a_group_of_their_own(client: Client) -> None:
    admin = User.objects.create_user("ada", is_staff=True)
    access = exchange(client, code_for(admin)).json()["access_token"]
    assert userinfo(client, access).json()["groups"] == ["atelier-admins"]


def test_someone_not_signed_in_is_asked_to_and_comes_back(client: Client) -> None:
    answer = authorize(client)
    assert answer.headers["location"].startswith("/accounts/login/?next=/o/authorize/")


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uri": "https://evil.example/hub/oauth_callback"},
        {"redirect_uri": CALLBACK + "/../evil"},
        {"redirect_uri": CALLBACK + "?x=1"},
        {"client_id": "someone-else"},
    ],
)
def test_a_code_goes_to_the_hubs_exact_address_only(client: Client, alice: User, changes: dict[str, str]) -> None:
    client.force_login(alice)
    answer = authorize(client, **changes)
    assert answer.status_code == 400
    assert "location" not in answer.headers


@pytest.mark.parametrize("changes", [{"code_challenge": "", "code_challenge_method": ""}, {"code_challenge_method": "plain"}, {"response_type": "token"}])
def test_weaker_flows_are_refused(client: Client, alice: User, changes: dict[str, str]) -> None:
    client.force_login(alice)
    answer = authorize(client, **changes)
    assert "code=" not in answer.headers.get("location", "")
    assert "access_token=" not in answer.headers.get("location", "")
    assert not get_grant_model().objects.exists()


@pytest.mark.parametrize("changes", [{"code_verifier": "w" * 64}, {"client_secret": "guess"}, {"code": "guess"}, {"redirect_uri": "https://evil.example/"}])
def test_a_stolen_code_is_worth_nothing(client: Client, alice: User, changes: dict[str, str]) -> None:
    assert exchange(client, code_for(alice), **changes).status_code in (400, 401)
    assert not get_access_token_model().objects.exists()


def test_a_code_works_once(client: Client, alice: User) -> None:
    code = code_for(alice)
    assert exchange(client, code).status_code == 200
    assert exchange(client, code).status_code == 400


def test_passwords_are_not_taken_at_the_token_address(client: Client, alice: User) -> None:
    alice.set_password("a long enough pass phrase")
    alice.save()
    assert token(client, grant_type="password", username="alice", password="a long enough pass phrase").status_code in (400, 401)


def test_the_database_holds_no_token_that_could_be_used(client: Client, alice: User) -> None:
    tokens = exchange(client, code_for(alice)).json()
    rows = [*get_access_token_model().objects.values(), *get_refresh_token_model().objects.values()]
    stored = json.dumps(rows, default=str)
    assert tokens["access_token"] not in stored
    assert tokens["refresh_token"] not in stored
    assert settings.OIDC_CLIENT_SECRET not in json.dumps(list(get_application_model().objects.values()), default=str)


def test_a_refresh_token_used_twice_ends_the_whole_family(client: Client, alice: User) -> None:
    first = exchange(client, code_for(alice)).json()["refresh_token"]
    second = token(client, grant_type="refresh_token", refresh_token=first).json()["refresh_token"]
    assert token(client, grant_type="refresh_token", refresh_token=first).status_code == 400
    assert token(client, grant_type="refresh_token", refresh_token=second).status_code == 400


def deactivate_quietly(user: User) -> None:
    """As a direct change of the row does, which no signal sees."""
    User.objects.filter(pk=user.pk).update(is_active=False)


def test_nothing_is_said_about_someone_deactivated(client: Client, alice: User) -> None:
    tokens = exchange(client, code_for(alice)).json()
    unused = code_for(alice)
    deactivate_quietly(alice)
    assert userinfo(client, tokens["access_token"]).status_code in (401, 403)
    assert token(client, grant_type="refresh_token", refresh_token=tokens["refresh_token"]).status_code == 400
    assert exchange(client, unused).status_code == 400


def test_deactivation_deletes_codes_and_tokens_and_tells_the_hub(client: Client, alice: User, sent_tasks, django_capture_on_commit_callbacks) -> None:
    exchange(client, code_for(alice))
    code_for(alice)
    with django_capture_on_commit_callbacks(execute=True):
        alice.is_active = False
        alice.save()
    for model in (get_grant_model(), get_access_token_model(), get_refresh_token_model()):
        assert not model.objects.exists()
    assert ("workers.revoke_hub_access", ["alice"]) in sent_tasks


def test_signing_out_ends_what_the_hub_holds_of_this_user_only(client: Client, alice: User, sent_tasks, django_capture_on_commit_callbacks) -> None:
    bob = User.objects.create_user("bob")
    hers, his = exchange(client, code_for(alice)).json(), exchange(client, code_for(bob)).json()
    browser = Client()
    browser.force_login(alice)
    with django_capture_on_commit_callbacks(execute=True):
        browser.post("/accounts/logout/")
    assert userinfo(client, hers["access_token"]).status_code in (401, 403)
    assert token(client, grant_type="refresh_token", refresh_token=hers["refresh_token"]).status_code == 400
    assert userinfo(client, his["access_token"]).status_code == 200
    assert sent_tasks == [("workers.revoke_hub_access", ["alice"])]


@pytest.mark.parametrize(
    "path", ["applications/", "applications/register/", "authorized_tokens/", "introspect/", "register/", "device-authorization/", "logout/"]
)
def test_nothing_more_than_sign_in_is_offered(client: Client, alice: User, path: str) -> None:
    client.force_login(alice)
    assert client.get("/o/" + path).status_code == 404
    assert client.post("/o/" + path).status_code == 404


def test_the_clients_row_follows_the_settings(settings) -> None:
    model = get_application_model()
    before = model.objects.get()
    call_command("oidc_client", verbosity=0)
    assert model.objects.get().client_secret == before.client_secret  # nothing to change: nothing rehashed
    settings.HUB_PUBLIC_URL = "https://hub.example.org"
    settings.OIDC_CLIENT_SECRET = "another secret"
    call_command("oidc_client", verbosity=0)
    after = model.objects.get()
    assert after.redirect_uris == "https://hub.example.org/hub/oauth_callback"
    assert after.client_secret not in (before.client_secret, "another secret")
