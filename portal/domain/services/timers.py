"""What happens because time passes: warnings, expiry, deletion, schedules, lapsed approvals, preemptions.

Each timer asks the database for the keys of what is due, some at a time, and handles each in a transaction of its own, which looks again
under the row's lock. So it may run in several processes at once, and one environment that fails keeps no other from its turn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import timedelta
from uuid import UUID

from django.utils import timezone

from .. import selectors
from ..models import Tick
from ..selectors import timed
from .approvals import approval_lapse
from .expiry import (
    DELETION_WARNING,
    deletion_warning,
    environment_delete_unused,
    environment_expire,
    environment_preempt,
    environment_warn_of_expiry,
    expiry_warning,
    longest_warning,
)
from .notifications import notifications_purge
from .quota import quota_turn
from .scheduled import schedule_run

logger = logging.getLogger(__name__)

_AT_ONCE = 200  # environments of one kind per turn; the rest come at the next, a few seconds later
_LOOKED_AT = 1000  # rows per turn whose warning may be due, by their own template
_PURGE = "notifications-purge"
_PURGE_EVERY = timedelta(hours=1)


def _each(keys: Iterable[UUID], act: Callable[[UUID], bool]) -> int:
    done = 0
    for key in keys:
        try:
            done += act(key)
        except Exception:
            logger.exception("a timer failed for one environment, tried again at the next turn: environment=%s act=%s", key, act.__name__)
    return done


def _warn() -> int:
    now = timezone.now()
    rows = timed.expiries_ahead(now, longest_warning(timed.warning_spans()), _LOOKED_AT)
    due = [key for key, end, granted, warn_before in rows if end - expiry_warning(warn_before, granted) <= now]
    return _each(due[:_AT_ONCE], environment_warn_of_expiry)


def _expire() -> int:
    return _each(selectors.environments_expired(timezone.now())[:_AT_ONCE], environment_expire)


def _delete() -> int:
    now = timezone.now()
    rows = timed.deletions_ahead(now, DELETION_WARNING, _LOOKED_AT)
    due = [key for key, when, warned_at, delete_after in rows if when - (timedelta(0) if warned_at else deletion_warning(delete_after)) <= now]
    return _each(due[:_AT_ONCE], environment_delete_unused)


def _preempt() -> int:
    return _each(timed.preemptions_due(timezone.now(), _AT_ONCE), environment_preempt)


def _lapse() -> int:
    return _each(timed.approvals_lapsed(timezone.now(), _AT_ONCE), approval_lapse)


def _schedule() -> int:
    return _each(timed.schedules_due(timezone.now(), _AT_ONCE), schedule_run)


def _purge() -> int:
    """Old notifications; once an hour, by whichever process moves the time on."""
    now = timezone.now()
    Tick.objects.get_or_create(name=_PURGE, defaults={"due_at": now})
    if not Tick.objects.filter(name=_PURGE, due_at__lte=now).update(due_at=now + _PURGE_EVERY):
        return 0
    return notifications_purge(now)


TIMERS: dict[str, Callable[[], int]] = {
    "expire": _expire,
    "warn": _warn,
    "preempt": _preempt,
    "schedule": _schedule,
    "lapse": _lapse,
    "delete": _delete,
    "budgets": quota_turn,
    "purge": _purge,
}


def timers_run() -> dict[str, int]:
    """Run every timer once; how many environments each touched. One that fails is logged and does not keep the others from running."""
    done = {}
    for name, timer in TIMERS.items():
        try:
            done[name] = timer()
        except Exception:
            logger.exception("a timer failed, tried again at the next turn: timer=%s", name)
    return done
