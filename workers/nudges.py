"""Wakes workers up: at once for the first of several changes, then once more for all that came shortly after."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from portal.celery import app

logger = logging.getLogger(__name__)

EXPIRES_SECONDS = 60.0  # a message that waited longer is thrown away unread: the sweep has found the row meanwhile
QUIET_SECONDS = 0.15  # a pod that starts changes a dozen times; converging each time would do the same work again


class Nudges(threading.Thread):
    """`nudge` never waits and never fails. A message that cannot be sent is dropped: the sweep finds the row. So is one for which `may`
    says no when its time has come."""

    def __init__(self, may: Callable[[], bool] = lambda: True) -> None:
        super().__init__(name="nudges", daemon=True)
        self._may = may
        self._due: dict[str, float] = {}  # environment -> when to send
        self._sent: dict[str, float] = {}
        self._wake = threading.Condition()

    def nudge(self, environment_id: str) -> None:
        now = time.monotonic()
        with self._wake:
            if environment_id not in self._due:
                self._due[environment_id] = max(now, self._sent.get(environment_id, 0.0) + QUIET_SECONDS)
                self._wake.notify()

    def run(self) -> None:
        while True:
            for environment_id in self._next():
                self._send(environment_id)

    def _next(self) -> list[str]:
        """Waits until something is due, and takes it."""
        with self._wake:
            while True:
                now = time.monotonic()
                due = [key for key, when in self._due.items() if when <= now]
                if due:
                    for key in due:
                        del self._due[key]
                        self._sent[key] = now
                    if len(self._sent) > 5000:
                        self._sent = {key: when for key, when in self._sent.items() if now - when < QUIET_SECONDS}
                    return due
                soonest = min(self._due.values(), default=None)
                self._wake.wait(None if soonest is None else soonest - now)

    def _send(self, environment_id: str) -> None:
        if not self._may():
            return
        try:
            app.send_task("workers.converge", args=[environment_id], ignore_result=True, expires=EXPIRES_SECONDS)
        except Exception as error:  # any fault of the broker
            logger.warning("nudge not sent, the sweep will find it: environment=%s error=%s", environment_id, type(error).__name__)
