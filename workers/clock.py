"""The clock: sends periodic tasks when they are due. Any number of clocks may run; each tick is sent by one of them.

It runs as a thread of the watcher and of each worker's main process, so that no single process has to live for time to pass. What is
due stands in the database (`Tick`); a tick is claimed by moving its `due_at` on, in one conditional update.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from celery.signals import worker_ready, worker_shutting_down
from django.conf import settings
from django.db import DatabaseError, connections
from django.utils import timezone

from portal.celery import app
from portal.domain.models import Tick

logger = logging.getLogger(__name__)

_LONGEST_SLEEP = 5.0  # seconds; rows may appear, and the wall clock may be set
_TROUBLE_PAUSE = 2.0
_RESEND_SECONDS = 5.0


@dataclass(frozen=True)
class Period:
    """A task that is sent every `seconds`. A message that nobody took for three periods is thrown away unread."""

    task: str
    seconds: float

    @property
    def expires(self) -> float:
        return self.seconds * 3


def periods() -> dict[str, Period]:
    """Everything that happens periodically."""
    often = float(settings.SWEEP_SECONDS)
    return {
        "sweep": Period("workers.sweep", often),
        "queue": Period("workers.queue", often),
        "timers": Period("workers.timers", often),
        "idleness": Period("workers.idleness", 60.0),
        "autoscale": Period("workers.autoscale", 30.0),
        "volumes": Period("workers.volumes", 60.0),
        "teams": Period("workers.teams", 300.0),
    }


class Clock(threading.Thread):
    """`stop` ends it within a moment. A database or a broker that is away is waited for."""

    def __init__(self, table: Mapping[str, Period] | None = None) -> None:
        super().__init__(name="clock", daemon=True)
        self._periods = dict(table or periods())
        self._ending = threading.Event()
        self._behind = False

    def stop(self) -> None:
        self._ending.set()

    def run(self) -> None:
        while not self._ending.is_set():
            try:
                with _busy:
                    try:
                        wait = self.turn()
                    finally:
                        connections.close_all()  # see _busy
                self._behind = False
            except Exception as error:  # the database is away; time goes on when it is back
                if not self._behind:
                    logger.warning("the clock cannot read what is due, tried again: error=%s", type(error).__name__)
                self._behind, wait = True, _TROUBLE_PAUSE
            self._ending.wait(wait * random.uniform(1.0, 1.05))

    def turn(self) -> float:
        """Send what is due and not yet claimed by another clock; seconds until the next is due."""
        due = dict(Tick.objects.filter(name__in=self._periods).values_list("name", "due_at"))
        now = timezone.now()
        if missing := [Tick(name=name, due_at=now) for name in self._periods if name not in due]:
            Tick.objects.bulk_create(missing, ignore_conflicts=True)
            return 0.0
        for name, at in due.items():
            if at <= now:
                due[name] = self._claim(name, at, now)
        return min(_LONGEST_SLEEP, max(0.0, (min(due.values()) - timezone.now()).total_seconds()))

    def _claim(self, name: str, at: datetime, now: datetime) -> datetime:
        """Move a tick on and, if no other clock was first, send its task. When it is due next."""
        period = self._periods[name]
        step = timedelta(seconds=period.seconds)
        # Ticks keep their rhythm; those that nobody could send are not made up for.
        following = at + step if at + step > now else now + step
        if not Tick.objects.filter(name=name, due_at=at).update(due_at=following):
            return following
        try:
            app.send_task(period.task, task_id=f"{name}@{at.isoformat()}", expires=period.expires, ignore_result=True)
        except Exception as error:  # any fault of the broker
            logger.warning("tick not sent, tried again: task=%s error=%s", period.task, type(error).__name__)
            again = now + timedelta(seconds=min(period.seconds, _RESEND_SECONDS))
            try:
                Tick.objects.filter(name=name, due_at=following).update(due_at=again)
            except DatabaseError:
                return following
            return again
        return following


# --- in a worker -----------------------------------------------------------------

# A worker's main process forks its pool, also later, when a child was lost. A child must not be born while this thread holds a lock of a
# library, or the child would wait for it for ever; nor while it has a connection to the database: SQLite in the child would believe that it
# holds locks which only the parent has, and with that the file is spoilt when somebody else checkpoints it.
_busy = threading.Lock()


_running: Clock | None = None


@worker_ready.connect(weak=False)
def _start_in_worker(**_: Any) -> None:
    global _running
    os.register_at_fork(before=_busy.acquire, after_in_parent=_busy.release, after_in_child=_busy.release)
    _running = Clock()
    _running.start()


@worker_shutting_down.connect(weak=False)
def _stop_in_worker(**_: Any) -> None:
    if _running is not None:
        _running.stop()
