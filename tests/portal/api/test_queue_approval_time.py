"""The queue, approvals, schedules, notifications and usage over REST."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from portal.domain import services
from portal.domain.models import Approval, ApprovalRule, Environment, Flavor, Notification, Template
from tests.portal.world import World, node

NOTEBOOK = {"name": "nb", "template": "notebook", "flavor": "cpu-small"}
DASK = {"name": "dk", "template": "dask", "flavor": "cpu-small", "params": {"workers": 4}}
WORKDAYS = {"start": "09:00", "stop": "20:00", "days": [1, 2, 3, 4, 5], "timezone": "Asia/Shanghai"}


@pytest.fixture
def rule(world: World) -> ApprovalRule:
    """Dask clusters need approval."""
    return ApprovalRule.objects.create(template=Template.objects.get(slug="dask"))


def ask(alice: Any, **changes: Any) -> tuple[str, int]:
    made = alice("POST", "/environments", DASK | changes).json()
    assert made["state"] == "awaiting_approval", made
    return made["id"], made["approval"]["id"]


# --- the queue ------------------------------------------------------------------
def test_one_that_waits_tells_its_place_and_an_estimate_or_that_none_is_known(world: World, alice: Any) -> None:
    environment = world.bring_to(world.request(), "queued")
    assert alice("GET", f"/environments/{environment.pk}").json()["queue"] is None, "the queue has not looked at it yet"
    told = {"position": 2, "ahead": 1, "code": "WaitingForRoom", "message": "waiting for 1 x pod: 0 free, 1 environment ahead", "eta": None}
    Environment.objects.filter(pk=environment.pk).update(queue=told)
    assert alice("GET", f"/environments/{environment.pk}").json()["queue"] == told
    eta = {"earliest": "2026-12-01T09:00:00Z", "latest": "2026-12-01T11:00:00Z"}
    Environment.objects.filter(pk=environment.pk).update(queue=told | {"eta": eta})
    assert alice("GET", "/environments").json()["results"][0]["queue"]["eta"] == eta
    theirs = {"position": None, "ahead": None, "code": "WaitingForVolcano", "message": "waiting for Volcano", "eta": None}
    Environment.objects.filter(pk=environment.pk).update(queue=theirs)
    assert alice("GET", f"/environments/{environment.pk}").json()["queue"] == theirs, "a queue that tells no position does not stand at 0"
    world.bring_to(environment, "provisioning")
    assert alice("GET", f"/environments/{environment.pk}").json()["queue"] is None


def test_the_queue_names_to_everyone_only_what_he_may_see(world: World, alice: Any, caller: Callable[..., Any]) -> None:
    environment = world.bring_to(world.request(), "queued")
    Environment.objects.filter(pk=environment.pk).update(admitted_at=None)
    other = world.bring_to(world.request(actor=world.bob, team="speech", name="secret"), "queued")
    Environment.objects.filter(pk=other.pk).update(admitted_at=None)
    rows = alice("GET", "/queue").json()["results"]
    assert [row["position"] for row in rows] == [1, 2]
    assert {row["name"] for row in rows} == {"nb", None}
    assert "secret" not in alice("GET", "/queue").content.decode()
    assert "speech" not in alice("GET", "/queue").content.decode()


def test_the_priorities_name_the_teams_in_which_one_may_use_each(world: World, alice: Any, caller: Callable[..., Any]) -> None:
    rows = {row["slug"]: row for row in alice("GET", "/priorities").json()["results"]}
    assert [slug for slug, row in rows.items() if row["default"]] == ["normal"]
    assert rows["normal"]["teams"] == ["vision"]
    refused = [slug for slug, row in rows.items() if not row["teams"]]
    for slug in refused:
        response = alice("POST", "/environments", NOTEBOOK | {"priority": slug})
        assert response.status_code == 422
        assert "priority" in response.json()["errors"]
    made = alice("POST", "/environments", NOTEBOOK | {"priority": "low"}).json()
    assert made["priority"] == "low"
    assert alice("POST", "/environments", NOTEBOOK | {"name": "x", "priority": "nonsense"}).status_code == 422


def test_a_dry_run_tells_place_approval_and_cost(world: World, alice: Any, rule: ApprovalRule) -> None:
    services.nodes_observed([node("gpu", cpu=128, gib=1024, devices={"nvidia.com/gpu": 8}, labels={"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"})])
    world.limit("accelerator:nvidia-a100-80g", 8)
    flavor = Flavor.objects.get(slug="a100-1")
    Flavor.objects.exclude(pk=flavor.pk).filter(accelerator__isnull=False).delete()
    body = alice("POST", "/environments?dry_run=true", DASK | {"flavor": "a100-1", "params": {"workers": 2}, "expires_in": "3h"}).json()
    assert body["approval"]["approvers"] == ["lena"]
    assert "dask" in body["approval"]["why"][0]
    weight = flavor.accelerator.quota_weight if flavor.accelerator else 0
    assert body["cost_accelerator_hours"] == pytest.approx(2 * 3 * weight)
    assert body["queue"] is None or body["queue"]["position"] == 0
    plain = alice("POST", "/environments?dry_run=true", NOTEBOOK).json()
    assert (plain["approval"], plain["cost_accelerator_hours"]) == (None, 0)
    assert not Environment.objects.exists()


# --- approvals ------------------------------------------------------------------
def test_a_lead_approves_with_less_and_the_asker_is_told(world: World, alice: Any, caller: Callable[..., Any], rule: ApprovalRule) -> None:
    environment, approval = ask(alice)
    lena = caller("lena")
    (row,) = lena("GET", "/approvals?status=pending").json()["results"]
    assert (row["id"], row["asked_by"], row["requested"]["workers"], row["granted"]) == (approval, "alice", 4, None)
    assert lena("GET", "/approvals?decidable=true").json()["results"] == [row]
    assert alice("GET", "/approvals?decidable=true").json()["results"] == []
    assert alice("GET", f"/approvals/{approval}").json() == row
    answer = lena("POST", f"/approvals/{approval}/approve", {"workers": 2, "expires_in": "1h", "note": "start small"})
    assert answer.status_code == 200, answer.content
    assert (answer.json()["status"], answer.json()["decided_by"], answer.json()["note"]) == ("approved", "lena", "start small")
    assert answer.json()["granted"] == {"flavor": "cpu-small", "workers": 2, "expires_in": "1h"}
    after = alice("GET", f"/environments/{environment}").json()
    assert (after["state"], after["workers"], after["expires_in"], after["approval"]) == ("queued", 2, "1h", None)
    assert any("start small" in note["message"] for note in alice("GET", "/notifications").json()["results"])
    again = lena("POST", f"/approvals/{approval}/refuse", {"note": "too late"})
    assert (again.status_code, "approved" in again.json()["detail"]) == (409, True)


def test_a_refusal_needs_a_reason_which_the_asker_reads(world: World, alice: Any, caller: Callable[..., Any], rule: ApprovalRule) -> None:
    environment, approval = ask(alice)
    lena = caller("lena")
    for body in ({}, {"note": ""}, {"note": "   "}, {"note": 5}, {"note": "x", "because": "y"}):
        assert lena("POST", f"/approvals/{approval}/refuse", body).status_code == 422
    assert lena("POST", f"/approvals/{approval}/refuse", {"note": "use the small one"}).json()["status"] == "refused"
    after = alice("GET", f"/environments/{environment}").json()
    assert (after["state"], after["reason"]) == ("failed", "Refused")
    assert "use the small one" in after["message"]


@pytest.mark.parametrize("body", [{"workers": 5}, {"workers": "2"}, {"flavor": "cpu-large"}, {"flavor": "nope"}, {"expires_in": "9d"}, {"quota": 1}])
def test_more_than_was_asked_for_cannot_be_approved(world: World, alice: Any, caller: Callable[..., Any], rule: ApprovalRule, body: dict[str, Any]) -> None:
    environment, approval = ask(alice)
    assert caller("lena")("POST", f"/approvals/{approval}/approve", body).status_code == 422
    assert alice("GET", f"/environments/{environment}").json()["state"] == "awaiting_approval"


def test_nobody_approves_his_own_and_who_is_no_lead_approves_nothing(world: World, alice: Any, caller: Callable[..., Any], rule: ApprovalRule) -> None:
    _, approval = ask(alice)
    answer = alice("POST", f"/approvals/{approval}/approve", {})
    assert (answer.status_code, "lena" in answer.json()["detail"]) == (403, True)
    for stranger in ("bob", "charlie"):
        assert caller(stranger)("POST", f"/approvals/{approval}/approve", {}).status_code == 404
    assert Approval.objects.get().status == "pending"


def test_an_answer_repeated_with_its_key_has_its_effect_once(world: World, alice: Any, caller: Callable[..., Any], rule: ApprovalRule) -> None:
    _, approval = ask(alice)
    lena, key = caller("lena"), {"Idempotency-Key": "k"}
    first = lena("POST", f"/approvals/{approval}/approve", {}, **key)
    second = lena("POST", f"/approvals/{approval}/approve", {}, **key)
    assert (first.status_code, second.status_code, second.json()) == (200, 200, first.json())


def test_an_unknown_status_or_approval_is_told(alice: Any) -> None:
    assert alice("GET", "/approvals?status=perhaps").status_code == 422
    assert alice("GET", "/approvals/99999999999999999999").status_code == 404


# --- time -----------------------------------------------------------------------
def test_a_schedule_is_set_with_the_request_changed_and_taken_away(alice: Any, world: World) -> None:
    made = alice("POST", "/environments", NOTEBOOK | {"schedule": WORKDAYS}).json()
    assert made["schedule"] == WORKDAYS
    assert made["schedule_next_at"] > timezone.now().isoformat()[:16]
    address = f"/environments/{made['id']}"
    changed = alice("PATCH", address, {"schedule": {"stop": "18:30"}}).json()["schedule"]
    assert changed == {"start": None, "stop": "18:30", "days": [1, 2, 3, 4, 5], "timezone": "UTC"}
    for wrong in ("daily", [], {"start": "25:00"}, {"start": "09:00", "days": []}, {"start": "9"}, {"stop": "09:00", "timezone": "Mars/Base"}, {"when": "now"}):
        response = alice("PATCH", address, {"schedule": wrong})
        assert response.status_code == 422, wrong
        assert any(key.startswith("schedule") for key in response.json()["errors"])
    assert alice("PATCH", address, {"schedule": None}).json()["schedule"] is None


def test_one_that_would_be_deleted_can_be_kept(world: World, alice: Any) -> None:
    environment = world.bring_to(world.running(), "stopping", "stopped")
    Environment.objects.filter(pk=environment.pk).update(desired="stopped", delete_at=timezone.now() + timedelta(days=2))
    address = f"/environments/{environment.pk}"
    assert alice("GET", address).json()["delete_at"]
    assert alice("POST", f"{address}/keep").json()["delete_at"] is None
    assert alice("POST", f"{address}/keep").status_code == 409


def test_time_zone_and_language_are_ones_own(alice: Any, world: World) -> None:
    assert alice("PATCH", "/me", {"timezone": "Asia/Shanghai", "language": "zh-hans"}).json()["timezone"] == "Asia/Shanghai"
    me = alice("GET", "/me").json()
    assert (me["timezone"], me["language"]) == ("Asia/Shanghai", "zh-hans")
    for wrong in ({"timezone": "Mars/Base"}, {"language": "tlh"}, {}, {"is_staff": True}, {"timezone": 8}, {"timezone": "/etc/passwd"}):
        assert alice("PATCH", "/me", wrong).status_code == 422
    world.alice.refresh_from_db()
    assert (world.alice.timezone, world.alice.is_staff) == ("Asia/Shanghai", False)
    assert alice("PATCH", "/me", {"timezone": ""}).json()["timezone"] == ""


# --- notifications and usage -------------------------------------------------------
def test_notifications_are_ones_own_and_are_read_by_number_or_all_at_once(world: World, alice: Any, caller: Callable[..., Any]) -> None:
    for number in range(3):
        services.notify([world.alice, world.lena], "Note", f"note {number}", source=f"n{number}")
    rows = alice("GET", "/notifications?unread=true").json()["results"]
    assert [row["message"] for row in rows] == ["note 2", "note 1", "note 0"]
    lenas = Notification.objects.filter(user=world.lena).values_list("pk", flat=True)
    assert alice("POST", "/notifications/read", {"ids": [rows[0]["id"], *lenas]}).json() == {"read": 1}
    assert len(alice("GET", "/notifications?unread=true").json()["results"]) == 2
    assert alice("POST", "/notifications/read", {}).json() == {"read": 2}
    assert alice("GET", "/notifications").json()["results"][0]["read_at"]
    assert Notification.objects.filter(user=world.lena, read_at=None).count() == 3
    for wrong in ({"ids": ["1"]}, {"ids": [0]}, {"ids": 1}, {"all": True}):
        assert alice("POST", "/notifications/read", wrong).status_code == 422


def test_usage_tells_hours_of_what_one_may_see(world: World, alice: Any, caller: Callable[..., Any]) -> None:
    environment = world.bring_to(world.request(), "queued")
    assert services.queue_admit(environment.pk) or True
    usage = environment.usage.filter(resource="cpu")
    usage.delete()
    start = timezone.now() - timedelta(hours=2)
    environment.usage.create(
        team=world.vision, owner=world.alice, resource="cpu", amount=2000, started_at=start, ended_at=start + timedelta(hours=1, minutes=30)
    )
    day = start.date().isoformat()
    (row,) = alice("GET", f"/usage?from={day}&group_by=user").json()["results"]
    assert (row["key"], row["cpu_hours"]) == ("alice", 3.0)
    (row,) = caller("lena")("GET", f"/usage?from={day}&group_by=template").json()["results"]
    assert row["key"] == "notebook"
    assert caller("bob")("GET", f"/usage?from={day}").json()["results"] == []
    assert alice("GET", "/usage?from=2020-01-01&to=2020-01-31").json()["results"] == []
    for wrong in ("?from=soon", "?from=2026-13-01", "?group_by=mood", "?from=2026-02-01&to=2026-01-01"):
        assert alice("GET", f"/usage{wrong}").status_code == 422, wrong
