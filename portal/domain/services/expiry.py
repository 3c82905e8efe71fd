"""The end of an environment that nobody asked for: its time is over, or it stayed stopped too long. Each is said before it happens.

Each function looks at one environment under its lock and does what is due now, so any number of processes may call them at once. All
times come from the environment's own copy of its template, else from the settings.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from ..durations import format_duration, parse_duration
from ..lifecycle import Desired, State
from ..models import Environment, Event
from .events import append, lock, write
from .notifications import notify

DELETION_WARNING = timedelta(hours=24)  # or half of the period, where that is shorter
_GONE = frozenset({State.DELETING, State.DELETED})
_NOT_STARTED = frozenset({State.REQUESTED, State.AWAITING_APPROVAL, State.QUEUED})


def expiry_warning(warn_before: str | None, granted_seconds: int | None) -> timedelta:
    """How long before expiry to warn; half of what is granted where that is not longer than the usual. Zero: never."""
    span = parse_duration(warn_before) if warn_before else timedelta(minutes=settings.EXPIRY_WARNING_MINUTES)
    granted = timedelta(seconds=granted_seconds) if granted_seconds is not None else None
    return granted / 2 if granted is not None and granted <= span else span


def deletion_period(delete_after: str | None) -> timedelta:
    """How long one that was stopped by expiry or idleness stays. Zero: for good."""
    return parse_duration(delete_after) if delete_after else timedelta(days=settings.DELETE_STOPPED_DAYS)


def deletion_warning(delete_after: str | None) -> timedelta:
    """How long before deletion to warn."""
    period = deletion_period(delete_after)
    return min(DELETION_WARNING, period / 2) if period else DELETION_WARNING


def in_words(span: timedelta) -> str:
    """A span that is still to come, for people: whole minutes, at least one."""
    return format_duration(timedelta(minutes=max(1, -(-span // timedelta(minutes=1)))))


def told(environment: Environment, code: str, message: str) -> None:
    """Tell the owner of what the last event of a locked environment says. Once, since the event is."""
    notify([environment.owner], code, message, environment, source=f"{environment.pk}-{environment.last_seq}")


def stop_by_itself(environment: Environment, *, reason: str, message: str, notification: str, deletes: bool) -> None:
    """Stop a locked environment without anybody asking. With `deletes` it is deleted later, unless it is started or kept."""
    period = deletion_period(environment.template_spec.get("delete_after")) if deletes else timedelta(0)
    changes: dict[str, Any] = {
        "desired": Desired.STOPPED.value,
        "reason": reason,
        "message": message,
        "preempt_at": None,
        "delete_at": timezone.now() + period if period else None,
        "delete_warned_at": None,
    }
    write(environment, actor=None, code=reason, message=message, changes=changes)
    told(environment, reason, notification)


def environment_expire(environment_id: UUID | str) -> bool:
    """Stop an environment whose time is over; False when it is not, or is not wanted any more, or still waits for its start."""
    with transaction.atomic():
        environment = lock(environment_id)
        if environment is None or environment.desired != Desired.RUNNING or environment.state in _GONE | _NOT_STARTED:
            return False
        if environment.expires_at is None or environment.expires_at > timezone.now():
            return False
        message = "Its time was over, so it is stopped. Start it again to go on; its home volume is kept."
        notification = f"The time of {environment.name} was over, so it was stopped. Start it again to go on; its home volume is kept."
        stop_by_itself(environment, reason="Expired", message=message, notification=notification, deletes=True)
        return True


def environment_complete(environment_id: UUID | str, message: str, generation: int | None = None) -> bool:
    """Stop an environment whose work is done, as its template's success rule says. `message`: how it ended. False when somebody asked for
    something else meanwhile (`generation`), or it is not wanted any more."""
    with transaction.atomic():
        environment = lock(environment_id)
        if environment is None or environment.desired != Desired.RUNNING or environment.state in _GONE | _NOT_STARTED:
            return False
        if generation is not None and environment.desired_generation != generation:
            return False
        notification = f"{environment.name} has done its work, so it was stopped. What it printed is kept."
        stop_by_itself(environment, reason="Completed", message=message, notification=notification, deletes=True)
        return True


def environment_warn_of_expiry(environment_id: UUID | str) -> bool:
    """Say that its time will be over soon; once per expiry."""
    with transaction.atomic():
        environment = lock(environment_id)
        if environment is None or environment.desired != Desired.RUNNING or environment.state in _GONE | _NOT_STARTED:
            return False
        now, end = timezone.now(), environment.expires_at
        if end is None or end <= now or environment.expiry_warned_at is not None:
            return False
        if end - expiry_warning(environment.template_spec.get("warn_before"), environment.expires_in) > now:
            return False
        left = in_words(end - now)
        Environment.objects.filter(pk=environment.pk).update(expiry_warned_at=now)
        append(environment, kind=Event.Kind.WARNING, code="ExpirySoon", message=f"Its time is over in {left}; then it is stopped. Extend it to go on.")
        told(environment, "ExpirySoon", f"{environment.name} is stopped in {left}, when its time is over. Extend it to go on.")
        return True


def environment_delete_unused(environment_id: UUID | str) -> bool:
    """Delete, or first warn of deleting, one that expiry or idleness stopped and nobody started or kept since."""
    with transaction.atomic():
        environment = lock(environment_id)
        if environment is None or environment.desired != Desired.STOPPED or environment.state in _GONE or environment.delete_at is None:
            return False
        now = timezone.now()
        if environment.delete_warned_at is None:
            return _warn_of_deletion(environment, now)
        if environment.delete_at > now:
            return False
        message = "It was stopped and nobody started or kept it, so it is deleted. Its home volume is kept."
        changes = {
            "desired": Desired.DELETED.value,
            "reason": "StoppedTooLong",
            "message": message,
            "delete_at": None,
            "schedule_next_at": None,
        }
        write(environment, actor=None, code="StoppedTooLong", message=message, changes=changes)
        told(environment, "StoppedTooLong", f"{environment.name} was stopped and nobody started or kept it, so it is deleted. Its home volume is kept.")
        return True


def _warn_of_deletion(environment: Environment, now: datetime) -> bool:
    lead = deletion_warning(environment.template_spec.get("delete_after"))
    due = environment.delete_at or now
    if due - lead > now:
        return False
    # Late, because the portal was away: the time between warning and deletion is given all the same.
    due = due if due > now else now + lead
    left = in_words(due - now)
    Environment.objects.filter(pk=environment.pk).update(delete_warned_at=now, delete_at=due)
    message = f"It is deleted in {left} unless it is started or kept; its home volume stays."
    append(environment, kind=Event.Kind.WARNING, code="DeletionSoon", message=message)
    told(environment, "DeletionSoon", f"{environment.name} is deleted in {left} unless it is started or kept; its home volume stays.")
    return True


def environment_preempt(environment_id: UUID | str) -> bool:
    """Stop one whose grace time is over in favour of one of higher priority, while that still waits. It is never deleted for it."""
    with transaction.atomic():
        environment = lock(environment_id)
        if environment is None or environment.desired != Desired.RUNNING or environment.state in _GONE:
            return False
        if environment.preempt_at is None or environment.preempt_at > timezone.now():
            return False
        waiting = Environment.objects.filter(pk__in=[environment.preempted_for], state=State.QUEUED, desired=Desired.RUNNING, admitted_at=None)
        winner = waiting.select_related("owner", "team").first()
        if winner is None:
            return False  # the next pass of the queue takes the mark away
        whom = f"{winner.name} of {winner.owner.username} in team {winner.team.slug}"
        message = f"Stopped so that {whom}, which is of higher priority, can start. Start it again to wait for room; its home volume is kept."
        notification = f"{environment.name} was stopped so that {whom}, which is of higher priority, can start. Start it again to wait for room."
        stop_by_itself(environment, reason="Preempted", message=message, notification=notification, deletes=False)
        return True


def longest_warning(spans: Collection[str]) -> timedelta:
    """The longest time before an expiry at which anything is warned, by the settings and by the templates' `warn_before`."""
    return max(expiry_warning(span, None) for span in (None, *spans))
