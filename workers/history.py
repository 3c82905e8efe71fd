"""Kubernetes' events, told in an environment's history: which of them, in which words, and not too many."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import Error as DatabaseError
from django.db import close_old_connections

from portal.domain import services

logger = logging.getLogger(__name__)

Object = Mapping[str, Any]

# Said by other lines already, or of no use to a person.
_UNTOLD = frozenset({"Created", "SuccessfulCreate", "SuccessfulDelete", "WaitForFirstConsumer", "ExternalProvisioning", "Provisioning"})
_UNHEALTHY_FROM = 8  # every process fails its readiness probe while it starts
_NORMAL_PER_MINUTE = 60
_PATIENCE_SECONDS = 5.0  # an event may be heard of before its object


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line for the history. `source` makes it be recorded once."""

    kind: str  # "info" or "warning"
    code: str
    message: str
    source: str


def line(event: Object) -> Line | None:
    """The line an event is told in; None for one that is not told.

    An event that repeats comes with a growing count: it is told at 1, 2, 4, 8...
    """
    reason = event.get("reason") or "Event"
    warning = event.get("type") == "Warning"
    if not warning and reason in _UNTOLD:
        return None
    count = (event.get("series") or {}).get("count") or event.get("count") or 1
    if reason == "Unhealthy" and count < _UNHEALTHY_FROM:
        return None
    about = event.get("involvedObject", {})
    times = f" ({count} times)" if count > 1 else ""
    return Line(
        kind="warning" if warning else "info",
        code=reason,
        message=f"{about.get('name', '')}: {(event.get('message') or reason).strip()}{times}",
        source=f"k8s:{event['metadata']['uid']}:{count.bit_length()}",
    )


@dataclass
class _Waiting:
    event: Object
    since: float = field(default_factory=time.monotonic)


class Recorder(threading.Thread):
    """Writes lines one after the other, away from the watches. A database that is away is waited for.

    A line for which `may` says no when its turn has come is dropped: whoever leads instead has heard of it too.
    """

    def __init__(self, environment_of: Callable[[Object], str | None], may: Callable[[], bool] = lambda: True) -> None:
        super().__init__(name="history", daemon=True)
        self._may = may
        self._environment_of = environment_of
        self._queue: queue.SimpleQueue[_Waiting | tuple[str, Line]] = queue.SimpleQueue()
        self._told: dict[str, None] = {}  # sources, oldest first
        self._rates: dict[str, list[float]] = {}

    def event(self, event: Object) -> None:
        """Tell a Kubernetes event, if it is one of an environment's objects."""
        self._queue.put(_Waiting(event))

    def tell(self, environment_id: str, line: Line) -> None:
        """Tell a line."""
        self._queue.put((environment_id, line))

    def run(self) -> None:
        while True:
            item = self._queue.get()
            try:
                if isinstance(item, tuple):
                    self._write(*item)
                else:
                    self._resolve(item)
            except Exception:
                logger.exception("an event could not be told")

    def _resolve(self, waiting: _Waiting) -> None:
        told = line(waiting.event)
        if told is None or told.source in self._told:
            return
        environment_id = self._environment_of(waiting.event["involvedObject"])
        if environment_id:
            self._write(environment_id, told)
        elif time.monotonic() - waiting.since < _PATIENCE_SECONDS:
            time.sleep(0.02)  # keeps a queue of nothing but early events from spinning
            self._queue.put(waiting)

    def _write(self, environment_id: str, told: Line) -> None:
        if told.kind == "info" and self._is_flood(environment_id):
            return
        while True:
            if not self._may():
                return
            try:
                close_old_connections()
                services.event_record(environment_id, told.kind, told.code, told.message, told.source)
                break
            except DatabaseError as error:
                logger.warning("the database does not take an event, tried again: error=%s", type(error).__name__)
                time.sleep(2)
        self._told[told.source] = None
        while len(self._told) > 20_000:
            del self._told[next(iter(self._told))]

    def _is_flood(self, environment_id: str) -> bool:
        now = time.monotonic()
        recent = [when for when in self._rates.get(environment_id, ()) if now - when < 60]
        self._rates[environment_id] = recent
        if len(self._rates) > 1000:
            self._rates = {key: value for key, value in self._rates.items() if value and now - value[-1] < 60}
        if len(recent) >= _NORMAL_PER_MINUTE:
            return True
        recent.append(now)
        return False
