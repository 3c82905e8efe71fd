"""When a schedule acts next, whatever the clocks do; and what it then does."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from portal.domain import services
from portal.domain.errors import NotFound, ValidationError
from portal.domain.lifecycle import Desired, State
from portal.domain.models import ApprovalRule, Environment, Event, Notification, Template
from portal.domain.services.schedules import START, STOP, check_schedule, last_occurrence, next_occurrence
from tests.portal.world import World

ZONES = ["UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kathmandu", "America/St_Johns"]
_times = st.times().map(lambda t: t.strftime("%H:%M"))
_moments = st.datetimes(datetime(2023, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - the strategy adds the zone


@st.composite
def schedules(draw: Any) -> dict[str, Any]:
    start, stop = draw(st.none() | _times), draw(st.none() | _times)
    if start == stop:
        start, stop = "09:00", "20:00"
    days = draw(st.lists(st.integers(1, 7), min_size=1, max_size=7, unique=True).map(sorted))
    return {"start": start, "stop": stop, "days": days, "timezone": draw(st.sampled_from(ZONES))}


@given(schedules(), _moments)
def test_the_next_time_is_strictly_later_and_at_the_wall_clocks_time_on_one_of_its_days(schedule: dict[str, Any], after: datetime) -> None:
    found = next_occurrence(schedule, after)
    assert found is not None
    assert found.at > after
    assert found.at <= after + timedelta(days=9)
    local = found.at.astimezone(ZoneInfo(schedule["timezone"]))
    wanted = time.fromisoformat(schedule[found.action])
    if local.time() != wanted:  # the clocks skip that time on this day: it comes as much later as they skip
        naive = datetime.combine(local.date(), wanted)
        there_and_back = naive.replace(tzinfo=local.tzinfo).astimezone(UTC).astimezone(local.tzinfo).replace(tzinfo=None)
        assert there_and_back != naive
        assert there_and_back == local.replace(tzinfo=None)
    overnight = found.action == STOP and schedule["start"] and schedule["stop"] < schedule["start"]
    assert (local.date() - timedelta(days=bool(overnight))).isoweekday() in schedule["days"]


@given(schedules(), _moments)
def test_going_from_one_time_to_the_next_misses_no_due_day(schedule: dict[str, Any], begin: datetime) -> None:
    zone, found, at = ZoneInfo(schedule["timezone"]), set(), begin
    while at < begin + timedelta(days=15):
        one = next_occurrence(schedule, at)
        assert one is not None
        assert last_occurrence(schedule, one.at) == one, "what comes next is what was last once it has come"
        found.add((one.action, one.at.astimezone(zone).date()))
        at = one.at
    for offset in range(2, 13):
        day: date = begin.astimezone(zone).date() + timedelta(days=offset)
        if day.isoweekday() not in schedule["days"]:
            continue
        if schedule["start"]:
            assert (START, day) in found or _same_moment(schedule, day)
        if schedule["stop"]:
            overnight = bool(schedule["start"] and schedule["stop"] < schedule["start"])
            assert (STOP, day + timedelta(days=overnight)) in found


def _same_moment(schedule: dict[str, Any], day: date) -> bool:
    """A start that the clocks push onto a stop gives way to it."""
    zone = ZoneInfo(schedule["timezone"])
    start = datetime.combine(day, time.fromisoformat(schedule["start"]), tzinfo=zone).astimezone(UTC)
    stops = [datetime.combine(day + timedelta(days=d), time.fromisoformat(schedule["stop"]), tzinfo=zone).astimezone(UTC) for d in (-1, 0, 1)]
    return schedule["stop"] is not None and start in stops


def test_a_time_that_is_skipped_comes_later_and_one_that_is_shown_twice_comes_once() -> None:
    berlin = {"start": "02:30", "stop": None, "days": [7], "timezone": "Europe/Berlin"}
    gap = next_occurrence(berlin, datetime(2026, 3, 28, tzinfo=UTC))
    assert gap is not None
    assert gap.at == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)  # 03:30 in summer time
    fold = next_occurrence(berlin, datetime(2026, 10, 24, tzinfo=UTC))
    assert fold is not None
    assert fold.at == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # the first 02:30
    following = next_occurrence(berlin, fold.at)
    assert following is not None
    assert following.at == datetime(2026, 11, 1, 1, 30, tzinfo=UTC)


def test_a_stop_after_midnight_belongs_to_the_day_before() -> None:
    night = {"start": "20:00", "stop": "06:00", "days": [5], "timezone": "UTC"}
    stop = next_occurrence(night, datetime(2026, 11, 20, 21, tzinfo=UTC))  # a Friday
    assert stop is not None
    assert (stop.at, stop.action) == (datetime(2026, 11, 21, 6, tzinfo=UTC), STOP)


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ({"start": "9:00"}, "a time of day such as 09:00"),
        ({"start": "24:00"}, "a time of day"),
        ({"start": 900}, "a time of day"),
        ({}, ""),
        ({"days": [1]}, "Give a time"),
        ({"start": "09:00", "stop": "09:00"}, "must differ"),
        ({"start": "09:00", "days": []}, "numbers from 1"),
        ({"start": "09:00", "days": [0]}, "numbers from 1"),
        ({"start": "09:00", "days": [True]}, "numbers from 1"),
        ({"start": "09:00", "days": "Mon"}, "numbers from 1"),
        ({"start": "09:00", "timezone": "Mars/Olympus"}, "must be a name such as"),
        ({"start": "09:00", "timezone": "../../etc/passwd"}, "must be a name such as"),
        ({"start": "09:00", "timezone": "Asia"}, "must be a name such as"),
        ({"start": "09:00", "timezone": "/etc/localtime"}, "must be a name such as"),
        ({"start": "09:00", "every": "day"}, "Unknown: every"),
        ("09:00", "Must be an object"),
    ],
)
def test_a_bad_schedule_is_refused_naming_what_is_wrong(world: World, schedule: Any, says: str) -> None:
    if not says:
        assert check_schedule(schedule, world.alice) == {}
        return
    with pytest.raises(ValidationError, match=says) as caught:
        world.request(schedule=schedule)
    assert list(caught.value.errors) == ["schedule"]
    assert not Environment.objects.exists()


def test_a_schedule_has_workdays_and_the_time_zone_of_the_one_who_sets_it(world: World, settings: Any) -> None:
    settings.TIME_ZONE = "Europe/Berlin"
    environment = world.request(schedule={"start": "09:00"})
    assert environment.schedule == {"start": "09:00", "stop": None, "days": [1, 2, 3, 4, 5], "timezone": "Europe/Berlin"}
    assert environment.schedule_next_at is not None
    world.alice.timezone = "Asia/Shanghai"
    changed = services.environment_schedule(actor=world.alice, environment_id=environment.pk, schedule={"stop": "20:00", "days": [7, 6, 7]})
    assert changed.schedule == {"start": None, "stop": "20:00", "days": [6, 7], "timezone": "Asia/Shanghai"}
    assert changed.schedule_next_at is not None
    assert changed.schedule_next_at.astimezone(ZoneInfo("Asia/Shanghai")).hour == 20
    assert Event.objects.filter(environment=environment, code="Scheduled", message__contains="stop 20:00, Sat Sun (Asia/Shanghai)").exists()
    assert services.environment_schedule(actor=world.alice, environment_id=environment.pk, schedule=None).schedule_next_at is None
    for outsider in (world.charlie, world.bob):
        with pytest.raises(NotFound):
            services.environment_schedule(actor=outsider, environment_id=environment.pk, schedule=None)


# --- what it does -----------------------------------------------------------------


def due(environment: Environment, action: str, late: timedelta = timedelta(seconds=5), **changes: Any) -> Environment:
    """Its schedule says `action` at the minute that began `late` ago, at the least."""
    moment = (timezone.now() - late).replace(second=0, microsecond=0)
    other = {START: None, STOP: None}
    schedule = {**other, action: f"{moment:%H:%M}", "days": [1, 2, 3, 4, 5, 6, 7], "timezone": "UTC"}
    Environment.objects.filter(pk=environment.pk).update(schedule=schedule, schedule_next_at=moment, **changes)
    environment.refresh_from_db()
    return environment


def codes(environment: Environment) -> list[str]:
    return list(Event.objects.filter(environment=environment).order_by("seq").values_list("code", flat=True))


def stopped(world: World, **changes: Any) -> Environment:
    environment = world.running(**changes)
    services.environment_stop(actor=world.alice, environment_id=environment.pk)
    return world.bring_to(environment, "stopping", "stopped")


def test_a_schedule_starts_what_is_stopped_as_its_owner_would(world: World) -> None:
    environment = due(stopped(world), START)
    assert services.timers_run()["schedule"] == 1
    environment.refresh_from_db()
    assert (environment.state, environment.desired) == (State.QUEUED, Desired.RUNNING)
    assert environment.reserved["cpu"] == 1000
    start = Event.objects.get(environment=environment, code="ScheduleStart")
    assert start.actor == world.alice
    assert environment.schedule_next_at is not None
    assert environment.schedule_next_at > timezone.now()
    assert services.timers_run()["schedule"] == 0


def test_a_refused_start_is_told_once_and_not_tried_again_until_the_next_time(world: World) -> None:
    environment = due(stopped(world), START)
    world.limit("cpu", 0)
    services.timers_run()
    services.timers_run()
    environment.refresh_from_db()
    assert (environment.state, environment.desired, environment.reserved) == (State.STOPPED, Desired.STOPPED, {})
    assert codes(environment).count("ScheduleRefused") == 1
    told = Notification.objects.get(code="ScheduleRefused")
    assert told.user == world.alice
    assert "Team vision may use 0 CPU" in told.message
    assert environment.schedule_next_at is not None
    assert environment.schedule_next_at > timezone.now()


def test_a_scheduled_start_beyond_self_service_asks_for_approval(world: World) -> None:
    environment = due(stopped(world), START)
    ApprovalRule.objects.create(template=Template.objects.get(slug="notebook"))
    services.timers_run()
    environment.refresh_from_db()
    assert (environment.state, environment.reserved) == (State.AWAITING_APPROVAL, {})
    assert Notification.objects.filter(user=world.lena, code="ApprovalAsked").exists()


def test_a_start_missed_by_little_is_made_up_and_one_missed_by_much_is_left_out_with_an_event(world: World) -> None:
    little, much = due(stopped(world), START, timedelta(minutes=100)), due(stopped(world, name="much"), START, timedelta(minutes=150))
    services.timers_run()
    little.refresh_from_db()
    much.refresh_from_db()
    assert (little.desired, much.desired) == (Desired.RUNNING, Desired.STOPPED)
    assert codes(much)[-1] == "ScheduleMissed"


def test_a_start_waits_for_one_that_is_still_being_stopped(world: World) -> None:
    environment = world.running()
    services.environment_stop(actor=world.alice, environment_id=environment.pk)
    due(environment, START)
    services.timers_run()
    world.bring_to(environment, "stopping", "stopped")
    assert environment.desired == Desired.STOPPED
    services.timers_run()
    environment.refresh_from_db()
    assert environment.desired == Desired.RUNNING
    assert "ScheduleRefused" not in codes(environment)


def test_a_schedule_stops_what_runs_names_itself_and_never_deletes(world: World) -> None:
    environment = due(world.running(), STOP, started_at=timezone.now() - timedelta(hours=9))
    assert services.timers_run()["schedule"] == 1
    world.bring_to(environment, "stopping", "stopped")
    assert (environment.desired, environment.reason, environment.delete_at) == (Desired.STOPPED, "Schedule", None)
    assert Notification.objects.get(code="Schedule").message == "Its schedule stopped nb."


def test_a_stop_does_not_end_what_was_started_after_its_time(world: World) -> None:
    environment = due(world.running(), STOP, timedelta(hours=1))
    services.timers_run()
    environment.refresh_from_db()
    assert environment.desired == Desired.RUNNING
    assert codes(environment)[-1] == "ScheduleMissed"


def test_of_several_times_that_passed_while_the_portal_was_away_the_last_counts(world: World) -> None:
    environment = stopped(world)
    now = timezone.now()
    late = now - timedelta(minutes=10)
    early = late - timedelta(hours=1)
    schedule = {"start": f"{early:%H:%M}", "stop": f"{late:%H:%M}", "days": [1, 2, 3, 4, 5, 6, 7], "timezone": "UTC"}
    Environment.objects.filter(pk=environment.pk).update(schedule=schedule, schedule_next_at=early - timedelta(days=5))
    services.timers_run()
    environment.refresh_from_db()
    assert environment.desired == Desired.STOPPED
    assert codes(environment)[-1] == "Stopped", "it is stopped as it should be by now"


def test_what_is_being_deleted_follows_no_schedule(world: World) -> None:
    environment = world.running(schedule={"stop": "20:00"})
    services.environment_delete(actor=world.alice, environment_id=environment.pk)
    environment.refresh_from_db()
    assert environment.schedule_next_at is None
    due(environment, STOP)
    services.timers_run()
    environment.refresh_from_db()
    assert (environment.desired, environment.schedule_next_at) == (Desired.DELETED, None)
