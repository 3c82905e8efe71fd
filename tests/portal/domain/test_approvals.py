"""What goes beyond self-service waits for somebody to approve it, who is not the one who asks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from portal.domain import selectors, services
from portal.domain.errors import Conflict, Forbidden, NotFound, QuotaExceeded, ValidationError
from portal.domain.lifecycle import Desired, State
from portal.domain.models import Approval, ApprovalRule, Environment, Event, Flavor, Membership, Notification, Team, Template, User
from tests.portal.world import World


def rule(**fields: Any) -> ApprovalRule:
    for key, model in (("template", Template), ("flavor", Flavor)):
        if key in fields:
            fields[key] = model.objects.get(slug=fields[key])
    return ApprovalRule.objects.create(**fields)


def codes(environment: Environment) -> list[str]:
    return list(Event.objects.filter(environment=environment).order_by("seq").values_list("code", flat=True))


def told(user: User) -> list[str]:
    return list(Notification.objects.filter(user=user).order_by("pk").values_list("code", flat=True))


def asked(world: World, **changes: Any) -> tuple[Environment, Approval]:
    """Alice asks for a medium notebook, which has to be approved."""
    rule(flavor="cpu-medium")
    environment = world.request(**({"flavor": "cpu-medium"} | changes))
    return environment, Approval.objects.get(environment=environment)


def as_stored(environment: Environment) -> Environment:
    return Environment.objects.get(pk=environment.pk)


# --- the threshold ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "wish", "says"),
    [
        ({"template": "notebook"}, {}, "Template notebook needs approval in team vision."),
        ({"flavor": "cpu-medium"}, {"flavor": "cpu-medium"}, "Flavor cpu-medium needs approval in team vision."),
        ({"template": "notebook", "flavor": "cpu-small"}, {}, "Template notebook with flavor cpu-small needs approval in team vision."),
        ({"resource": "cpu", "above": 500}, {}, "It takes 1 CPU; up to 0.5 CPU needs no approval."),
        ({"resource": "hours", "above": 4}, {}, "It is to run for 8h; up to 4h needs no approval."),
        ({"resource": "storage", "above": 2**30}, {}, "It takes 10 GiB storage; up to 1 GiB storage needs no approval."),
        (
            {"template": "dask", "resource": "cpu", "above": 4000},
            {"template": "dask", "name": "dk", "params": {"workers": 4}},
            "It takes 5 CPU; up to 4 CPU needs no approval.",
        ),
    ],
)
def test_a_request_beyond_a_rule_waits_and_says_why(world: World, fields: dict[str, Any], wish: dict[str, Any], says: str) -> None:
    rule(**fields)
    whole: dict[str, Any] = {"actor": world.alice, "name": "nb", "template": "notebook", "flavor": "cpu-small", "team": ""}
    preview = services.environment_preview(**(whole | wish))
    assert preview.approval == (says,)
    assert preview.allowed
    environment = world.request(**wish)
    assert (environment.state, environment.reserved, environment.expires_at) == (State.AWAITING_APPROVAL, {}, None)
    assert Approval.objects.get(environment=environment).why == [says]
    assert codes(environment) == ["Requested", "AwaitingApproval", "ApprovalNeeded"]
    assert environment.message == "Waiting for approval by lena."


@pytest.mark.parametrize(
    "fields",
    [
        {"template": "dask"},
        {"flavor": "cpu-medium"},
        {"template": "notebook", "flavor": "cpu-medium"},
        {"resource": "cpu", "above": 1000},
        {"resource": "hours", "above": 8},
        {"template": "dask", "resource": "cpu", "above": 0},
        {"template": "notebook", "enabled": False},
    ],
)
def test_a_request_within_every_rule_does_not_wait(world: World, fields: dict[str, Any]) -> None:
    rule(**fields)
    rule(team=Team.objects.get(slug="speech"), template="notebook")
    assert world.request().state == State.REQUESTED


def test_a_full_quota_does_not_keep_one_from_asking_but_full_storage_does(world: World) -> None:
    rule(template="notebook")
    world.limit("cpu", 0)
    wish: dict[str, Any] = {"actor": world.alice, "name": "nb", "template": "notebook", "flavor": "cpu-small", "team": ""}
    preview = services.environment_preview(**wish)
    assert (preview.allowed, [effect.fits for effect in preview.quota if effect.resource == "cpu"]) == (True, [False, True])
    world.limit("storage", 0)
    assert not services.environment_preview(**wish).allowed
    with pytest.raises(QuotaExceeded, match="storage"):
        services.environment_request(**wish)
    world.limit("storage", None)
    assert services.environment_request(**wish).state == State.AWAITING_APPROVAL


def test_of_several_limits_the_lowest_counts_and_every_reason_is_told(world: World) -> None:
    rule(resource="cpu", above=800)
    rule(resource="cpu", above=500, team=world.vision)
    rule(template="notebook")
    preview = services.environment_preview(actor=world.alice, name="nb", template="notebook", flavor="cpu-small", team="")
    assert set(preview.approval) == {"Template notebook needs approval in team vision.", "It takes 1 CPU; up to 0.5 CPU needs no approval."}


# --- asking and answering ---------------------------------------------------------


def test_while_it_waits_it_holds_no_compute_quota_and_the_lead_is_told(world: World) -> None:
    environment, approval = asked(world)
    assert [world.used(r) for r in ("environments", "cpu", "memory")] == [0, 0, 0]
    assert services.quota_recompute() == []
    assert told(world.lena) == ["ApprovalAsked"]
    assert told(world.admin) == told(world.alice) == []
    assert list(selectors.approvals_decidable_by(world.lena)) == [approval]
    assert list(selectors.approvals_visible_to(world.alice)) == [approval]
    assert not selectors.approvals_decidable_by(world.alice).exists()
    assert list(selectors.approvals_decidable_by(world.admin)) == [approval]
    assert approval.requested == {"flavor": "cpu-medium", "workers": 0, "expires_in": 8 * 3600}
    assert not services.environment_move(environment.pk, "queued"), "the observer cannot let it pass"


def test_an_approved_request_is_queued_with_its_quota_and_its_time_begins(world: World) -> None:
    environment, approval = asked(world)
    done = services.approval_grant(actor=world.lena, approval_id=approval.pk, note="for the deadline")
    environment = as_stored(environment)
    assert (environment.state, environment.reserved["cpu"]) == (State.QUEUED, 2000)
    assert environment.expires_at is not None
    assert (done.status, done.decided_by, done.note) == ("approved", world.lena, "for the deadline")
    assert done.granted == approval.requested
    event = Event.objects.get(environment=environment, code="Approved")
    assert (event.actor, event.message) == (world.lena, "lena approved it: for the deadline")
    assert told(world.alice) == ["Approved"]
    assert world.used("cpu") == 2000
    assert environment.approved["cpu"] == 2000
    assert environment.approved["hours"] == 8


def test_less_may_be_approved_and_is_what_is_reserved_and_kept(world: World) -> None:
    rule(template="dask")
    environment = world.request(template="dask", name="dk", flavor="cpu-medium", params={"workers": 4}, expires_in=timedelta(hours=10))
    approval = Approval.objects.get()
    services.approval_grant(actor=world.lena, approval_id=approval.pk, flavor="cpu-small", workers=2, expires_in=timedelta(hours=3))
    environment = as_stored(environment)
    assert (environment.flavor.slug, environment.workers, environment.params["workers"], environment.expires_in) == ("cpu-small", 2, 2, 3 * 3600)
    assert environment.reserved["cpu"] == 1000 + 2 * 1000
    approval.refresh_from_db()
    assert approval.granted == {"flavor": "cpu-small", "workers": 2, "expires_in": 3 * 3600}
    less = list(Event.objects.filter(environment=environment, code="ApprovedLess").values_list("message", flat=True))
    assert less == ["The flavor is cpu-small instead of cpu-medium.", "2 workers instead of 4.", "The running time is 3h instead of 10h."]


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"flavor": "cpu-large"}, "flavor"),
        ({"flavor": "gpu-1"}, "flavor"),
        ({"flavor": "nope"}, "flavor"),
        ({"workers": 5}, "workers"),
        ({"workers": 0}, "workers"),
        ({"workers": True}, "workers"),
        ({"expires_in": timedelta(hours=9)}, "expires_in"),
        ({"expires_in": timedelta(minutes=1)}, "expires_in"),
        ({"note": "x" * 1001}, "note"),
    ],
)
def test_more_than_was_asked_for_cannot_be_approved(world: World, wish: dict[str, Any], field: str) -> None:
    rule(template="dask")
    environment = world.request(template="dask", name="dk", flavor="cpu-medium", params={"workers": 4})
    approval = Approval.objects.get()
    with pytest.raises(ValidationError) as caught:
        services.approval_grant(actor=world.lena, approval_id=approval.pk, **wish)
    assert list(caught.value.errors) == [field]
    assert (as_stored(environment).state, world.used("cpu")) == (State.AWAITING_APPROVAL, 0)


def test_an_approval_that_finds_no_quota_is_refused_and_stays_open(world: World) -> None:
    environment, approval = asked(world)
    world.limit("cpu", 1500)
    with pytest.raises(QuotaExceeded):
        services.approval_grant(actor=world.lena, approval_id=approval.pk)
    assert as_stored(environment).state == State.AWAITING_APPROVAL
    services.approval_grant(actor=world.lena, approval_id=approval.pk, flavor="cpu-small")
    assert world.used("cpu") == 1000


def test_a_refusal_needs_a_reason_and_ends_in_failed_with_it(world: World) -> None:
    environment, approval = asked(world)
    with pytest.raises(ValidationError, match="Say why"):
        services.approval_refuse(actor=world.lena, approval_id=approval.pk, note="  ")
    services.approval_refuse(actor=world.lena, approval_id=approval.pk, note="use a small one")
    environment = as_stored(environment)
    assert (environment.state, environment.reason, environment.message) == (State.FAILED, "Refused", "lena refused it: use a small one")
    assert told(world.alice) == ["Refused"]
    assert Event.objects.get(environment=environment, to_state="failed").actor == world.lena
    services.environment_retry(actor=world.alice, environment_id=environment.pk)
    assert as_stored(environment).state == State.AWAITING_APPROVAL, "asked anew"


def test_a_second_answer_is_a_conflict_that_names_the_first(world: World) -> None:
    _, approval = asked(world)
    services.approval_grant(actor=world.lena, approval_id=approval.pk)
    with pytest.raises(Conflict, match="nb has been approved by lena already"):
        services.approval_refuse(actor=world.admin, approval_id=approval.pk, note="no")
    assert world.used("cpu") == 2000


def test_outsiders_are_told_there_is_no_such_question(world: World) -> None:
    _, approval = asked(world)
    for outsider in (world.bob, world.charlie):
        for key in (approval.pk, 10**30, "x", 0):
            with pytest.raises(NotFound):
                services.approval_grant(actor=outsider, approval_id=key)
            with pytest.raises(NotFound):
                services.approval_refuse(actor=outsider, approval_id=key, note="no")
        assert not selectors.approvals_visible_to(outsider).exists()
    with pytest.raises(Forbidden, match="ask lena"):
        services.approval_grant(actor=world.alice, approval_id=approval.pk)


# --- nobody approves his own --------------------------------------------------------


def test_a_lead_cannot_approve_his_own_and_with_no_other_lead_admins_are_asked(world: World) -> None:
    _, approval = asked(world, actor=world.lena)
    assert told(world.lena) == []
    assert told(world.admin) == ["ApprovalAsked"]
    with pytest.raises(Forbidden, match=r"Nobody approves what is his own; ask admin\."):
        services.approval_grant(actor=world.lena, approval_id=approval.pk)
    services.approval_grant(actor=world.admin, approval_id=approval.pk)


def test_where_the_team_allows_it_a_lead_approves_his_own_but_an_engineer_does_not(world: World) -> None:
    Team.objects.filter(pk=world.vision.pk).update(self_approval=True)
    _, approval = asked(world, actor=world.lena)
    assert told(world.lena) == ["ApprovalAsked"]
    services.approval_grant(actor=world.lena, approval_id=approval.pk)
    mine = world.request(flavor="cpu-medium")
    with pytest.raises(Forbidden):
        services.approval_grant(actor=world.alice, approval_id=Approval.objects.get(environment=mine).pk)


def test_an_admin_cannot_approve_what_he_started_for_somebody_else_or_owns(world: World) -> None:
    services.membership_set(actor=None, team=world.vision, user=world.admin, role=Membership.Role.ENGINEER)
    _, own = asked(world, actor=world.admin)
    with pytest.raises(Forbidden):
        services.approval_grant(actor=world.admin, approval_id=own.pk)
    environment = world.running(name="alices")
    services.environment_stop(actor=world.alice, environment_id=environment.pk)
    world.bring_to(environment, "stopping", "stopped")
    rule(template="notebook")
    services.environment_start(actor=world.admin, environment_id=environment.pk)
    asked_by_admin = Approval.objects.get(environment=environment)
    assert not selectors.approvals_decidable_by(world.admin).filter(pk=asked_by_admin.pk).exists()
    assert not selectors.approvals_decidable_by(world.alice).exists(), "nor may the owner"
    services.approval_grant(actor=world.lena, approval_id=asked_by_admin.pk)


# --- withdrawing, lapsing -----------------------------------------------------------


@pytest.mark.parametrize("verb", [services.environment_stop, services.environment_delete])
def test_stop_and_delete_withdraw_the_question(world: World, verb: Any) -> None:
    environment, approval = asked(world)
    verb(actor=world.alice, environment_id=environment.pk)
    approval.refresh_from_db()
    assert approval.status == "withdrawn"
    with pytest.raises(Conflict, match="withdrawn"):
        services.approval_grant(actor=world.lena, approval_id=approval.pk)
    world.bring_to(environment, "stopping" if verb is services.environment_stop else "deleting")
    assert services.quota_recompute() == []


def test_leaving_the_team_withdraws_the_question(world: World) -> None:
    _, approval = asked(world)
    services.membership_remove(actor=world.lena, team=world.vision, user=world.alice)
    approval.refresh_from_db()
    assert approval.status == "withdrawn"


def test_an_unanswered_question_lapses_once_and_can_be_asked_again(world: World) -> None:
    environment, approval = asked(world)
    services.timers_run()
    assert as_stored(environment).state == State.AWAITING_APPROVAL, "not yet"
    Approval.objects.filter(pk=approval.pk).update(lapses_at=timezone.now(), created_at=timezone.now() - timedelta(hours=72))
    assert services.timers_run()["lapse"] == 1
    assert services.timers_run()["lapse"] == 0
    environment = as_stored(environment)
    assert (environment.state, environment.reason) == (State.FAILED, "ApprovalLapsed")
    assert "Nobody answered for 3d" in environment.message
    assert told(world.alice) == ["ApprovalLapsed"]
    services.environment_retry(actor=world.alice, environment_id=environment.pk)
    assert Approval.objects.filter(environment=environment, status="pending").count() == 1


def test_what_waits_is_neither_scaled_nor_extended_nor_expired(world: World) -> None:
    rule(template="dask")
    environment = world.request(template="dask", name="dk", flavor="cpu-medium", params={"workers": 4})
    with pytest.raises(Conflict, match="waits for approval"):
        services.environment_scale(actor=world.alice, environment_id=environment.pk, workers=2)
    with pytest.raises(Conflict, match="waits for approval"):
        services.environment_extend(actor=world.alice, environment_id=environment.pk, expires_in=timedelta(hours=1))
    assert selectors.environments_expired(timezone.now() + timedelta(days=30)) == []


# --- what was approved --------------------------------------------------------------


def at_rest(world: World, environment: Environment) -> Environment:
    services.environment_stop(actor=world.alice, environment_id=environment.pk)
    return world.bring_to(environment, "stopping", "stopped")


def test_what_was_approved_starts_again_without_a_question_and_more_does_not(world: World) -> None:
    rule(template="dask")
    rule(resource="cpu", above=2000)
    environment = world.request(template="dask", name="dk", flavor="cpu-small", params={"workers": 4})
    services.approval_grant(actor=world.lena, approval_id=Approval.objects.get().pk)
    world.bring_to(environment, "provisioning", "running")
    at_rest(world, environment)
    assert services.environment_start(actor=world.alice, environment_id=environment.pk).state == State.QUEUED
    world.bring_to(environment, "provisioning", "running")

    with pytest.raises(Conflict, match=r"needs approval\. It takes 6 CPU; up to 2 CPU needs no approval\. Stop it") as caught:
        services.environment_scale(actor=world.alice, environment_id=environment.pk, workers=5)
    assert caught.value.code == "needs_approval"
    services.environment_scale(actor=world.alice, environment_id=environment.pk, workers=3)
    services.environment_scale(actor=world.alice, environment_id=environment.pk, workers=4)

    at_rest(world, environment)
    services.environment_scale(actor=world.alice, environment_id=environment.pk, workers=5)
    assert services.environment_start(actor=world.alice, environment_id=environment.pk).state == State.AWAITING_APPROVAL
    assert world.used("cpu") == 0


def test_extending_beyond_self_service_is_refused_and_within_it_is_not(world: World) -> None:
    environment = world.running()
    rule(resource="hours", above=12)
    with pytest.raises(Conflict, match=r"It is to run for 1d; up to 12h needs no approval"):
        services.environment_extend(actor=world.alice, environment_id=environment.pk, expires_in=timedelta(hours=24))
    services.environment_extend(actor=world.alice, environment_id=environment.pk, expires_in=timedelta(hours=12))
    at_rest(world, environment)
    services.environment_extend(actor=world.alice, environment_id=environment.pk, expires_in=timedelta(hours=24))
    assert services.environment_start(actor=world.alice, environment_id=environment.pk).state == State.AWAITING_APPROVAL
    assert as_stored(environment).desired == Desired.RUNNING
    services.approval_grant(actor=world.lena, approval_id=Approval.objects.get().pk)
    world.bring_to(environment, "provisioning", "running")
    services.environment_extend(actor=world.alice, environment_id=environment.pk, expires_in=timedelta(hours=24))
