"""What the workers look for: no user, no visibility."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db.models import Q, QuerySet

from ..lifecycle import Desired, State
from ..models import Environment, Team, Volume

# Named one by one, so that an index that begins with the state can be used: most rows of an old installation are deleted ones.
_LIVE = [state.value for state in State if state is not State.DELETED]


def due(now: datetime) -> QuerySet[Environment]:
    """Environments to look at: their check is due and nobody holds their lease."""
    # A lease that nobody holds is a back-off, which ends when a user asks for something (attempts 0).
    free = Q(lease_until=None) | Q(lease_until__lte=now) | Q(lease_holder="", attempts=0)
    return Environment.objects.filter(free, state__in=_LIVE, next_check_at__lte=now)


def environments_due(now: datetime, limit: int) -> list[UUID]:
    """Keys of `due`, most overdue first."""
    return list(due(now).order_by("next_check_at").values_list("pk", flat=True)[:limit])


def environments_expired(now: datetime) -> list[UUID]:
    """Environments that are wanted but past their expiry. What still waits for its start has time: its span begins with it."""
    waits = [State.REQUESTED, State.AWAITING_APPROVAL, State.QUEUED]
    query = Environment.objects.filter(desired=Desired.RUNNING, expires_at__lte=now).exclude(state__in=[*waits, State.FAILED, State.DELETED])
    return list(query.values_list("pk", flat=True))


def volumes_to_purge(team: Team | None = None) -> QuerySet[Volume]:
    """Volumes somebody asked to purge and no environment uses; `services.volume_forget` when the claim is gone."""
    live = Environment.objects.exclude(state=State.DELETED).filter(volume__isnull=False).values("volume")
    query = Volume.objects.exclude(purge_requested_at=None).exclude(pk__in=live).select_related("team", "owner")
    return query if team is None else query.filter(team=team)
