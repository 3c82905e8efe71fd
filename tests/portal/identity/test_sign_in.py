"""Signing in and out of the portal."""

from __future__ import annotations

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from portal.domain.models import User

pytestmark = pytest.mark.django_db

PASSWORD = "a long enough pass phrase"


@pytest.fixture(autouse=True)
def _no_counts_of_failed_sign_ins() -> None:
    cache.clear()


@pytest.fixture
def alice() -> User:
    return User.objects.create_user("alice", password=PASSWORD)


def sign_in(client: Client, name: str = "alice", password: str = PASSWORD, **fields: str):
    return client.post(reverse("account_login"), {"login": name, "password": password, **fields})


def test_a_user_signs_in_by_name_and_password(client: Client, alice: User) -> None:
    page = client.get(reverse("account_login"))
    assert b'name="csrfmiddlewaretoken"' in page.content
    answer = sign_in(client)
    assert answer.headers["location"] == "/"
    assert client.session["_auth_user_id"] == str(alice.pk)


@pytest.mark.parametrize(("name", "password"), [("alice", "wrong"), ("nobody", PASSWORD), ("alice", ""), ("", PASSWORD), ("ALICE' OR 1=1 --", "x")])
def test_a_wrong_name_or_password_gives_the_form_again_and_no_session(client: Client, alice: User, name: str, password: str) -> None:
    answer = sign_in(client, name, password)
    assert answer.status_code == 200
    assert "_auth_user_id" not in client.session
    assert b"<form" in answer.content


def test_a_wrong_name_and_a_wrong_password_read_the_same(client: Client, alice: User) -> None:
    known, unknown = sign_in(client, password="wrong"), sign_in(client, "nobody", "wrong")
    assert known.context["form"].non_field_errors()
    assert known.context["form"].non_field_errors() == unknown.context["form"].non_field_errors()


def test_the_name_is_echoed_escaped(client: Client) -> None:
    answer = sign_in(client, '"><script>alert(1)</script>', "x")
    assert b"<script>alert" not in answer.content


def test_after_five_failures_even_the_right_password_is_refused(client: Client, alice: User) -> None:
    for _ in range(5):
        sign_in(client, password="wrong")
    answer = sign_in(client)
    assert answer.status_code == 200
    assert "_auth_user_id" not in client.session
    assert "Too many" in str(answer.context["form"].non_field_errors())


def test_someone_deactivated_gets_no_session(client: Client, alice: User) -> None:
    alice.is_active = False
    alice.save()
    sign_in(client)
    assert "_auth_user_id" not in client.session
    assert client.get(reverse("account_inactive")).status_code == 200


def test_a_session_ends_with_the_users_deactivation(client: Client, alice: User) -> None:
    client.force_login(alice)
    alice.is_active = False
    alice.save()
    assert client.get(reverse("account_change_password")).headers["location"].startswith(reverse("account_login"))


@pytest.mark.parametrize("there", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", "http://testserver.evil.example/"])
def test_sign_in_goes_on_to_no_other_host(client: Client, alice: User, there: str) -> None:
    assert sign_in(client, next=there).headers["location"] == "/"


def test_sign_in_goes_on_to_a_path_of_the_portal(client: Client, alice: User) -> None:
    assert sign_in(client, next="/o/authorize/?client_id=x").headers["location"] == "/o/authorize/?client_id=x"


@pytest.mark.parametrize("path", ["signup/", "password/reset/", "email/", "confirm-email/", "login/code/"])
def test_there_is_no_way_to_make_an_account_or_to_reset_a_password_by_mail(client: Client, path: str) -> None:
    assert client.get("/accounts/" + path).status_code == 404
    assert client.post("/accounts/" + path, {"username": "mallory", "password1": PASSWORD, "password2": PASSWORD}).status_code == 404
    assert not User.objects.exists()


def test_the_admin_pages_use_the_same_sign_in(client: Client, alice: User) -> None:
    assert client.get("/admin/login/?next=/admin/").headers["location"] == "/accounts/login/?next=%2Fadmin%2F"
    client.force_login(alice)
    assert client.get("/admin/login/").status_code == 403


def test_sign_out_asks_first_and_then_passes_through_the_hub(client: Client, alice: User, settings, unused_tcp_port_factory) -> None:
    client.force_login(alice)
    assert client.get(reverse("account_logout")).status_code == 200
    assert "_auth_user_id" in client.session
    settings.HUB_API_URL = f"http://127.0.0.1:{unused_tcp_port_factory()}/hub/api"  # the Hub is down
    answer = client.post(reverse("account_logout"), {"next": "https://evil.example/"})
    assert answer.headers["location"] == reverse("account_login")
    assert "_auth_user_id" not in client.session


def test_sign_out_goes_to_the_hub_when_it_listens_and_to_nothing_a_request_names(client: Client, alice: User, settings) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as hub:
        settings.HUB_API_URL = f"http://127.0.0.1:{hub.getsockname()[1]}/hub/api"
        client.force_login(alice)
        answer = client.post(reverse("account_logout") + "?next=https://evil.example/", {"next": "https://evil.example/"})
    assert answer.headers["location"] == settings.HUB_PUBLIC_URL + "/hub/logout"


def test_sign_out_needs_the_forms_token(alice: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    assert client.post(reverse("account_logout")).status_code == 403
    assert "_auth_user_id" in client.session


def test_a_new_password_keeps_this_session_and_ends_the_others(client: Client, alice: User) -> None:
    client.force_login(alice)
    other = Client()
    other.force_login(alice)
    new = "another pass phrase, longer"
    sign_in(client)
    answer = client.post(reverse("account_change_password"), {"oldpassword": PASSWORD, "password1": new, "password2": new})
    assert answer.status_code == 302, answer.content
    alice.refresh_from_db()
    assert alice.check_password(new)
    assert client.get(reverse("account_change_password")).status_code == 200
    assert other.get(reverse("account_change_password")).status_code == 302


def test_the_language_is_kept_in_the_account_and_comes_back_with_the_next_sign_in(client: Client, alice: User) -> None:
    client.force_login(alice)
    answer = client.post("/accounts/language/", {"language": "zh-hans", "next": "https://evil.example/"})
    assert answer.headers["location"] == "/"
    alice.refresh_from_db()
    assert alice.language == "zh-hans"
    elsewhere = Client()
    assert sign_in(elsewhere).cookies["atelier_language"].value == "zh-hans"


def test_an_unknown_language_is_not_stored(client: Client, alice: User) -> None:
    client.force_login(alice)
    client.post("/accounts/language/", {"language": "<b>"})
    alice.refresh_from_db()
    assert alice.language == ""


def test_too_many_tries_from_one_address_get_a_page_that_says_so(client: Client, alice: User, settings) -> None:
    settings.ACCOUNT_RATE_LIMITS = {"login": "1/m/ip"}
    sign_in(client, password="wrong")
    answer = sign_in(client)
    assert answer.status_code == 429
    assert b"Too many tries" in answer.content
    assert "_auth_user_id" not in client.session
