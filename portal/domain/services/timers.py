"""What happens because time passes: warnings, expiry, deletion, schedules, lapsed approvals, preemptions."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.utils import timezone

from .. import selectors
from .observer import environment_expire
from .quota import quota_turn

logger = logging.getLogger(__name__)


def _expire() -> int:
    return sum(environment_expire(key) for key in selectors.environments_expired(timezone.now()))


TIMERS: dict[str, Callable[[], int]] = {"expire": _expire, "budgets": quota_turn}


def timers_run() -> dict[str, int]:
    """Run every timer once; how many environments each touched. One that fails is logged and does not keep the others from running."""
    done = {}
    for name, timer in TIMERS.items():
        try:
            done[name] = timer()
        except Exception:
            logger.exception("a timer failed, tried again at the next turn: timer=%s", name)
    return done
