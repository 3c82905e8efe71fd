"""Who is idle: the pure judge, and what the verb makes of what it says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain import selectors, services
from portal.domain.lifecycle import Desired
from portal.domain.models import Environment, Event, Notification, Template
from portal.domain.services.idleness import Rule, judge, rule_of
from tests.portal.domain.clock import clock_at
from tests.portal.world import World

RULE = Rule(after=timedelta(hours=1), warn=timedelta(minutes=10), cpu_percent=5, accelerator_percent=5)
BEGIN = datetime(2026, 11, 23, 8, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def signs(last: datetime | None = None, kernels: int = 0, cpu: float | None = None, accelerator: float | None = None, notebook: bool = True) -> dict[str, Any]:
    seen = {"last": last.isoformat() if last else None, "kernels_busy": kernels} if notebook else None
    return {"notebook": seen, "cpu_percent": cpu, "accelerator_percent": accelerator}


def through(samples: list[tuple[int, dict[str, Any]]]) -> datetime | None:
    """Judge samples at minutes since the start, one after another; the last word."""
    kept: dict[str, Any] = {}
    since = None
    for minute, sample in samples:
        found = judge(RULE, sample, kept, started=BEGIN, now=BEGIN + minute * MINUTE)
        kept, since = found.kept, found.since
    return since


QUIET = signs(BEGIN, cpu=1, accelerator=0)


@pytest.mark.parametrize(
    ("last", "since"),
    [
        (signs(BEGIN + 20 * MINUTE, cpu=1, accelerator=0), 20),
        (signs(None, cpu=1, accelerator=0), 0),  # never touched: since it started
        (signs(BEGIN - timedelta(days=3), cpu=1, accelerator=0), 0),  # what was before this run says nothing
        (signs(BEGIN + timedelta(days=3), cpu=1, accelerator=0), 60),  # a clock that is ahead
        (signs(BEGIN, kernels=1, cpu=1, accelerator=0), None),
        (signs(BEGIN, cpu=5, accelerator=0), None),
        (signs(BEGIN, cpu=1, accelerator=98), None),
        (signs(BEGIN, cpu=1), 0 + 59),  # the accelerator is not measured any more: unknown since the last time
        (signs(BEGIN), 59),
        (signs(notebook=False), None),  # nothing measured
        (signs(notebook=False, cpu=0.0), 59),
    ],
)
def test_every_sign_that_is_measured_must_be_quiet(last: dict[str, Any], since: int | None) -> None:
    found = through([*((minute, QUIET) for minute in range(60)), (60, last)])
    assert found == (None if since is None else BEGIN + since * MINUTE)


def test_a_percentage_is_quiet_only_since_the_first_sample_in_a_row() -> None:
    samples = [(minute, signs(notebook=False, cpu=90 if minute == 30 else 1)) for minute in range(60)]
    assert through(samples) == BEGIN + 31 * MINUTE
    assert through(samples[:31]) is None


def test_after_a_gap_in_the_samples_a_percentage_begins_anew_but_a_notebook_knows_its_last_use() -> None:
    before = [(minute, signs(notebook=False, cpu=1)) for minute in range(10)]
    assert through([*before, (40, signs(notebook=False, cpu=1))]) == BEGIN + 40 * MINUTE
    assert through([(0, signs(BEGIN)), (40, signs(BEGIN + 5 * MINUTE))]) == BEGIN + 5 * MINUTE


_samples = st.builds(
    signs,
    last=st.none() | st.integers(-60, 300).map(lambda m: BEGIN + m * MINUTE),
    kernels=st.integers(0, 2),
    cpu=st.none() | st.floats(0, 400),
    accelerator=st.none() | st.floats(0, 100),
    notebook=st.booleans(),
)


@given(st.lists(st.tuples(st.integers(1, 20), _samples), min_size=1, max_size=30))
def test_idle_never_reaches_back_beyond_the_start_or_any_use_that_was_seen(steps: list[tuple[int, dict[str, Any]]]) -> None:
    kept: dict[str, Any] = {}
    now, last_use = BEGIN, BEGIN
    for gap, sample in steps:
        now += gap * MINUTE
        found = judge(RULE, sample, kept, started=BEGIN, now=now)
        kept = found.kept
        notebook = sample["notebook"]
        busy = bool(notebook and notebook["kernels_busy"]) or any((sample[f] or 0) >= 5 for f in ("cpu_percent", "accelerator_percent"))
        if busy:
            last_use = now
        measured = any(sample[key] is not None for key in sample)
        assert (found.since is None) == (busy or not measured)
        if found.since is not None:
            assert BEGIN <= found.since <= now
            assert found.since >= last_use


# --- the verb -----------------------------------------------------------------------


@pytest.fixture
def ruled(world: World) -> World:
    row = Template.objects.get(slug="notebook")
    Template.objects.filter(pk=row.pk).update(spec=row.spec | {"idle": {"after": "1h", "warn": "10m"}, "delete_after": "7d"})
    return world


def codes(environment: Environment) -> list[str]:
    return list(Event.objects.filter(environment=environment).order_by("seq").values_list("code", flat=True))


def test_a_warning_comes_first_then_the_stop_names_what_was_quiet_and_since_when(ruled: World) -> None:
    with clock_at(2026, 11, 23, 8) as clock:
        environment = ruled.running()
        words = []
        for minute in range(61):
            words.append(services.activity_record(environment.pk, signs(BEGIN, cpu=1, accelerator=0), clock.now))
            if words[-1] == "warned":
                assert minute == 50
            clock.forward(minutes=1)
        assert words == ["idle"] * 50 + ["warned"] + ["idle"] * 9 + ["stopped"]
        stopped = ruled.bring_to(environment, "stopping", "stopped")
        assert (stopped.desired, stopped.reason) == (Desired.STOPPED, "Idle")
        assert stopped.message.startswith("Nobody has used it since 2026-11-23 08:00 (UTC) (no notebook activity, CPU 1 %, accelerator 0 %), so it is stopped.")
        assert stopped.delete_at == datetime(2026, 11, 30, 9, tzinfo=UTC)
        assert [row.code for row in Notification.objects.filter(user=ruled.alice).order_by("pk")] == ["IdleSoon", "Idle"]
        assert services.activity_record(environment.pk, QUIET, clock.now) == "", "nothing to judge any more"


def test_use_after_the_warning_calls_the_stop_off(ruled: World) -> None:
    with clock_at(2026, 11, 23, 8) as clock:
        environment = ruled.running()
        clock.forward(minutes=55)
        assert services.activity_record(environment.pk, signs(BEGIN), clock.now) == "warned"
        clock.forward(minutes=2)
        assert services.activity_record(environment.pk, signs(BEGIN + 56 * MINUTE), clock.now) == "idle"
        assert codes(environment)[-2:] == ["IdleSoon", "IdleOver"]
        clock.forward(minutes=30)
        assert services.activity_record(environment.pk, signs(BEGIN + 56 * MINUTE, kernels=1), clock.now) == "busy"
        environment.refresh_from_db()
        assert (environment.desired, environment.idle_since, environment.idle_warned_at) == (Desired.RUNNING, None, None)


def test_one_that_was_idle_for_long_unseen_is_still_warned_and_given_its_time(ruled: World) -> None:
    with clock_at(2026, 11, 23, 8) as clock:
        environment = ruled.running()
        clock.forward(hours=5)
        assert services.activity_record(environment.pk, signs(BEGIN), clock.now) == "warned"
        clock.forward(minutes=9)
        assert services.activity_record(environment.pk, signs(BEGIN), clock.now) == "idle"
        clock.forward(minutes=2)
        assert services.activity_record(environment.pk, signs(BEGIN), clock.now) == "stopped"


def test_a_new_run_begins_anew(ruled: World) -> None:
    with clock_at(2026, 11, 23, 8) as clock:
        environment = ruled.running()
        clock.forward(minutes=55)
        services.activity_record(environment.pk, signs(BEGIN), clock.now)
        services.environment_stop(actor=ruled.alice, environment_id=environment.pk)
        ruled.bring_to(environment, "stopping", "stopped")
        services.environment_start(actor=ruled.alice, environment_id=environment.pk)
        ruled.bring_to(environment, "provisioning", "running")
        assert (environment.idle_warned_at, environment.idle_since, environment.activity) == (None, None, {})
        clock.forward(minutes=49)
        assert services.activity_record(environment.pk, signs(BEGIN), clock.now) == "idle"


def test_what_is_not_ruled_not_running_or_not_there_is_not_judged(world: World) -> None:
    Template.objects.filter(slug="dask").update(spec={key: value for key, value in Template.objects.get(slug="dask").spec.items() if key != "idle"})
    assert services.activity_record(world.running(template="dask", name="dk").pk, QUIET) == ""
    assert services.activity_record(world.request(name="new").pk, QUIET) == ""
    assert services.activity_record(uuid4(), QUIET) == ""
    assert services.activity_record("nonsense", QUIET) == ""


def test_only_what_runs_and_has_a_rule_is_measured(ruled: World) -> None:
    Template.objects.filter(slug="dask").update(spec={key: value for key, value in Template.objects.get(slug="dask").spec.items() if key != "idle"})
    runs = ruled.running()
    ruled.running(template="dask", name="dk")
    ruled.request(name="waits")
    ending = ruled.running(name="ending")
    services.environment_stop(actor=ruled.alice, environment_id=ending.pk)
    assert list(selectors.environments_with_idle_rule()) == [runs]


def test_a_rule_has_defaults_and_never_warns_before_half_of_its_period() -> None:
    assert rule_of({}) is None
    assert rule_of({"idle": {"after": "1h"}}) == RULE
    short = rule_of({"idle": {"after": "10m", "cpu_percent": 20}})
    assert short == Rule(after=timedelta(minutes=10), warn=timedelta(minutes=5), cpu_percent=20, accelerator_percent=5)
