"""The budget of the month: accelerator-hours promised on request, charged for what was really held, given back for the rest."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import pytest

from portal.domain import services
from portal.domain.errors import QuotaExceeded
from portal.domain.models import Accelerator, Environment, Quota, Usage
from portal.domain.quantities import format_amount
from portal.domain.services.amounts import running_amounts
from portal.domain.shape import RoleShape
from tests.portal.domain.clock import HOUR, Clock, clock_at
from tests.portal.world import World

BUDGET, GPU = "accelerator_seconds", "accelerator:nvidia-gpu"


@pytest.fixture
def clock() -> Iterator[Clock]:
    with clock_at(2027, 1, 20, 12) as clock:
        yield clock


@pytest.fixture
def lab(clock: Clock, world: World) -> World:
    """A team with 8 devices of the plain accelerator."""
    world.limit(GPU, 8)
    return world


def ask(world: World, name: str = "gpu", hours: float = 8, **more: object) -> Environment:
    return world.request(**({"name": name, "flavor": "gpu-1", "expires_in": timedelta(hours=hours)} | more))


def stop(world: World, environment: Environment) -> None:
    world.bring_to(environment, "stopping", "stopped")
    assert services.quota_recompute() == []


def row(world: World, resource: str = BUDGET) -> Quota:
    return Quota.objects.get(team=world.vision, user=None, resource=resource)


def weigh(weight: float) -> None:
    Accelerator.objects.filter(slug="nvidia-gpu").update(quota_weight=weight)


def test_amounts_are_weighted_by_the_catalogue_and_rounded_up(world: World) -> None:
    weigh(0.143)
    shape = RoleShape(name="worker", replicas=3, cpu_millis=1000, memory_bytes=1, accelerator="nvidia-gpu", accelerator_count=1)
    amounts = running_amounts([shape], timedelta(seconds=10))
    assert (amounts[GPU], amounts["accelerators"], amounts[BUDGET]) == (3, 429, 5), "4.29 accelerator-seconds, rounded up"
    assert running_amounts([shape], None)[BUDGET] == -(-429 * 31 * 24 * HOUR // 1000)


def test_what_has_no_accelerator_or_one_without_weight_takes_nothing_of_the_budget(world: World) -> None:
    weigh(0)
    shape = RoleShape(name="worker", replicas=3, cpu_millis=1000, memory_bytes=1, accelerator="nvidia-gpu", accelerator_count=1)
    assert {"accelerators", BUDGET}.isdisjoint(running_amounts([shape], timedelta(hours=1)))
    bare = RoleShape(name="worker", replicas=3, cpu_millis=1000, memory_bytes=1)
    assert set(running_amounts([bare], timedelta(hours=1))) == {"environments", "cpu", "memory"}


@pytest.mark.parametrize(
    ("resource", "amount", "text"),
    [
        ("accelerators", 1500, "1.5 accelerators (weighted)"),
        ("accelerators", 1000, "1 accelerator (weighted)"),
        (BUDGET, 45000, "12.5 accelerator-hours"),
        (BUDGET, 3600, "1 accelerator-hour"),
    ],
)
def test_amounts_read_in_words(resource: str, amount: int, text: str) -> None:
    assert format_amount(resource, amount) == text


@pytest.mark.parametrize("whose", ["team", "user"])
def test_all_accelerators_together_are_limited_by_weight(lab: World, whose: str) -> None:
    weigh(0.5)
    lab.limit("accelerators", 1000, user=lab.alice if whose == "user" else None)
    ask(lab, "one")
    ask(lab, "two")
    with pytest.raises(QuotaExceeded) as caught:
        ask(lab, "three")
    who, people = ("alice in team vision", "lena (lead), admin (platform admin)") if whose == "user" else ("Team vision", "admin (platform admin)")
    assert caught.value.errors == {
        "accelerators": [
            (
                f"{who} may use 1 accelerator (weighted); 1 accelerator (weighted) in use, and this needs 0.5 accelerators (weighted) more. "
                f"The limit can be changed by {people}."
            )
        ]
    }


@pytest.mark.parametrize("resource", ["environments", "cpu", "memory", "storage", GPU, "accelerators", BUDGET])
def test_a_member_can_be_limited_in_every_resource_without_limiting_the_others(lab: World, resource: str) -> None:
    lab.limit(resource, 0, user=lab.alice)
    with pytest.raises(QuotaExceeded) as caught:
        ask(lab)
    assert set(caught.value.errors) == {resource}
    ask(lab, actor=lab.lena)
    assert services.quota_recompute() == []


def test_the_budget_is_promised_in_full_and_a_request_beyond_it_is_refused_in_words(lab: World) -> None:
    lab.limit(BUDGET, 20 * HOUR)
    ask(lab, "one", 12)
    with pytest.raises(QuotaExceeded) as caught:
        ask(lab, "two", 8.5)
    assert caught.value.errors[BUDGET] == [
        (
            "Team vision may use 20 accelerator-hours this month; 12 accelerator-hours are used or promised, "
            "and this needs 8.5 accelerator-hours more. The limit can be changed by admin (platform admin)."
        )
    ]
    ask(lab, "two", 8)
    assert row(lab).used == 20 * HOUR


def test_what_was_not_held_is_given_back_and_the_queue_costs_nothing(lab: World, clock: Clock) -> None:
    environment = lab.bring_to(ask(lab), "queued")
    clock.forward(hours=3)
    assert services.queue_pass() == [environment.pk]
    lab.bring_to(environment, "provisioning", "running")
    clock.forward(hours=2)
    assert row(lab).used == 8 * HOUR, "promised while it holds"
    stop(lab, environment)
    assert row(lab).used == 2 * HOUR
    assert row(lab, GPU).used == row(lab, "accelerators").used == 0


def test_one_that_never_ran_costs_nothing(lab: World, clock: Clock) -> None:
    environment = lab.bring_to(ask(lab), "queued")
    clock.forward(hours=3)
    lab.bring_to(environment, "failed")
    assert row(lab).used == 0
    assert not Usage.objects.exists()


def test_never_more_is_charged_than_was_promised(lab: World, clock: Clock) -> None:
    environment = lab.bring_to(ask(lab, hours=1), "queued", "provisioning", "running")
    clock.forward(hours=30)  # nobody was there to stop it
    stop(lab, environment)
    assert row(lab).used == HOUR


def test_extending_promises_more_and_is_refused_when_the_month_has_no_more(lab: World, clock: Clock) -> None:
    lab.limit(BUDGET, 10 * HOUR)
    environment = lab.bring_to(ask(lab), "queued", "provisioning", "running")
    clock.forward(hours=5)
    with pytest.raises(QuotaExceeded, match="this month; 8 accelerator-hours are used or promised"):
        services.environment_extend(actor=lab.alice, environment_id=environment.pk, expires_in=timedelta(hours=6))
    environment.refresh_from_db()
    assert environment.expires_in == 8 * HOUR
    services.environment_extend(actor=lab.alice, environment_id=environment.pk, expires_in=timedelta(hours=5))
    assert row(lab).used == 10 * HOUR, "5 taken, 5 promised"
    clock.forward(hours=1)
    services.environment_extend(actor=lab.alice, environment_id=environment.pk, expires_in=timedelta(hours=1))
    assert row(lab).used == 7 * HOUR, "shortening gives back"
    clock.forward(hours=0.5)
    stop(lab, environment)
    assert row(lab).used == 6.5 * HOUR


def test_scaling_charges_each_size_for_its_time(lab: World, clock: Clock) -> None:
    wish = {"template": "dask", "params": {"workers": 2}}
    environment = lab.bring_to(ask(lab, **wish), "queued", "provisioning", "running")
    assert row(lab).used == 16 * HOUR
    clock.forward(hours=2)
    services.environment_scale(actor=lab.alice, environment_id=environment.pk, workers=4)
    assert row(lab).used == (2 * 2 + 4 * 6) * HOUR
    lab.limit(BUDGET, 28 * HOUR)
    with pytest.raises(QuotaExceeded):
        services.environment_scale(actor=lab.alice, environment_id=environment.pk, workers=5)
    clock.forward(hours=1)
    services.environment_scale(actor=lab.alice, environment_id=environment.pk, workers=1)
    assert row(lab).used == (2 * 2 + 4 * 1 + 1 * 5) * HOUR
    clock.forward(hours=1)
    stop(lab, Environment.objects.get(pk=environment.pk))
    assert row(lab).used == 9 * HOUR


def test_what_the_queue_takes_back_keeps_its_promise_less_what_it_had(lab: World, clock: Clock) -> None:
    environment = lab.bring_to(ask(lab), "queued", "provisioning")
    clock.forward(hours=1)
    lab.bring_to(environment, "queued")
    assert (row(lab).used, environment.reserved[BUDGET]) == (8 * HOUR, 7 * HOUR)
    clock.forward(hours=10)
    assert services.quota_recompute() == []
    lab.bring_to(environment, "provisioning", "running")
    clock.forward(hours=2)
    stop(lab, environment)
    assert row(lab).used == 3 * HOUR


def test_a_new_month_begins_with_what_is_still_promised(lab: World, clock: Clock) -> None:
    lab.limit(BUDGET, 60 * HOUR)
    clock.now = clock.now.replace(day=30, hour=14)
    done = lab.bring_to(ask(lab, "done", 20), "queued", "provisioning", "running")
    running = lab.bring_to(ask(lab, "running", 40), "queued", "provisioning", "running")
    clock.forward(hours=10)
    stop(lab, done)
    assert row(lab).used == 50 * HOUR
    clock.now = clock.now.replace(month=2, day=1, hour=2)
    services.quota_turn()
    assert (row(lab).period, row(lab).used) == (date(2027, 2, 1), 6 * HOUR), "34 of the 40 were held in January"
    assert services.quota_turn() == 0, "once"
    clock.forward(hours=2)
    stop(lab, running)
    assert row(lab).used == 4 * HOUR


def test_the_first_to_reserve_turns_the_month_and_refusals_speak_of_the_new_one(lab: World, clock: Clock) -> None:
    lab.limit(BUDGET, 10 * HOUR)
    environment = lab.bring_to(ask(lab), "queued", "provisioning", "running")
    clock.forward(hours=8)
    stop(lab, environment)
    clock.now = clock.now.replace(month=2, day=3)
    wish = {"actor": lab.alice, "name": "more", "template": "notebook", "flavor": "gpu-1", "team": "vision", "expires_in": timedelta(hours=11)}
    preview = services.environment_preview(**wish)
    assert [effect.used for effect in preview.quota if effect.resource == BUDGET] == [0, 0], "reads only, and yet of this month"
    assert row(lab).period == date(2027, 1, 1)
    with pytest.raises(QuotaExceeded, match="this month; 0 accelerator-hours are used or promised"):
        services.environment_request(**wish)
    ask(lab, "less", 9)
    assert (row(lab).period, row(lab).used) == (date(2027, 2, 1), 9 * HOUR)


def test_what_ends_in_a_new_month_that_nobody_has_touched_yet_is_counted_once(lab: World, clock: Clock) -> None:
    clock.now = clock.now.replace(day=31, hour=22)
    environment = lab.bring_to(ask(lab), "queued", "provisioning", "running")
    clock.forward(hours=5)
    stop(lab, environment)  # 2 hours in January, 3 in February
    services.quota_turn()
    assert row(lab).used == 3 * HOUR


def test_the_month_turns_where_the_installation_is(lab: World, clock: Clock, settings: object) -> None:
    settings.TIME_ZONE = "Asia/Shanghai"  # type: ignore[attr-defined]
    clock.now = clock.now.replace(day=31, hour=15)
    services.quota_turn()
    assert row(lab).period == date(2027, 1, 1)
    clock.forward(hours=1)
    services.quota_turn()
    assert row(lab).period == date(2027, 2, 1)


def test_the_timer_turns_the_month(lab: World, clock: Clock) -> None:
    clock.now = clock.now.replace(month=2)
    assert services.timers_run()["budgets"] >= 1
    assert not Quota.objects.filter(resource=BUDGET).exclude(period=date(2027, 2, 1)).exists()


def test_a_limit_set_before_anybody_used_anything_knows_its_month(lab: World) -> None:
    lab.limit(BUDGET, 5, user=lab.lena)
    assert Quota.objects.get(team=lab.vision, user=lab.lena, resource=BUDGET).period == date(2027, 1, 1)


def test_drift_of_the_budget_is_found_and_repaired(lab: World, clock: Clock) -> None:
    environment = lab.bring_to(ask(lab), "queued", "provisioning", "running")
    clock.forward(hours=2)
    lab.bring_to(environment, "stopping", "stopped")
    Quota.objects.filter(pk=row(lab).pk).update(used=1)
    (drift,) = services.quota_recompute(repair=True)
    assert (drift.resource, drift.used, drift.held) == (BUDGET, 1, 2 * HOUR)
    assert services.quota_recompute() == []
