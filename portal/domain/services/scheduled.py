"""Doing what a schedule says when its time has come."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from ..errors import DomainError
from ..lifecycle import Desired, State
from ..models import Environment, Event
from .environments import start_locked
from .events import append, lock
from .expiry import stop_by_itself, told
from .schedules import START, Occurrence, last_occurrence, local_time, next_time

# A start that is later than this, because the portal was away, is not made up: nobody expects it any more.
START_WINDOW = timedelta(hours=2)
_WAITS = frozenset({State.AWAITING_APPROVAL, State.FAILED, State.DELETING, State.DELETED})


def schedule_run(environment_id: UUID | str) -> bool:
    """Do what is due of an environment's schedule, and say when it is due next. Of several times that passed, the last one counts."""
    with transaction.atomic():
        environment, now = lock(environment_id), timezone.now()
        if environment is None or environment.schedule_next_at is None or environment.schedule_next_at > now:
            return False
        if not environment.schedule or environment.desired == Desired.DELETED or environment.state in (State.DELETING, State.DELETED):
            Environment.objects.filter(pk=environment.pk).update(schedule_next_at=None)
            return False
        passed = last_occurrence(environment.schedule, now)
        # Rules of the time zone that changed meanwhile may leave nothing that passed since.
        due = passed if passed is not None and passed.at >= environment.schedule_next_at else None
        if due is not None and due.action == START and _still_stopping(environment) and now - due.at <= START_WINDOW:
            return False  # looked at again at the next turn
        Environment.objects.filter(pk=environment.pk).update(schedule_next_at=next_time(environment.schedule, now))
        if due is None:
            return False
        return _start(environment, due, now) if due.action == START else _stop(environment, due)


def _still_stopping(environment: Environment) -> bool:
    return environment.desired == Desired.STOPPED and environment.state not in (State.STOPPED, State.FAILED)


def _start(environment: Environment, due: Occurrence, now: datetime) -> bool:
    if environment.desired == Desired.RUNNING and environment.state != State.FAILED:
        return False
    if now - due.at > START_WINDOW:
        planned = local_time(due.at, environment.owner)
        append(environment, kind=Event.Kind.INFO, code="ScheduleMissed", message=f"Its start of {planned} was missed while the portal was away.")
        return True
    try:
        with transaction.atomic():
            start_locked(environment, environment.owner, code="ScheduleStart", message="Its schedule starts it.")
    except DomainError as error:
        environment.refresh_from_db()  # what the start had set already is rolled back
        append(environment, kind=Event.Kind.WARNING, code="ScheduleRefused", message=f"Its schedule could not start it: {error.detail}")
        told(environment, "ScheduleRefused", f"Its schedule could not start {environment.name}: {error.detail}")
    return True


def _stop(environment: Environment, due: Occurrence) -> bool:
    if environment.desired != Desired.RUNNING or environment.state in _WAITS:
        return False
    begun = environment.started_at or environment.queued_at or environment.created_at
    if begun > due.at:  # started since, by somebody who wants it now
        planned = local_time(due.at, environment.owner)
        append(environment, kind=Event.Kind.INFO, code="ScheduleMissed", message=f"Its stop of {planned} is left out, since it was started later.")
        return True
    message = "Its schedule stops it. It starts again by its schedule, or when somebody starts it; its home volume is kept."
    stop_by_itself(environment, reason="Schedule", message=message, notification=f"Its schedule stopped {environment.name}.", deletes=False)
    return True
