"""The sweep: environments whose check is due, claimed so that two sweeps do not wake a worker for the same ones."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from .. import selectors
from ..models import Environment

# Part of a sweep's period for which a claim holds: a nudge that got lost is sent again by the very next sweep.
_CLAIM = 0.8


def environments_claim(limit: int) -> list[UUID]:
    """Up to `limit` environments that are due, most overdue first; their next check is put off by less than a period.

    Rows that another sweep is claiming at this moment are passed over. A claim is no lease: whoever converges takes that. Once claimed
    they stand behind all that are still due, so nobody starves however many there are.
    """
    if limit <= 0:
        return []
    with transaction.atomic():
        now = timezone.now()
        due = selectors.due(now).select_for_update(skip_locked=True, no_key=True)
        keys = list(due.order_by("next_check_at").values_list("pk", flat=True)[:limit])
        Environment.objects.filter(pk__in=keys).update(next_check_at=now + timedelta(seconds=settings.SWEEP_SECONDS * _CLAIM))
        return keys
