"""What is due because time passed: no user, no visibility. Each answers at most `limit` keys, the most overdue first."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Q, QuerySet

from .. import autoscale
from ..lifecycle import Desired, State
from ..models import Approval, Environment, Template

_RUNS = [State.PROVISIONING.value, State.RUNNING.value]


def expiries_ahead(now: datetime, horizon: timedelta, limit: int) -> list[tuple[UUID, datetime, int | None, str | None]]:
    """Of what runs and expires within `horizon` and was not warned of it: key, expiry, granted seconds, its template's `warn_before`."""
    query = Environment.objects.filter(desired=Desired.RUNNING, started_at__isnull=False, expires_at__gt=now, expires_at__lte=now + horizon)
    query = query.filter(expiry_warned_at=None, state__in=_RUNS).order_by("expires_at")
    rows = query.values_list("pk", "expires_at", "expires_in", "template_spec__warn_before")[:limit]
    return [(key, end, granted, span) for key, end, granted, span in rows if end]


def deletions_ahead(now: datetime, horizon: timedelta, limit: int) -> list[tuple[UUID, datetime, datetime | None, str | None]]:
    """Of what is to be deleted by itself: key, when, when that was warned of, its template's `delete_after`. Due ones, and those within
    `horizon` that were not warned of."""
    query = Environment.objects.filter(Q(delete_at__lte=now) | Q(delete_at__lte=now + horizon, delete_warned_at=None), desired=Desired.STOPPED)
    query = query.exclude(state__in=[State.DELETING, State.DELETED]).order_by("delete_at")
    rows = query.values_list("pk", "delete_at", "delete_warned_at", "template_spec__delete_after")[:limit]
    return [(key, when, warned_at, span) for key, when, warned_at, span in rows if when]


def preemptions_due(now: datetime, limit: int) -> list[UUID]:
    """Environments whose grace time is over."""
    query = Environment.objects.filter(state__in=[State.QUEUED.value, *_RUNS], desired=Desired.RUNNING, preempt_at__lte=now)
    return list(query.order_by("preempt_at").values_list("pk", flat=True)[:limit])


def approvals_lapsed(now: datetime, limit: int) -> list[UUID]:
    """Environments whose question nobody answered in time."""
    query = Approval.objects.filter(status=Approval.Status.PENDING, lapses_at__lte=now)
    return list(query.order_by("lapses_at").values_list("environment_id", flat=True)[:limit])


def schedules_due(now: datetime, limit: int) -> list[UUID]:
    """Environments whose schedule has something to do."""
    return list(Environment.objects.filter(schedule_next_at__lte=now).order_by("schedule_next_at").values_list("pk", flat=True)[:limit])


def warning_spans() -> set[str]:
    """Every `warn_before` of the templates that there are."""
    return {span for span in Template.objects.order_by().values_list("spec__warn_before", flat=True) if span}


def environments_that_scale() -> list[Environment]:
    """What runs and is scaled by its template's rule."""
    query = Environment.objects.filter(state=State.RUNNING, desired=Desired.RUNNING, template_spec__has_key="autoscale")
    rows = query.select_related("team", "owner", "template", "flavor__accelerator").order_by("created_at")
    return [row for row in rows if autoscale.is_on(row.template_spec, row.autoscale)]


def environments_with_idle_rule() -> QuerySet[Environment]:
    """What runs and is to be stopped when nobody uses it."""
    query = Environment.objects.filter(state=State.RUNNING, desired=Desired.RUNNING, template_spec__has_key="idle")
    return query.select_related("team", "owner", "template", "flavor__accelerator", "flavor__network").order_by("created_at")
