"""Usage: what is held is written down from admission to release, and reported to those whom it concerns."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from portal.domain import selectors, services
from portal.domain.errors import ValidationError
from portal.domain.models import Accelerator, Environment, Usage, User
from portal.domain.selectors.usage import GROUPS
from portal.domain.services import usage
from tests.portal.domain.clock import Clock, clock_at
from tests.portal.world import GIB, World


@pytest.fixture
def clock() -> Iterator[Clock]:
    with clock_at(2027, 1, 20, 12) as clock:
        yield clock


@pytest.fixture
def lab(clock: Clock, world: World) -> World:
    world.limit("accelerator:nvidia-gpu", 8)
    Accelerator.objects.filter(slug="nvidia-gpu").update(quota_weight=0.5)
    return world


def held(environment: Environment) -> dict[str, int]:
    return dict(Usage.objects.filter(environment=environment, ended_at=None).values_list("resource", "amount"))


def report(user: User, clock: Clock, group_by: str = "user", days: float = 10) -> dict[str, tuple[float, ...]]:
    rows = selectors.usage_report(user, clock.now - timedelta(days=days), clock.now, group_by)
    return {row.key: (row.environments, float(row.cpu_hours), float(row.memory_hours), float(row.accelerator_hours), float(row.weighted_hours)) for row in rows}


def test_rows_are_open_from_admission_to_release(lab: World, clock: Clock) -> None:
    environment = lab.bring_to(lab.request(flavor="gpu-1"), "queued")
    clock.forward(hours=1)
    assert held(environment) == {}, "waiting uses nothing"
    services.queue_pass()
    began = clock.now
    cpu, memory = environment.reserved["cpu"], environment.reserved["memory"]
    assert held(environment) == {"cpu": cpu, "memory": memory, "accelerator:nvidia-gpu": 1, "accelerators": 500}
    clock.forward(minutes=1)
    lab.bring_to(environment, "provisioning", "running", "provisioning", "running", "stopping")
    assert held(environment), "until it is torn down"
    clock.forward(hours=1)
    lab.bring_to(environment, "stopped")
    assert held(environment) == {}
    assert set(Usage.objects.values_list("started_at", "ended_at", "granted_seconds")) == {(began, clock.now, 8 * 3600)}
    assert dict(Usage.objects.values_list("resource", "weight"))["accelerator:nvidia-gpu"] == 500


def test_beginning_again_changes_nothing_and_another_queue_is_waited_for(lab: World, clock: Clock) -> None:
    environment = lab.bring_to(lab.request(), "queued")
    Environment.objects.filter(pk=environment.pk).update(placement={"queue": "kueue"})
    environment.refresh_from_db()
    usage.begin([environment], clock.now)
    assert held(environment) == {}
    lab.bring_to(environment, "provisioning")
    assert set(held(environment)) == {"cpu", "memory"}
    usage.begin([lab.request(name="other"), environment], clock.forward(hours=1))
    Environment.objects.filter(pk=environment.pk).update(placement={})
    usage.begin([Environment.objects.get(pk=environment.pk)], clock.now)
    assert Usage.objects.filter(environment=environment).count() == 2


def test_scaling_ends_the_rows_and_begins_others_at_the_same_moment(lab: World, clock: Clock) -> None:
    environment = lab.running(template="dask", name="dk")
    clock.forward(hours=1)
    services.environment_scale(actor=lab.alice, environment_id=environment.pk, workers=4)
    rows = Usage.objects.filter(environment=environment, resource="cpu").order_by("started_at")
    assert [row.amount for row in rows] == [environment.reserved["cpu"], 5000]
    assert rows[0].ended_at == rows[1].started_at == clock.now
    services.environment_scale(actor=lab.alice, environment_id=environment.pk, workers=2)
    assert held(environment)["cpu"] == 3000


def test_what_waits_is_scaled_without_being_used(lab: World) -> None:
    environment = lab.bring_to(lab.request(template="dask", name="dk"), "queued")
    services.environment_scale(actor=lab.alice, environment_id=environment.pk, workers=4)
    assert not Usage.objects.exists()
    services.queue_pass()
    assert held(environment)["cpu"] == 5000


def test_admission_counts_what_is_held_now_not_when_the_queue_was_read(lab: World, clock: Clock) -> None:
    stale = lab.bring_to(lab.request(template="dask", name="dk"), "queued")
    services.environment_scale(actor=lab.alice, environment_id=stale.pk, workers=4)
    usage.begin([stale], clock.now)
    assert held(stale)["cpu"] == 5000


@pytest.fixture
def week(lab: World, clock: Clock) -> World:
    """Alice held one device and its node's share for 2 hours and a cluster for 1; Lena and Bob a notebook each, Bob's still runs."""
    lab.limit("accelerator:nvidia-gpu", 1, team=lab.speech)
    hers = lab.running(name="gpu", flavor="gpu-1")
    grid = lab.running(name="dk", template="dask", params={"workers": 1})
    lab.running(name="nb", actor=lab.lena)
    clock.forward(hours=1)
    lab.bring_to(grid, "stopping", "stopped")
    clock.forward(hours=1)
    lab.bring_to(hers, "stopping", "stopped")
    lab.bring_to(Environment.objects.get(name="nb"), "failed")
    lab.running(name="bob", actor=lab.bob)
    clock.forward(hours=3)
    return lab


def test_hours_are_summed_per_user_exactly_and_what_runs_counts_up_to_now(week: World, clock: Clock) -> None:
    gpu = Environment.objects.get(name="gpu").flavor
    assert report(week.admin, clock) == {
        "alice": (2, 2 * gpu.cpu_millis / 1000 + 2, 2 * gpu.memory_bytes / GIB + 3, 2, 1),
        "bob": (1, 3, 6, 0, 0),
        "lena": (1, 2, 4, 0, 0),
    }
    sums = [sum(row[1] for row in report(week.admin, clock, group).values()) for group in GROUPS]
    assert len(set(sums)) == 1, "however they are grouped"


def test_hours_are_cut_at_both_ends_of_the_span(week: World, clock: Clock) -> None:
    assert report(week.admin, clock, days=4 / 24)["alice"][3] == 1
    since = clock.now - timedelta(hours=5)
    rows = selectors.usage_report(week.admin, since, since + timedelta(minutes=30), "team")
    assert [(row.key, float(row.accelerator_hours)) for row in rows] == [("vision", 0.5)]
    assert selectors.usage_report(week.admin, since - timedelta(days=9), since, "team") == []


@pytest.mark.parametrize(("group_by", "keys"), [("team", {"vision", "speech"}), ("accelerator", {"nvidia-gpu", ""}), ("template", {"notebook", "dask"})])
def test_hours_by_other_groups(week: World, clock: Clock, group_by: str, keys: set[str]) -> None:
    assert set(report(week.admin, clock, group_by)) == keys


def test_everyone_sees_his_own_leads_their_team_admins_all(week: World, clock: Clock) -> None:
    assert set(report(week.alice, clock)) == {"alice"}
    assert set(report(week.lena, clock)) == {"alice", "lena"}
    assert set(report(week.bob, clock)) == {"bob"}
    assert report(week.charlie, clock) == {}
    User.objects.filter(pk=week.lena.pk).update(is_active=False)
    assert report(User.objects.get(pk=week.lena.pk), clock) == {}


@pytest.mark.parametrize("wrong", [{"group_by": "colour"}, {"until": None}])
def test_a_report_that_makes_no_sense_is_refused(world: World, wrong: dict[str, Any]) -> None:
    with clock_at(2027, 1, 20, 12) as clock:
        span = {"since": clock.now, "until": clock.now + timedelta(days=1), "group_by": "user"} | wrong
        with pytest.raises(ValidationError):
            selectors.usage_report(world.admin, **(span | ({"until": clock.now} if span["until"] is None else {})))
