"""What happens because time passes, and that it is said before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from portal.domain import selectors, services
from portal.domain.errors import Conflict, NotFound
from portal.domain.lifecycle import Desired, State
from portal.domain.models import Environment, Event, Notification, Template, Tick
from portal.domain.services import timers
from tests.portal.domain.clock import clock_at
from tests.portal.world import World


def codes(environment: Environment) -> list[str]:
    return list(Event.objects.filter(environment=environment).order_by("seq").values_list("code", flat=True))


def told(environment: Environment, code: str) -> list[str]:
    return list(Notification.objects.filter(environment=environment, code=code).values_list("message", flat=True))


def template(**spans: str | None) -> None:
    """The notebook template with these fields (None: without)."""
    row = Template.objects.get(slug="notebook")
    spec = {key: value for key, value in row.spec.items() if key not in spans} | {key: value for key, value in spans.items() if value}
    Template.objects.filter(pk=row.pk).update(spec=spec)


def fresh(environment: Environment) -> Environment:
    return Environment.objects.get(pk=environment.pk)


# --- warning before expiry ----------------------------------------------------------


@pytest.mark.parametrize(
    ("warn_before", "granted", "silent", "warned"),
    [
        (None, 120, 89, 91),  # minutes: the setting's 30 before the end
        ("10m", 120, 109, 111),
        ("3h", 120, 59, 61),  # longer than what is granted: half of it
        ("2h", 120, 59, 61),
    ],
)
def test_a_warning_comes_before_expiry_and_once(world: World, warn_before: str | None, granted: int, silent: int, warned: int) -> None:
    template(warn_before=warn_before)
    with clock_at(2026, 11, 23, 8) as clock:
        environment = world.running(expires_in=timedelta(minutes=granted))
        clock.forward(minutes=silent)
        assert services.timers_run()["warn"] == 0
        clock.forward(minutes=warned - silent)
        assert services.timers_run()["warn"] == 1
        assert services.timers_run()["warn"] == 0
        assert told(environment, "ExpirySoon") == [f"nb is stopped in {granted - warned}m, when its time is over. Extend it to go on."]
        assert codes(environment)[-1] == "ExpirySoon"
        clock.forward(minutes=granted)
        assert services.timers_run()["expire"] == 1
        assert len(told(environment, "Expired")) == 1


def test_an_extended_environment_is_warned_again_before_its_new_end(world: World) -> None:
    with clock_at(2026, 11, 23, 8) as clock:
        environment = world.running(expires_in=timedelta(hours=2))
        clock.forward(minutes=100)
        services.timers_run()
        services.environment_extend(actor=world.alice, environment_id=environment.pk, expires_in=timedelta(hours=2))
        assert services.timers_run()["warn"] == 0
        clock.forward(minutes=100)
        assert services.timers_run()["warn"] == 1
        assert len(told(environment, "ExpirySoon")) == 2


def test_the_time_begins_with_the_start_so_what_waits_is_neither_warned_nor_expired(world: World) -> None:
    with clock_at(2026, 11, 23, 8) as clock:
        environment = world.request(expires_in=timedelta(hours=1))
        world.bring_to(environment, "queued")
        clock.forward(hours=5)
        done = services.timers_run()
        assert (done["warn"], done["expire"]) == (0, 0)
        assert not services.environment_expire(environment.pk)
        world.bring_to(environment, "provisioning")
        assert environment.expires_at == datetime(2026, 11, 23, 14, tzinfo=UTC)
        clock.forward(minutes=61)
        assert services.timers_run()["expire"] == 1, "it holds room while it is being set up"


# --- suspend, then delete -----------------------------------------------------------


def expired(world: World, clock: Any, **changes: Any) -> Environment:
    environment = world.running(expires_in=timedelta(hours=1), **changes)
    clock.forward(hours=1)
    services.timers_run()
    return world.bring_to(environment, "stopping", "stopped")


@pytest.mark.parametrize(
    ("delete_after", "days", "lead"),
    [("10d", 10, timedelta(hours=24)), (None, 14, timedelta(hours=24)), ("24h", 1, timedelta(hours=12))],
)
def test_an_expired_one_is_warned_of_its_deletion_and_then_deleted_but_for_its_home(
    world: World, settings: Any, delete_after: str | None, days: int, lead: timedelta
) -> None:
    template(delete_after=delete_after)
    with clock_at(2026, 11, 23, 8) as clock:
        environment = expired(world, clock)
        assert environment.delete_at == clock.now + timedelta(days=days)
        clock.now = environment.delete_at - lead - timedelta(minutes=1)
        assert services.timers_run()["delete"] == 0
        clock.forward(minutes=2)
        assert services.timers_run()["delete"] == 1
        assert services.timers_run()["delete"] == 0
        assert len(told(environment, "DeletionSoon")) == 1
        clock.now = environment.delete_at + timedelta(seconds=1)
        assert services.timers_run()["delete"] == 1
        assert services.timers_run()["delete"] == 0
        gone = fresh(environment)
        assert (gone.desired, gone.purge, gone.reason) == (Desired.DELETED, False, "StoppedTooLong")
        assert "nobody started or kept it" in gone.message
        world.bring_to(environment, "deleting", "deleted")
        assert selectors.volumes_visible_to(world.alice).exists()


def test_deletion_after_a_downtime_still_gives_the_time_of_the_warning(world: World) -> None:
    with clock_at(2026, 11, 23, 8) as clock:
        environment = expired(world, clock)
        clock.forward(days=60)
        assert services.timers_run()["delete"] == 1
        late = fresh(environment)
        assert (late.desired, late.delete_at) == (Desired.STOPPED, clock.now + timedelta(hours=24))
        clock.forward(hours=25)
        services.timers_run()
        assert fresh(environment).desired == Desired.DELETED


@pytest.mark.parametrize(
    "verb",
    [
        lambda world, key: services.environment_keep(actor=world.alice, environment_id=key),
        lambda world, key: services.environment_start(actor=world.alice, environment_id=key),
        lambda world, key: services.environment_extend(actor=world.alice, environment_id=key, expires_in=timedelta(hours=1)),
    ],
    ids=["keep", "start", "extend"],
)
def test_starting_extending_and_keeping_call_the_deletion_off(world: World, verb: Any) -> None:
    with clock_at(2026, 11, 23, 8) as clock:
        environment = expired(world, clock)
        clock.forward(days=13, hours=12)
        services.timers_run()
        verb(world, environment.pk)
        spared = fresh(environment)
        assert (spared.delete_at, spared.delete_warned_at) == (None, None)
        clock.forward(days=90)
        assert services.timers_run()["delete"] == 0


def test_keeping_is_refused_where_there_is_nothing_to_keep_from_and_to_outsiders(world: World) -> None:
    environment = world.running()
    with pytest.raises(Conflict, match="not going to be deleted"):
        services.environment_keep(actor=world.alice, environment_id=environment.pk)
    for outsider in (world.bob, world.charlie):
        with pytest.raises(NotFound):
            services.environment_keep(actor=outsider, environment_id=environment.pk)


def test_what_its_owner_stopped_is_never_deleted_nor_anything_where_the_setting_says_so(world: World, settings: Any) -> None:
    with clock_at(2026, 11, 23, 8) as clock:
        environment = world.running()
        services.environment_stop(actor=world.alice, environment_id=environment.pk)
        assert fresh(environment).delete_at is None
        settings.DELETE_STOPPED_DAYS = 0
        template(delete_after=None)
        other = expired(world, clock, name="other")
        assert (other.reason, other.delete_at) == ("Expired", None)
        clock.forward(days=400)
        assert services.timers_run()["delete"] == 0


# --- preemption ---------------------------------------------------------------------


def test_one_that_makes_room_is_stopped_when_its_grace_is_over_naming_for_whom_and_never_deleted(world: World) -> None:
    with clock_at(2026, 11, 23, 8) as clock:
        victim, winner = world.running(), world.request(actor=world.bob, name="urgent")
        world.bring_to(winner, "queued")
        Environment.objects.filter(pk=victim.pk).update(preempt_at=clock.now + timedelta(minutes=5), preempted_for=winner.pk)
        assert services.timers_run()["preempt"] == 0
        clock.forward(minutes=6)
        assert services.timers_run()["preempt"] == 1
        assert services.timers_run()["preempt"] == 0
        stopped = world.bring_to(victim, "stopping", "stopped")
        assert (stopped.desired, stopped.reason, stopped.delete_at, stopped.preempt_at) == (Desired.STOPPED, "Preempted", None, None)
        assert "so that urgent of bob in team speech" in stopped.message
        assert len(told(victim, "Preempted")) == 1


def test_nobody_is_stopped_for_one_that_does_not_wait_any_more(world: World) -> None:
    victim = world.running()
    for whom in (uuid4(), world.running(name="runs").pk, None):
        Environment.objects.filter(pk=victim.pk).update(preempt_at=timezone.now() - timedelta(minutes=1), preempted_for=whom)
        assert services.timers_run()["preempt"] == 0
    assert fresh(victim).desired == Desired.RUNNING


# --- the machinery ------------------------------------------------------------------


def test_one_environment_that_fails_keeps_no_other_from_its_turn(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with clock_at(2026, 11, 23, 8) as clock:
        broken, sound = world.running(name="broken", expires_in=timedelta(hours=1)), world.running(name="sound", expires_in=timedelta(hours=1))
        spec = fresh(broken).template_spec | {"delete_after": "whenever"}
        Environment.objects.filter(pk=broken.pk).update(template_spec=spec)
        clock.forward(hours=2)
        assert services.timers_run()["expire"] == 1
        assert fresh(sound).reason == "Expired"
        assert fresh(broken).desired == Desired.RUNNING
    assert str(broken.pk) in caplog.text


def test_the_due_are_found_through_an_index(world: World) -> None:
    from django.db import connection

    world.running()
    with connection.cursor() as cursor:
        for column in ("delete_at", "schedule_next_at", "expires_at"):
            cursor.execute(f"EXPLAIN QUERY PLAN SELECT id FROM domain_environment WHERE {column} <= '2026-01-01' ORDER BY {column} LIMIT 200")
            plan = " ".join(str(row) for row in cursor.fetchall())
            assert f"({column}<?)" in plan, plan


# --- notifications ------------------------------------------------------------------


def test_a_cause_is_told_once_to_each_and_to_nobody_inactive(world: World) -> None:
    world.bob.is_active = False
    environment = world.request()
    assert services.notify([world.alice, world.lena, world.alice, world.bob], "X", "said", environment, source="one") == 2
    assert services.notify([world.alice, world.charlie], "X", "said", environment, source="one") == 1
    assert services.notify([world.alice], "X", "said", source="two") == 1
    assert {row.source for row in selectors.notifications_of(world.alice)} == {"one", "two"}
    assert not selectors.notifications_of(world.bob).exists()


def test_one_reads_ones_own_only(world: World) -> None:
    for source in ("one", "two", "three"):
        services.notify([world.alice, world.lena], "X", source, source=source)
    newest, *_ = selectors.notifications_of(world.alice)
    hers = selectors.notifications_of(world.lena).first()
    assert hers is not None
    assert services.notifications_read(actor=world.alice, ids=[newest.pk, hers.pk, 10**30, "x"]) == 1  # type: ignore[list-item]
    assert selectors.notifications_of(world.alice, unread=True).count() == 2
    assert selectors.notifications_of(world.lena, unread=True).count() == 3
    assert services.notifications_read(actor=world.alice) == 2
    assert services.notifications_read(actor=world.alice) == 0


def test_read_ones_are_forgotten_after_thirty_days_and_unread_ones_are_not(world: World) -> None:
    with clock_at(2026, 11, 23, 8) as clock:
        services.notify([world.alice], "X", "read", source="read")
        services.notifications_read(actor=world.alice)
        services.notify([world.alice], "X", "unread", source="unread")
        clock.forward(days=29)
        assert services.timers_run()["purge"] == 0
        clock.forward(days=2)
        assert services.timers_run()["purge"] == 1
        assert [row.source for row in selectors.notifications_of(world.alice)] == ["unread"]
        assert Tick.objects.get(name=timers._PURGE).due_at == clock.now + timedelta(hours=1)


@pytest.mark.django_db(transaction=True)
def test_a_notification_is_announced_to_its_user_after_commit(transactional_db: None, settings: Any) -> None:
    from asgiref.sync import async_to_sync
    from channels.layers import channel_layers, get_channel_layer

    from tests.portal.world import make_world

    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    channel_layers.backends.clear()
    try:
        world = make_world()
        layer = get_channel_layer()
        async_to_sync(layer.group_add)(f"user.{world.alice.pk}", "page")
        services.notify([world.alice, world.lena], "X", "said", source="one")
        services.notify([world.alice], "X", "said", source="one")
        services.notify([world.alice], "X", "said", source="two")
        heard = [async_to_sync(layer.receive)("page") for _ in range(2)]
        assert [(message["kind"], message["environment"]) for message in heard] == [("notification", None)] * 2
        assert not layer.channels.get("page") or layer.channels["page"].empty()
    finally:
        channel_layers.backends.clear()


def test_the_states_that_expire_are_those_that_hold_room(world: World) -> None:
    environment = world.running()
    Environment.objects.filter(pk=environment.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    for state in State:
        Environment.objects.filter(pk=environment.pk).update(state=state.value)
        assert bool(selectors.environments_expired(timezone.now())) == (
            state in (State.PROVISIONING, State.RUNNING, State.STOPPED, State.STOPPING, State.DELETING)
        )
