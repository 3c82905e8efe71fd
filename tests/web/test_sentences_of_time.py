"""Every sentence that approval, timers, schedules and idleness write is one that pages can show in the reader's language."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from portal.domain import services
from portal.domain.errors import DomainError
from portal.domain.models import Approval, ApprovalRule, Environment, Event, Flavor, Notification, Template
from portal.web.phrases import _patterns
from tests.portal.domain.clock import clock_at
from tests.portal.world import World, make_world

QUIET: dict[str, Any] = {"notebook": {"last": None, "kernels_busy": 0}, "cpu_percent": None, "accelerator_percent": None}


@pytest.fixture
def world(db: None) -> World:
    return make_world()


def known(text: str) -> bool:
    return any(pattern.fullmatch(text) for pattern, _ in _patterns())


def answers(world: World) -> list[str]:
    """Each way in which a question can end; what was refused on the way."""
    refusals = []
    ApprovalRule.objects.create(flavor=Flavor.objects.get(slug="cpu-medium"))
    ApprovalRule.objects.create(template=Template.objects.get(slug="dask"))
    ApprovalRule.objects.create(template=Template.objects.get(slug="dask"), flavor=Flavor.objects.get(slug="cpu-medium"))
    ApprovalRule.objects.create(resource="hours", above=4)
    ApprovalRule.objects.create(resource="cpu", above=2000)
    wish: dict[str, Any] = {"template": "dask", "flavor": "cpu-medium", "params": {"workers": 4}}
    granted, plain, refused, lapsing = (world.request(name=name, **wish) for name in ("granted", "plain", "refused", "lapsing"))
    key = {row.environment_id: row.pk for row in Approval.objects.all()}
    services.approval_grant(actor=world.lena, approval_id=key[granted.pk], flavor="cpu-small", workers=2, expires_in=timedelta(hours=2), note="less will do")
    services.approval_grant(actor=world.lena, approval_id=key[plain.pk])
    services.approval_refuse(actor=world.admin, approval_id=key[refused.pk], note="no")
    for verb in (
        lambda: services.approval_refuse(actor=world.lena, approval_id=key[refused.pk], note="no"),
        lambda: services.approval_refuse(actor=world.lena, approval_id=key[granted.pk], note="no"),
        lambda: services.approval_grant(actor=world.alice, approval_id=key[lapsing.pk]),
        lambda: services.approval_refuse(actor=world.lena, approval_id=key[lapsing.pk], note=""),
        lambda: services.environment_scale(actor=world.alice, environment_id=lapsing.pk, workers=2),
        lambda: services.environment_scale(actor=world.alice, environment_id=granted.pk, workers=9),
        lambda: services.approval_grant(actor=world.lena, approval_id=key[lapsing.pk], workers=9),
        lambda: services.approval_grant(actor=world.lena, approval_id=key[lapsing.pk], expires_in=timedelta(hours=90)),
        lambda: services.approval_grant(actor=world.lena, approval_id=key[lapsing.pk], flavor="gpu-1"),
        lambda: services.environment_keep(actor=world.alice, environment_id=granted.pk),
    ):
        with pytest.raises(DomainError) as caught:
            verb()
        refusals += [message for messages in caught.value.errors.values() for message in messages] or [caught.value.detail]
    Approval.objects.filter(status="pending").update(lapses_at=timezone.now())
    services.timers_run()
    return refusals


def time_passes(world: World) -> None:
    with clock_at(2026, 11, 23, 8) as clock:
        idle, over = world.running(name="idle"), world.running(name="over", expires_in=timedelta(hours=1))
        late, victim = world.running(name="late"), world.running(name="victim")
        clock.forward(minutes=55)
        for sample in (QUIET, QUIET | {"cpu_percent": 90.0}):
            services.activity_record(idle.pk, sample, clock.now)
        services.timers_run()
        clock.forward(minutes=50)
        winner = world.bring_to(world.request(actor=world.bob, name="winner"), "queued")
        Environment.objects.filter(pk=victim.pk).update(preempt_at=clock.now, preempted_for=winner.pk)
        services.environment_schedule(actor=world.alice, environment_id=late.pk, schedule={"start": "09:30", "stop": "10:00", "days": [1]})
        clock.forward(minutes=20)
        services.timers_run()
        services.environment_schedule(actor=world.alice, environment_id=idle.pk, schedule={"stop": "10:00"})
        world.bring_to(late, "stopping", "stopped")
        Environment.objects.filter(pk=late.pk).update(schedule={"start": "06:00", "stop": None, "days": [1], "timezone": "UTC"}, schedule_next_at=clock.now)
        Environment.objects.filter(pk=late.pk).update(schedule_next_at=clock.now - timedelta(hours=9))
        services.timers_run()
        services.environment_schedule(actor=world.alice, environment_id=late.pk, schedule={"start": "10:30", "days": [1]})
        world.limit("cpu", 0)
        clock.forward(minutes=30)
        services.timers_run()
        services.environment_schedule(actor=world.alice, environment_id=late.pk, schedule=None)
        for _ in range(90):
            clock.forward(minutes=1)
            services.activity_record(idle.pk, QUIET, clock.now)
        clock.forward(days=60)
        services.timers_run()
        services.environment_keep(actor=world.alice, environment_id=over.pk)
        clock.forward(days=2)
        services.timers_run()


def test_every_sentence_is_known_to_the_pages(world: World) -> None:
    time_passes(world)
    world.limit("cpu", None)
    said = answers(world)
    events = dict(Event.objects.values_list("code", "message"))
    told = dict(Notification.objects.values_list("code", "message"))
    both = {"ExpirySoon", "Expired", "DeletionSoon", "StoppedTooLong", "IdleSoon", "Preempted", "ScheduleRefused", "Approved", "Refused", "ApprovalLapsed"}
    assert both <= events.keys()
    assert both <= told.keys()
    assert {"ApprovalNeeded", "ApprovedLess", "IdleOver", "Scheduled", "Unscheduled", "Kept", "ScheduleMissed", "AwaitingApproval"} <= events.keys()
    sentences = {*Event.objects.values_list("message", flat=True), *Notification.objects.values_list("message", flat=True), *said}
    assert sorted(text for text in sentences if not known(text)) == []
