"""What the pages say of the queue, of approvals and of what happens by itself, and what their buttons do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.template.loader import render_to_string
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from portal.domain import services
from portal.domain.models import Approval, ApprovalRule, Environment, Notification, Priority, Template, User

from .world import World, launch, run_notebook

ClientOf = Callable[[User], Client]
LAUNCH = {"name": "train", "team": "vision", "flavor": "small", "expires_in": "28800"}


def page_of(client: Client, row: Environment) -> str:
    return client.get(reverse("environment", args=[row.pk])).content.decode()


def write(row: Environment, **fields: Any) -> None:
    Environment.objects.filter(pk=row.pk).update(**fields)


def running(world: World, name: str = "train") -> Environment:
    row = launch(world.alice, name)
    run_notebook(row)
    row.refresh_from_db()
    return row


def waiting(world: World, **queue: Any) -> Environment:
    row = launch(world.alice, "train")
    services.environment_move(row.pk, "queued")
    told = {"position": 2, "ahead": 1, "code": "WaitingForRoom", "message": "waiting for 1 x a100: 0 free, 1 environment ahead", "eta": None}
    write(row, admitted_at=None, queue=told | queue)
    return row


# --- the queue --------------------------------------------------------------------
def test_one_that_waits_shows_its_place_why_and_that_no_start_can_be_estimated(world: World, client_of: ClientOf) -> None:
    text = page_of(client_of(world.alice), waiting(world))
    assert 'id="queue-position">2<' in text
    assert "Waiting for 1 x a100: 0 free, 1 environment ahead" in text
    assert "not known" in text


def test_an_estimate_is_a_range_in_the_time_zone_of_the_one_who_looks(world: World, client_of: ClientOf) -> None:
    row = waiting(world, eta={"earliest": "2026-12-01T09:00:00Z", "latest": "2026-12-01T11:30:00Z"})
    services.preferences_set(actor=world.alice, timezone="Asia/Shanghai")
    text = page_of(client_of(world.alice), row)
    assert ">2026-12-01 17:00</time>" in text
    assert ">2026-12-01 19:30</time>" in text
    assert "Asia/Shanghai" in text
    assert 'datetime="2026-12-01T09:00:00Z"' in text


def test_one_that_runs_has_no_place_in_the_queue(world: World, client_of: ClientOf) -> None:
    assert 'id="queue-card"' not in page_of(client_of(world.alice), running(world))


def test_the_queue_page_names_only_what_one_may_see(world: World, client_of: ClientOf) -> None:
    waiting(world)
    assert b"train" in client_of(world.alice).get("/queue/").content
    assert b"train" in client_of(world.lena).get("/queue/").content
    outside = client_of(world.bob).get("/queue/").content
    assert b"of another team" in outside
    assert b"train" not in outside
    assert b"Vision" not in outside


# --- what happens by itself ---------------------------------------------------------
def test_a_warned_expiry_offers_to_extend_with_one_click(world: World, client_of: ClientOf) -> None:
    row, client = running(world), client_of(world.alice)
    assert "notice-expiry" not in page_of(client, row)
    write(row, expires_at=timezone.now() + timedelta(minutes=20), expiry_warned_at=timezone.now())
    text = page_of(client, row)
    default = int(services.environment_preview(actor=world.alice, name="x", template="notebook", flavor="small", team="vision").expires_in.total_seconds())
    assert "notice-expiry" in text
    assert f'name="expires_in" value="{default}"' in text
    client.post(reverse("environment_extend", args=[row.pk]), {"expires_in": str(default)})
    assert "notice-expiry" not in page_of(client, row)
    row.refresh_from_db()
    assert row.expires_in == default


def test_a_warning_of_idleness_can_be_answered(world: World, client_of: ClientOf) -> None:
    row, client = running(world), client_of(world.alice)
    since = timezone.now() - timedelta(minutes=50)
    write(row, idle_since=since, idle_warned_at=timezone.now(), template_spec=row.template_spec | {"idle": {"after": "1h", "warn": "10m"}})
    assert "It seems unused and is stopped" in page_of(client, row)
    assert client.post(reverse("environment_in_use", args=[row.pk])).status_code == 302
    assert "notice-idle" not in page_of(client, row)
    # a sample that still sees nothing does not take it back
    assert services.activity_record(row.pk, {"notebook": {"last": since.isoformat(), "kernels_busy": 0}}) == "idle"
    row.refresh_from_db()
    assert row.idle_since
    assert row.idle_since > since
    assert row.idle_warned_at is None


def test_one_that_makes_room_for_another_says_when(world: World, client_of: ClientOf) -> None:
    row = running(world)
    write(row, preempt_at=timezone.now() + timedelta(minutes=2))
    assert "for one of higher priority" in page_of(client_of(world.alice), row)


def test_a_planned_deletion_is_said_and_can_be_called_off(world: World, client_of: ClientOf) -> None:
    row, client = running(world), client_of(world.alice)
    services.environment_stop(actor=world.alice, environment_id=row.pk)
    for state in ("stopping", "stopped"):
        services.environment_move(row.pk, state, reason="Idle", message="Nobody has used it.")
    write(row, delete_at=timezone.now() + timedelta(days=3))
    text = page_of(client, row)
    assert "if it stays stopped" in text
    assert "Nobody has used it." in text
    client.post(reverse("environment_keep", args=[row.pk]))
    row.refresh_from_db()
    assert row.delete_at is None
    assert "if it stays stopped" not in page_of(client, row)


def test_a_schedule_is_set_shown_and_taken_away(world: World, client_of: ClientOf) -> None:
    row, client = running(world), client_of(world.alice)
    address = reverse("environment_schedule", args=[row.pk])
    client.post(
        address, {"schedule_days": ["1", "2", "3", "4", "5"], "schedule_start": "09:00", "schedule_stop": "20:00", "schedule_timezone": "Asia/Shanghai"}
    )
    row.refresh_from_db()
    assert row.schedule == {"start": "09:00", "stop": "20:00", "days": [1, 2, 3, 4, 5], "timezone": "Asia/Shanghai"}
    assert "Mon–Fri from 09:00 to 20:00 (Asia/Shanghai)" in page_of(client, row)
    refused = client.post(address, {"schedule_start": "09:00", "schedule_timezone": "UTC"}, follow=True)
    assert b"at least one" in refused.content
    client.post(address, {"remove": "1"})
    row.refresh_from_db()
    assert row.schedule == {}


# --- launching ------------------------------------------------------------------------
def test_priorities_are_offered_only_where_there_is_a_choice(world: World, client_of: ClientOf) -> None:
    assert 'name="priority"' not in client_of(world.alice).get("/launch/notebook/").content.decode()
    Priority.objects.create(slug="normal", title={"en": "Normal"}, value=50)
    Priority.objects.create(slug="low", title={"en": "Low"}, value=10)
    Priority.objects.create(slug="urgent", title={"en": "Urgent"}, value=90, leads_only=True)
    text = client_of(world.alice).get("/launch/notebook/").content.decode()
    assert '<option value="low">Low</option>' in text
    assert "Urgent" not in text
    assert '<option value="urgent">Urgent</option>' in client_of(world.lena).get("/launch/notebook/").content.decode()
    client = client_of(world.alice)
    assert client.post("/launch/notebook/", LAUNCH | {"priority": "urgent"}).status_code == 422
    assert client.post("/launch/notebook/", LAUNCH | {"priority": "low"}).status_code == 302
    assert Environment.objects.get().priority == "low"


def test_a_launch_with_a_schedule_and_one_whose_schedule_is_wrong(world: World, client_of: ClientOf) -> None:
    client = client_of(world.alice)
    fields = {"schedule_days": ["6"], "schedule_stop": "18:00", "schedule_timezone": "UTC"}
    refused = client.post("/launch/notebook/", LAUNCH | fields | {"schedule_stop": "soon"})
    assert refused.status_code == 422
    assert refused.context["form"].errors["schedule_stop"]
    assert client.post("/launch/notebook/", LAUNCH | fields).status_code == 302
    assert Environment.objects.get().schedule == {"start": None, "stop": "18:00", "days": [6], "timezone": "UTC"}


def test_a_preview_says_when_it_starts_what_it_costs_and_who_has_to_agree(world: World, client_of: ClientOf) -> None:
    ApprovalRule.objects.create(template=Template.objects.get(slug="notebook"))
    text = client_of(world.alice).post("/launch/notebook/preview", LAUNCH | {"flavor": "a100-1"}).content.decode()
    assert "Needs approval by lena." in text
    assert "at most 8 accelerator-hours" in text
    assert "at once: there is room" in text


# --- approvals ---------------------------------------------------------------------------
@pytest.fixture
def asked(world: World) -> Environment:
    """A Dask cluster of Alice's that waits for approval."""
    ApprovalRule.objects.create(template=Template.objects.get(slug="dask"))
    return launch(world.alice, "sweep", "dask", workers=4)


def test_the_asker_sees_the_state_and_the_lead_a_way_to_answer(world: World, asked: Environment, client_of: ClientOf) -> None:
    text = page_of(client_of(world.alice), asked)
    assert "approval-card" in text
    assert "lena" in text
    assert 'id="decide"' not in text
    assert 'id="decide"' in page_of(client_of(world.lena), asked)
    assert 'id="approvals-count">1<' in client_of(world.lena).get("/").content.decode()
    assert "approvals-count" not in client_of(world.alice).get("/").content.decode()


def test_a_lead_approves_less_and_the_asker_reads_the_note(world: World, asked: Environment, client_of: ClientOf) -> None:
    lena, approval = client_of(world.lena), Approval.objects.get()
    assert b"sweep" in lena.get("/approvals/").content
    fragment = lena.get(reverse("approval", args=[approval.pk]), headers={"HX-Request": "true"}).content
    assert b"<dialog" in fragment
    assert b"<html" not in fragment
    more = lena.post(reverse("approval_decide", args=[approval.pk]), {"answer": "approve", "workers": "5"})
    assert more.status_code == 422
    assert more.context["form"].errors["workers"]
    done = lena.post(reverse("approval_decide", args=[approval.pk]), {"answer": "approve", "workers": "2", "note": "start small"}, follow=True)
    assert b"Approved." in done.content
    asked.refresh_from_db()
    assert (asked.state, asked.workers) == ("queued", 2)
    assert "start small" in page_of(client_of(world.alice), asked)


def test_a_refusal_without_a_reason_is_refused(world: World, asked: Environment, client_of: ClientOf) -> None:
    lena, address = client_of(world.lena), reverse("approval_decide", args=[Approval.objects.get().pk])
    refused = lena.post(address, {"answer": "refuse", "note": " "})
    assert refused.status_code == 422
    assert refused.context["form"].errors["note"]
    assert lena.post(address, {"answer": "refuse", "note": "too large"}).status_code == 302
    asked.refresh_from_db()
    assert (asked.state, asked.reason) == ("failed", "Refused")
    assert "too large" in page_of(client_of(world.alice), asked)


def test_nobody_else_answers_and_outsiders_see_nothing(world: World, asked: Environment, client_of: ClientOf) -> None:
    approval = Approval.objects.get()
    for name in ("approval", "approval_decide"):
        address = reverse(name, args=[approval.pk])
        for stranger in (world.bob, world.charlie):
            client = client_of(stranger)
            response = client.get(address) if name == "approval" else client.post(address, {"answer": "approve"})
            assert response.status_code == 404
            assert b"sweep" not in response.content
        assert Client().post(address).status_code in (302, 405)
    assert b"sweep" not in client_of(world.bob).get("/approvals/").content
    assert client_of(world.alice).post(reverse("approval_decide", args=[approval.pk]), {"answer": "approve"}).status_code in (403, 422)
    approval.refresh_from_db()
    assert approval.status == "pending"


# --- notifications, settings, usage ---------------------------------------------------------
def test_the_bell_counts_what_is_unread_and_reading_leads_there(world: World, client_of: ClientOf) -> None:
    row, client = running(world), client_of(world.alice)
    Notification.objects.all().delete()
    services.notify([world.alice], "ExpirySoon", "train is stopped in 20 minutes", row, source="a")
    services.notify([world.alice], "Note", "<b>hello</b>", source="b")
    services.notify([world.bob], "Note", "for bob only", source="c")
    assert 'data-unread="2"' in client.get("/notifications/bell").content.decode()
    text = client.get("/notifications/").content.decode()
    assert "&lt;b&gt;hello" in text
    assert "for bob only" not in text
    first = Notification.objects.get(source="a")
    assert client.post("/notifications/read", {"id": first.pk, "go": "1"})["Location"] == f"/environments/{row.pk}/"
    assert 'data-unread="1"' in client.get("/notifications/bell").content.decode()
    client.post("/notifications/read", {"id": Notification.objects.get(source="c").pk})
    client.post("/notifications/read")
    assert 'data-unread="0"' in client.get("/notifications/bell").content.decode()
    assert Notification.objects.get(source="c").read_at is None


def test_a_bell_without_a_session_does_not_take_the_page_away(world: World) -> None:
    response = Client().get("/notifications/bell", headers={"HX-Request": "true"})
    assert response.status_code == 204
    assert "HX-Refresh" not in response


@pytest.mark.parametrize("address", ["/queue/", "/approvals/", "/usage/", "/notifications/", "/settings/"])
def test_every_new_page_leads_a_stranger_to_the_sign_in_page(address: str, world: World) -> None:
    assert Client().get(address)["Location"] == f"/accounts/login/?next={address}"


def test_settings_are_kept_and_a_wrong_one_is_refused(world: World, client_of: ClientOf) -> None:
    client = client_of(world.alice)
    assert client.post("/settings/", {"timezone": "Mars/Base"}).status_code == 422
    response = client.post("/settings/", {"timezone": "Asia/Shanghai", "language": "zh-hans"})
    assert response.status_code == 302
    world.alice.refresh_from_db()
    assert (world.alice.timezone, world.alice.language) == ("Asia/Shanghai", "zh-hans")
    text = client.get("/settings/").content.decode()
    assert '<html lang="zh-Hans" data-timezone="Asia/Shanghai">' in text


def test_usage_is_shown_for_a_period_and_comes_as_csv(world: World, client_of: ClientOf) -> None:
    row = running(world)
    row.usage.all().delete()
    start = timezone.now() - timedelta(hours=2)
    row.usage.create(team=world.vision, owner=world.alice, resource="cpu", amount=2000, started_at=start, ended_at=start + timedelta(hours=1))
    client, day = client_of(world.alice), start.date().isoformat()
    text = client.get(f"/usage/?from={day}").content.decode()
    assert "alice" in text
    assert "2.00" in text
    table = client.get(f"/usage/?from={day}&group_by=template&format=csv")
    assert table["Content-Type"].startswith("text/csv")
    assert table.content.decode().splitlines()[1] == "notebook,1,0.0000,0.0000,2.0000,0.0000"
    assert b"alice" not in client_of(world.bob).get(f"/usage/?from={day}").content
    for wrong in ("from=soon", "from=2026-02-30", "from=2026-03-01&to=2026-02-01"):
        assert b"alert-warning" in client.get(f"/usage/?{wrong}").content


def test_the_quota_page_reads_weighted_accelerators_and_the_months_budget(world: World, client_of: ClientOf) -> None:
    services.quota_set(actor=None, team=world.vision, user=None, resource="accelerators", limit=2500)
    services.quota_set(actor=None, team=world.vision, user=None, resource="accelerator_seconds", limit=360_000)
    text = client_of(world.alice).get("/quotas/").content.decode()
    assert "0 of 2.5" in text
    assert "0 h of 100 h" in text
    assert "Accelerator-hours this month" in text


@pytest.mark.parametrize(("minutes", "said"), [(0, "about"), (1, "about"), (45, "between")])
def test_a_range_within_minutes_is_told_as_one_time(minutes: int, said: str) -> None:
    earliest = datetime(2026, 11, 23, 8, 47, tzinfo=UTC)
    told = render_to_string("web/_eta.html", {"earliest": earliest, "latest": (earliest + timedelta(minutes=minutes)).isoformat()})
    assert told.startswith(said)
    assert told.count("<time") == (1 if said == "about" else 2)
