"""Quota: reserved once, released once, refused with reasons."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from portal.domain import services
from portal.domain.errors import Conflict, DomainError, Forbidden, NotFound, QuotaExceeded, ValidationError
from portal.domain.lifecycle import State
from portal.domain.models import Accelerator, Approval, ApprovalRule, Environment, Quota, Volume
from portal.domain.services import ledger
from tests.portal.domain.clock import Clock, clock_at
from tests.portal.world import GIB, World, make_world


def test_a_request_reserves_for_the_team_and_for_the_user_within_it(world: World) -> None:
    world.request(template="dask", name="dk", flavor="cpu-medium", params={"workers": 3})
    for user in (None, world.alice):
        assert world.used("environments", user=user) == 1
        assert world.used("cpu", user=user) == 1000 + 3 * 2000
        assert world.used("memory", user=user) == (1 + 3 * 4) * GIB
    assert world.used("cpu", user=world.lena) == 0


def test_a_refusal_names_limit_use_amount_and_who_can_change_it(world: World) -> None:
    world.limit("cpu", 1500)
    world.request()
    with pytest.raises(QuotaExceeded) as caught:
        world.request(name="second")
    assert caught.value.errors == {
        "cpu": ["Team vision may use 1.5 CPU; 1 CPU in use, and this needs 1 CPU more. The limit can be changed by admin (platform admin)."]
    }
    assert world.used("environments") == 1


def test_every_limit_in_the_way_is_named_at_once_and_a_users_limit_names_the_leads(world: World) -> None:
    world.limit("memory", GIB)
    world.limit("environments", 0, user=world.alice)
    with pytest.raises(QuotaExceeded) as caught:
        world.request()
    assert set(caught.value.errors) == {"memory", "environments"}
    assert caught.value.errors["environments"] == [
        (
            "alice in team vision may use 0 environments; 0 environments in use, and this needs 1 environment more. "
            "The limit can be changed by lena (lead), admin (platform admin)."
        )
    ]


def test_a_refused_request_leaves_nothing_behind(world: World) -> None:
    world.limit("storage", 5 * GIB)
    with pytest.raises(QuotaExceeded):
        world.request()
    assert not Environment.objects.exists()
    assert not Volume.objects.exists()
    assert not Quota.objects.exclude(used=0).exists()


def test_accelerators_are_refused_until_a_team_is_granted_some(world: World) -> None:
    with pytest.raises(QuotaExceeded, match="Team vision may use 0 nvidia-gpu"):
        world.request(flavor="gpu-1")
    world.limit("accelerator:nvidia-gpu", 1)
    world.request(flavor="gpu-1")
    assert world.used("accelerator:nvidia-gpu") == 1


@pytest.mark.parametrize("end", [("stopping", "stopped"), ("failed",)])
def test_stopping_and_failing_give_everything_back_but_storage(world: World, end: tuple[str, ...]) -> None:
    world.bring_to(world.running(), *end)
    assert [world.used(r) for r in ("environments", "cpu", "memory")] == [0, 0, 0]
    assert world.used("storage") == 10 * GIB


def test_a_second_move_to_stopped_gives_nothing_back_again(world: World) -> None:
    other = world.running(name="other")
    environment = world.bring_to(world.running(), "stopping", "stopped")
    assert not services.environment_move(environment.pk, "stopped")
    assert world.used("cpu") == other.reserved["cpu"]


def test_deletion_keeps_the_storage_of_a_kept_home_volume_until_it_is_purged(world: World) -> None:
    environment = world.running()
    services.environment_delete(actor=world.alice, environment_id=environment.pk)
    world.bring_to(environment, "deleting", "deleted")
    assert world.used("storage") == 10 * GIB
    volume = Volume.objects.get()
    services.volume_purge(actor=world.alice, volume_id=volume.pk)
    assert world.used("storage") == 10 * GIB, "given back only when the claim is gone"
    assert services.volume_forget(volume.pk)
    assert not services.volume_forget(volume.pk)
    assert world.used("storage") == 0


def test_deletion_with_purge_gives_the_storage_back_once_the_environment_is_gone(world: World) -> None:
    environment = world.running()
    volume = environment.volume_id
    services.environment_delete(actor=world.alice, environment_id=environment.pk, purge=True)
    world.bring_to(environment, "deleting", "deleted")
    assert world.used("storage") == 0
    assert not services.volume_forget(volume)
    assert world.used("storage") == 0


def test_a_kept_home_volume_is_taken_up_again_without_new_storage(world: World) -> None:
    first = world.running()
    services.environment_delete(actor=world.alice, environment_id=first.pk)
    world.bring_to(first, "deleting", "deleted")
    second = world.request()
    assert second.volume_id == first.volume_id
    assert world.used("storage") == 10 * GIB


def test_start_reserves_again_and_is_refused_when_the_room_is_gone(world: World) -> None:
    environment = world.bring_to(world.running(), "stopping", "stopped")
    world.limit("cpu", 500)
    with pytest.raises(QuotaExceeded):
        services.environment_start(actor=world.alice, environment_id=environment.pk)
    environment.refresh_from_db()
    assert environment.state == State.STOPPED
    world.limit("cpu", 1000)
    assert services.environment_start(actor=world.alice, environment_id=environment.pk).state == State.QUEUED
    assert world.used("cpu") == 1000


def test_scaling_reserves_the_difference_and_gives_back_the_rest(world: World) -> None:
    environment = world.running(template="dask", name="dk")
    world.limit("cpu", 5000)
    with pytest.raises(QuotaExceeded):
        services.environment_scale(actor=world.alice, environment_id=environment.pk, workers=5)
    services.environment_scale(actor=world.alice, environment_id=environment.pk, workers=4)
    assert world.used("cpu") == 5000
    services.environment_scale(actor=world.alice, environment_id=environment.pk, workers=1)
    assert world.used("cpu") == 2000
    world.bring_to(environment, "stopping", "stopped")
    assert world.used("cpu") == 0


def test_scaling_a_stopped_cluster_reserves_nothing_until_it_starts(world: World) -> None:
    environment = world.bring_to(world.running(template="dask", name="dk"), "stopping", "stopped")
    services.environment_scale(actor=world.alice, environment_id=environment.pk, workers=7)
    assert world.used("cpu") == 0
    services.environment_start(actor=world.alice, environment_id=environment.pk)
    assert world.used("cpu") == 8000


def test_a_limit_below_present_use_is_allowed_and_blocks_only_what_is_new(world: World) -> None:
    environment = world.running()
    world.limit("environments", 0)
    with pytest.raises(QuotaExceeded):
        world.request(name="more")
    world.bring_to(environment, "stopping", "stopped")
    assert world.used("environments") == 0


def test_the_preview_tells_the_same_as_the_request_and_makes_nothing(world: World) -> None:
    world.limit("cpu", 500)
    wish: dict[str, Any] = {"actor": world.alice, "name": "nb", "template": "notebook", "flavor": "cpu-small", "team": "vision"}
    preview = services.environment_preview(**wish)
    assert not preview.allowed
    with pytest.raises(QuotaExceeded) as caught:
        services.environment_request(**wish)
    assert list(preview.refusals) == [message for messages in caught.value.errors.values() for message in messages]
    assert [(e.scope, e.amount, e.fits) for e in preview.quota if e.resource == "cpu"] == [("team", 1000, False), ("user", 1000, True)]
    assert not Environment.objects.exists()


def test_recompute_reports_and_repairs_drift(world: World) -> None:
    world.running()
    assert services.quota_recompute() == []
    Quota.objects.filter(team=world.vision, user=None, resource="cpu").update(used=77)
    (drift,) = services.quota_recompute(repair=True)
    assert (drift.team, drift.user, drift.resource, drift.used, drift.held) == ("vision", "", "cpu", 77, 1000)
    assert services.quota_recompute() == []
    assert world.used("cpu") == 1000


def test_only_admins_set_team_limits_and_leads_set_those_of_members(world: World) -> None:
    wish: dict[str, Any] = {"team": world.vision, "resource": "cpu", "limit": 5}
    services.quota_set(actor=world.admin, user=None, **wish)
    services.quota_set(actor=world.lena, user=world.alice, **wish)
    with pytest.raises(Forbidden):
        services.quota_set(actor=world.lena, user=None, **wish)
    with pytest.raises(Forbidden):
        services.quota_set(actor=world.alice, user=world.alice, **wish)
    for outsider in (world.charlie, world.bob):
        with pytest.raises(NotFound):
            services.quota_set(actor=outsider, user=None, **wish)


@pytest.mark.parametrize(("resource", "limit"), [("cpu", -1), ("cpu", True), ("cpu", 2**70), ("bananas", 1), ("accelerator:", 1)])
def test_a_limit_that_makes_no_sense_is_refused(world: World, resource: str, limit: int) -> None:
    with pytest.raises(ValidationError):
        services.quota_set(actor=world.admin, team=world.vision, user=None, resource=resource, limit=limit)


# --- any history keeps the books -------------------------------------------------
_KINDS = {"nb": ("notebook", "cpu-small"), "dk": ("dask", "cpu-small"), "gpu": ("notebook", "gpu-1"), "grid": ("dask", "gpu-1")}
_steps = st.one_of(
    st.tuples(st.just("request"), st.sampled_from(sorted(_KINDS)), st.sampled_from(["alice", "lena"])),
    st.tuples(st.sampled_from(["stop", "start", "retry", "delete", "purge", "volume"]), st.integers(0, 5)),
    st.tuples(st.just("scale"), st.integers(0, 5), st.integers(1, 6)),
    st.tuples(st.just("extend"), st.integers(0, 5), st.sampled_from([0.5, 8, 40])),
    st.tuples(st.sampled_from(["up", "back", "end"]), st.integers(0, 5)),
    st.tuples(st.just("move"), st.integers(0, 5), st.sampled_from([s.value for s in State])),
    st.tuples(st.just("approve"), st.sampled_from(["", "gpu-1"]), st.sampled_from([None, 1])),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 1, 7, 50, 24 * 12])),
    st.just(("timers",)),
)


class AnyHistory(TestCase):
    def _do(self, world: World, clock: Clock, step: tuple[Any, ...]) -> None:
        if step[0] == "request":
            template, flavor = _KINDS[step[1]]
            world.request(actor=getattr(world, step[2]), name=step[1], template=template, flavor=flavor)
        elif step[0] == "wait":
            clock.forward(hours=step[1])
        elif step[0] == "timers":
            services.timers_run()
        elif step[0] == "approve":
            for approval in Approval.objects.filter(status=Approval.Status.PENDING)[:1]:
                smaller = {"workers": step[2]} if approval.environment.workers else {}
                services.approval_grant(actor=world.admin, approval_id=approval.pk, flavor=step[1], **smaller)
        elif environments := list(Environment.objects.order_by("created_at", "name")):
            self._do_to(world, environments[step[1] % len(environments)], step)

    def _do_to(self, world: World, environment: Environment, step: tuple[Any, ...]) -> None:
        target: dict[str, Any] = {"actor": world.admin, "environment_id": environment.pk}
        if step[0] == "move":
            services.environment_move(environment.pk, step[2])
        elif step[0] == "up":  # the way of one that goes well
            services.environment_move(environment.pk, "queued")
            services.queue_admit(environment.pk)
            services.environment_move(environment.pk, "provisioning")
            services.environment_move(environment.pk, "running")
        elif step[0] in ("back", "end"):  # its room was taken before its pods were placed; it is stopped and torn down
            for state in ("provisioning", "queued") if step[0] == "back" else ("stopping", "stopped"):
                services.environment_move(environment.pk, state)
        elif step[0] == "scale":
            services.environment_scale(**target, workers=step[2])
        elif step[0] == "extend":
            services.environment_extend(**target, expires_in=timedelta(hours=step[2]))
        elif step[0] == "volume":
            for volume in Volume.objects.all()[:1]:
                services.volume_purge(actor=world.admin, volume_id=volume.pk)
                services.volume_forget(volume.pk)
        elif step[0] in ("delete", "purge"):
            services.environment_delete(**target, purge=step[0] == "purge")
        else:
            {"stop": services.environment_stop, "start": services.environment_start, "retry": services.environment_retry}[step[0]](**target)

    def _check(self, step: tuple[Any, ...]) -> None:
        assert services.quota_recompute() == [], step
        for row in Quota.objects.exclude(limit=None):
            assert row.used <= (row.limit or 0), (step, row.resource)
        for environment in Environment.objects.all():
            state, reserved = State(environment.state), environment.reserved
            if state in (State.STOPPED, State.FAILED, State.DELETED):
                assert reserved == {}, (step, state)
            elif state not in (State.STOPPING, State.DELETING, State.AWAITING_APPROVAL):  # these hold until they end, unless they come from failed
                assert reserved, (step, state)
            held = dict(environment.usage.filter(ended_at=None).values_list("resource", "amount"))
            counted = {resource: amount for resource, amount in reserved.items() if resource not in ("environments", "accelerator_seconds")}
            if state in (State.PROVISIONING, State.RUNNING) or held:
                assert held == counted, (step, state)
            elif environment.admitted_at:
                assert not reserved, (step, state)

    @given(st.lists(_steps, min_size=5, max_size=25))
    @settings(max_examples=40, deadline=None)
    def test_after_any_history_what_is_used_is_what_is_held_and_no_limit_is_passed(self, steps: list[tuple[Any, ...]]) -> None:
        with clock_at(2027, 1, 20, 12) as clock:
            world = make_world()
            world.limit("cpu", 9000)
            world.limit("environments", 4)
            world.limit("accelerator:nvidia-gpu", 5)
            world.limit("accelerators", 5000)
            world.limit("accelerator_seconds", 150 * 3600)
            world.limit("cpu", 7000, user=world.alice)
            world.limit("accelerators", 4000, user=world.alice)
            Accelerator.objects.filter(slug="nvidia-gpu").update(quota_weight=0.857)
            ApprovalRule.objects.create(resource="accelerators", above=1000)
            for step in steps:
                try:
                    self._do(world, clock, step)
                except (QuotaExceeded, Conflict, ValidationError):
                    pass
                except DomainError as error:  # pragma: no cover - an admin sees everything, so nothing else is expected
                    raise AssertionError(step) from error
                self._check(step)


def test_the_check_command_fails_on_drift_and_repairs_it_when_told(world: World) -> None:
    world.running()
    call_command("quota_check")
    Quota.objects.filter(team=world.vision, user=None, resource="cpu").update(used=77)
    with pytest.raises(CommandError, match="drifted"):
        call_command("quota_check")
    call_command("quota_check", repair=True)
    assert world.used("cpu") == 1000


@pytest.mark.parametrize(
    ("meanwhile", "refusal"),
    [
        (lambda world: services.user_deactivate(actor=None, user=world.alice), Forbidden),
        (lambda world: services.membership_remove(actor=None, team=world.vision, user=world.alice), ValidationError),
        (lambda world: world.request(name="mine"), ValidationError),
        (lambda world: world.limit("environments", 0), QuotaExceeded),
    ],
    ids=["deactivated", "out of the team", "name taken", "quota gone"],
)
def test_what_changes_after_the_checks_still_refuses(
    world: World, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[World], Any], refusal: type[DomainError]
) -> None:
    look = ledger.look

    def looked(*args: Any) -> None:
        monkeypatch.setattr(ledger, "look", look)
        look(*args)
        meanwhile(world)

    monkeypatch.setattr(ledger, "look", looked)
    with pytest.raises(refusal):
        world.request(name="mine", team="vision")
    assert world.used("environments") == Environment.objects.count()  # none, or the one that took the name


def test_who_is_refused_for_want_of_quota_locks_nothing(world: World) -> None:
    world.limit("environments", 0)
    with CaptureQueriesContext(connection) as queries, pytest.raises(QuotaExceeded):
        world.request()
    assert queries.captured_queries
    assert not [query["sql"] for query in queries.captured_queries if query["sql"].startswith(("SAVEPOINT", "BEGIN", "UPDATE", "INSERT"))]
