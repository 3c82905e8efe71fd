"""Who may see what: outsiders meet 404, strangers the sign-in page, and no verb answers to GET."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import reverse

from portal.domain.lifecycle import State
from portal.domain.models import Environment, User
from portal.domain.services import token_create

from .world import World, launch, run_notebook

VERBS = ("start", "stop", "retry", "scale", "extend", "rename", "delete", "keep", "in_use", "schedule", "autoscale")
FIELDS = {"workers": "3", "expires_in": "3600", "name": "taken-over"}


def of_one_environment() -> list[str]:
    return ["environment", *(f"environment_{verb}" for verb in VERBS)]


@pytest.fixture
def environment(world: World) -> Environment:
    row = launch(world.alice, "train")
    run_notebook(row)
    row.refresh_from_db()
    return row


@pytest.mark.parametrize("name", of_one_environment())
def test_an_outsider_is_told_that_there_is_no_such_environment(name: str, world: World, environment: Environment, client_of: Callable[[User], Client]) -> None:
    address = reverse(name, args=[environment.pk])
    for stranger in (world.charlie, world.bob):
        client = client_of(stranger)
        response = client.get(address) if name == "environment" else client.post(address, FIELDS)
        assert response.status_code == 404
        assert b"train" not in response.content
    after = Environment.objects.get(pk=environment.pk)
    assert (after.state, after.desired, after.name, after.desired_generation) == ("running", "running", "train", environment.desired_generation)


@pytest.mark.parametrize("name", of_one_environment())
def test_an_unknown_environment_looks_the_same_as_a_hidden_one(name: str, world: World, client_of: Callable[[User], Client]) -> None:
    client = client_of(world.alice)
    address = reverse(name, args=[uuid4()])
    response = client.get(address) if name == "environment" else client.post(address, FIELDS)
    assert response.status_code == 404


@pytest.mark.parametrize("name", [f"environment_{verb}" for verb in VERBS])
def test_no_verb_answers_to_get(name: str, world: World, environment: Environment, client_of: Callable[[User], Client]) -> None:
    assert client_of(world.alice).get(reverse(name, args=[environment.pk])).status_code == 405


@pytest.mark.parametrize("name", of_one_environment())
def test_a_stranger_is_led_to_the_sign_in_page(name: str, environment: Environment) -> None:
    address = reverse(name, args=[environment.pk])
    response = Client().get(address) if name == "environment" else Client().post(address, FIELDS)
    assert response.status_code == 302
    assert response["Location"].startswith("/accounts/login/")


@pytest.mark.parametrize("address", ["/", "/launch/", "/launch/notebook/", "/tokens/", "/quotas/", "/capacity/"])
def test_every_page_leads_a_stranger_to_the_sign_in_page(address: str, world: World) -> None:
    response = Client().get(address)
    assert response.status_code == 302
    assert response["Location"] == f"/accounts/login/?next={address}"


def test_a_live_page_whose_session_ended_loads_itself_anew(world: World, environment: Environment) -> None:
    response = Client().get(reverse("environment", args=[environment.pk]), headers={"HX-Request": "true"})
    assert response.status_code == 204
    assert response["HX-Refresh"] == "true"


@pytest.mark.parametrize("name", [f"environment_{verb}" for verb in VERBS])
def test_a_post_without_its_csrf_token_is_refused(name: str, world: World, environment: Environment) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(world.alice)
    assert client.post(reverse(name, args=[environment.pk]), FIELDS).status_code == 403
    assert Environment.objects.get(pk=environment.pk).desired_generation == environment.desired_generation


def test_a_lead_sees_the_teams_environments_and_an_engineer_only_his_own(world: World, environment: Environment, client_of: Callable[[User], Client]) -> None:
    assert b"train" in client_of(world.lena).get("/?of=everyone").content
    assert b"train" not in client_of(world.lena).get("/").content
    for person in (world.charlie, world.bob):
        assert b"train" not in client_of(person).get("/?of=everyone").content


def test_only_the_owner_is_offered_the_notebook(world: World, environment: Environment, settings: Any, client_of: Callable[[User], Client]) -> None:
    address = reverse("environment", args=[environment.pk])
    lab = f"{settings.HUB_PUBLIC_URL}/user/alice/train/lab".encode()
    assert lab in client_of(world.alice).get(address).content
    lead = client_of(world.lena).get(address)
    assert lead.status_code == 200
    assert lab not in lead.content


def test_a_user_of_no_team_is_refused_a_launch_and_told_what_to_do(world: World, client_of: Callable[[User], Client]) -> None:
    client = client_of(world.charlie)
    assert b"You are in no team yet" in client.get("/").content
    assert b"You are in no team yet" in client.get("/launch/notebook/").content
    response = client.post("/launch/notebook/", {"name": "mine", "team": "vision", "flavor": "small", "expires_in": "3600"})
    assert response.status_code == 422
    assert not Environment.objects.exists()


def test_a_preview_for_a_team_of_others_shows_nothing_of_its_quota(world: World, client_of: Callable[[User], Client]) -> None:
    response = client_of(world.charlie).post("/launch/notebook/preview", {"name": "x", "team": "vision", "flavor": "small", "expires_in": "3600"})
    assert b"progress-bar" not in response.content
    assert b"of 8" not in response.content


def test_nobody_sees_the_quota_of_a_team_he_is_not_in(world: World, client_of: Callable[[User], Client]) -> None:
    assert b"Vision" in client_of(world.alice).get("/quotas/").content
    assert b"Vision" not in client_of(world.charlie).get("/quotas/").content
    assert b"Vision" not in client_of(world.bob).get("/quotas/").content


def test_nobody_can_revoke_the_token_of_another(world: World, client_of: Callable[[User], Client]) -> None:
    token, _ = token_create(actor=world.alice, name="mine", scopes=["environments:read"])
    assert client_of(world.charlie).post(f"/tokens/{token.pk}/revoke").status_code == 404
    token.refresh_from_db()
    assert token.revoked_at is None
    assert Client().post(f"/tokens/{token.pk}/revoke").status_code == 302


def test_nobody_can_purge_the_volume_of_another(world: World, environment: Environment, client_of: Callable[[User], Client]) -> None:
    assert environment.volume is not None
    Environment.objects.filter(pk=environment.pk).update(state=State.DELETED.value)
    address = reverse("volume_purge", args=[environment.volume.pk])
    assert client_of(world.charlie).post(address).status_code == 404
    assert client_of(world.bob).post(address).status_code == 404
    assert Client().post(address).status_code == 302
    assert client_of(world.alice).get(address).status_code == 405
    environment.volume.refresh_from_db()
    assert environment.volume.purge_requested_at is None


def test_only_staff_is_shown_the_way_to_the_administration(world: World, client_of: Callable[[User], Client]) -> None:
    assert b'href="/admin/"' in client_of(world.admin).get("/").content
    assert b'href="/admin/"' not in client_of(world.lena).get("/").content
