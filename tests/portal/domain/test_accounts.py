"""Tokens, deactivation, and the commands that make people and tokens."""

from __future__ import annotations

import io
import json
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from portal.domain import services
from portal.domain.durations import format_duration, parse_duration
from portal.domain.errors import Conflict, Forbidden, NotFound, ValidationError
from portal.domain.lifecycle import Desired
from portal.domain.models import ApiToken, Quota, Team, User
from portal.domain.tokens import token_of, user_of
from tests.portal.world import World


def bearer(world: World, *scopes: str, user: User | None = None) -> str:
    return "Bearer " + services.token_create(actor=user or world.alice, name="t", scopes=scopes or ["environments:read"])[1]


def test_a_token_is_kept_only_as_its_digest_and_has_256_random_bits(world: World) -> None:
    row, plaintext = services.token_create(actor=world.alice, name="script", scopes=["environments:read"])
    assert plaintext.startswith("atl_")
    assert len(plaintext) == 4 + 43
    row.refresh_from_db()
    assert plaintext not in json.dumps(ApiToken.objects.filter(pk=row.pk).values().get(), default=str)
    assert row.prefix == plaintext[:8]


def test_a_token_stands_for_its_user_within_its_scopes(world: World) -> None:
    read, write = bearer(world), bearer(world, "environments:write")
    assert user_of(read, "environments:read") == world.alice
    assert user_of(read, "environments:write") is None
    assert user_of(write, "environments:read") == world.alice, "writing includes reading"
    assert user_of(write, "tokens") is None
    assert user_of(read.replace("Bearer", "bearer"), "environments:read") == world.alice


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Bearer atl_", "Bearer atl_" + "x" * 43, "Basic YTpi", "Bearer atl_é", "atl_" + "x" * 43])
def test_other_headers_stand_for_nobody(world: World, header: str) -> None:
    assert user_of(header, "environments:read") is None


def test_a_revoked_an_expired_and_an_inactive_users_token_stand_for_nobody(world: World) -> None:
    revoked, expired, inactive = bearer(world), bearer(world), bearer(world, user=world.bob)
    row = token_of(revoked)
    assert row is not None
    services.token_revoke(actor=world.alice, token_id=row.pk)
    services.token_revoke(actor=world.alice, token_id=row.pk)
    row = token_of(expired)
    assert row is not None
    ApiToken.objects.filter(pk=row.pk).update(expires_at=timezone.now())
    User.objects.filter(pk=world.bob.pk).update(is_active=False)
    assert [user_of(header, "environments:read") for header in (revoked, expired, inactive)] == [None, None, None]


def test_only_the_owner_and_admins_can_revoke_a_token(world: World) -> None:
    row, _ = services.token_create(actor=world.alice, name="t", scopes=["tokens"])
    for other in (world.charlie, world.bob, world.lena):
        with pytest.raises(NotFound):
            services.token_revoke(actor=other, token_id=row.pk)
    assert services.token_revoke(actor=world.admin, token_id=row.pk).revoked_at


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["everything"]}, "scopes"),
        ({"expires_in": timedelta(days=366)}, "expires_in"),
        ({"expires_in": timedelta(0)}, "expires_in"),
    ],
)
def test_a_bad_token_is_refused(world: World, wish: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        services.token_create(**({"actor": world.alice, "name": "t", "scopes": ["tokens"]} | wish))
    assert field in caught.value.errors


def test_deactivating_an_account_ends_every_access_and_stops_what_it_runs(world: World) -> None:
    header, environment = bearer(world), world.running()
    browser, others = Client(), Client()
    browser.force_login(world.alice)
    others.force_login(world.bob)
    assert Session.objects.count() == 2
    services.user_deactivate(actor=world.admin, user=world.alice)
    assert user_of(header, "environments:read") is None
    assert Session.objects.count() == 1
    environment.refresh_from_db()
    assert (environment.desired, environment.reason) == (Desired.STOPPED, "OwnerDeactivated")
    world.bring_to(environment, "stopping", "stopped")
    with pytest.raises(Conflict, match="deactivated"):
        services.environment_start(actor=world.lena, environment_id=environment.pk)


def test_deactivation_revokes_oidc_tokens(world: World) -> None:
    from oauth2_provider.models import AccessToken, Application, Grant, RefreshToken

    application = Application.objects.create(name="hub", client_type="confidential", authorization_grant_type="authorization-code", redirect_uris="http://h/cb")
    soon = timezone.now() + timedelta(hours=1)
    for user in (world.alice, world.bob):
        access = AccessToken.objects.create(user=user, token=f"a-{user}", application=application, expires=soon)
        RefreshToken.objects.create(user=user, token=f"r-{user}", application=application, access_token=access)
        Grant.objects.create(user=user, code=f"c-{user}", application=application, expires=soon, redirect_uri="http://h/cb")
    services.user_deactivate(actor=world.admin, user=world.alice)
    for model in (AccessToken, RefreshToken, Grant):
        assert list(model.objects.values_list("user__username", flat=True)) == ["bob"]


def test_only_admins_deactivate_and_not_themselves(world: World) -> None:
    for other in (world.lena, world.charlie):
        with pytest.raises(Forbidden):
            services.user_deactivate(actor=other, user=world.alice)
    with pytest.raises(Conflict):
        services.user_deactivate(actor=world.admin, user=world.admin)


def test_the_token_command_prints_only_the_token(world: World) -> None:
    out = io.StringIO()
    call_command("token", "alice", "--scopes", "read,tokens", "--expires", "2d", stdout=out)
    (line,) = out.getvalue().splitlines()
    row = token_of(f"Bearer {line}")
    assert row is not None
    assert row.scopes == ["environments:read", "tokens"]
    assert timedelta(days=1, hours=23) < row.expires_at - timezone.now() <= timedelta(days=2)
    for wrong in (["nobody"], ["alice", "--scopes", "root"], ["alice", "--expires", "forever"]):
        with pytest.raises(CommandError):
            call_command("token", *wrong)


def test_seeding_twice_changes_nothing_and_passwords_are_private(db: None, settings: Any, tmp_path: Path) -> None:
    settings.VAR_DIR = tmp_path
    call_command("load_catalogue", stdout=io.StringIO())
    out = io.StringIO()
    call_command("seed_demo", stdout=out)
    path = tmp_path / "credentials.json"
    first = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    passwords = json.loads(first)
    assert not any(password in out.getvalue() for password in passwords.values())
    assert {name for name, password in passwords.items() if authenticate(username=name, password=password)} == {"alice", "lena", "bob", "charlie", "admin"}

    User.objects.filter(username="alice").update(first_name="Alicia")
    Quota.objects.filter(team__slug="vision", user=None, resource="cpu").update(limit=123)
    call_command("seed_demo", stdout=io.StringIO())
    assert path.read_text() == first
    assert User.objects.get(username="alice").first_name == "Alicia"
    assert Quota.objects.get(team__slug="vision", user=None, resource="cpu").limit == 123
    assert Team.objects.count() == 2
    assert not User.objects.get(username="charlie").teams.exists()
    admin = User.objects.get(username="admin")
    assert admin.is_staff
    assert admin.is_superuser


def test_the_demo_fits_into_the_seeded_quota(db: None, settings: Any, tmp_path: Path) -> None:
    settings.VAR_DIR = tmp_path
    call_command("load_catalogue", stdout=io.StringIO())
    call_command("seed_demo", stdout=io.StringIO())
    alice = User.objects.get(username="alice")
    for name, template, params in (("nb", "notebook", {}), ("dk", "dask", {"workers": 2})):
        services.environment_request(actor=alice, name=name, template=template, flavor="cpu-small", team="", params=params)


@pytest.mark.parametrize("text", ["8h", "30m", "2d", "1h30m", "1d2h3m4s"])
def test_spans_of_time_read_back_as_they_were_written(text: str) -> None:
    assert format_duration(parse_duration(text)) == text


@pytest.mark.parametrize("text", ["", "h", "8", "8 h", "-1h", "1.5h", "8H", "1m1h", "٣h", "9999999d"])
def test_other_spans_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a span of time"):
        parse_duration(text)
