"""What a socket needs to know of an environment, read in one go and detached from the database."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from k8s.loglines import Numberer, Position, Splitter
from k8s.names import namespace
from portal.domain import selectors
from portal.domain.lifecycle import State
from portal.domain.models import Environment, Event, LogArchive

from .access import Caller
from .follow import Line

RESTING = frozenset({State.STOPPED, State.FAILED, State.DELETED})


@dataclass(frozen=True)
class Archive:
    """A kept log of a container that is gone."""

    id: int
    replica: str
    container: str
    created_at: datetime
    truncated: bool


@dataclass(frozen=True)
class Snapshot:
    """One look at an environment. `document` is what status sockets send; `containers` are (pod, container) that may have logs now."""

    namespace: str
    state: str
    last_seq: int
    document: dict[str, Any]
    containers: tuple[tuple[str, str], ...]
    archives: tuple[Archive, ...]

    @property
    def resting(self) -> bool:
        """Nothing will print any more unless somebody starts it again."""
        return self.state in RESTING and not self.containers


def _iso(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else None


def _document(environment: Environment) -> dict[str, Any]:
    plain = ("name", "kind", "state", "desired", "reason", "message", "workers", "priority")
    moments = ("expires_at", "expiry_warned_at", "delete_at", "idle_since", "idle_warned_at", "preempt_at", "schedule_next_at")
    return {
        "environment": str(environment.pk),
        **{key: getattr(environment, key) for key in plain},
        **{key: environment.observed.get(key, []) for key in ("replicas", "endpoints", "steps")},
        **{key: _iso(getattr(environment, key)) for key in moments},
        "queue": environment.queue or None,
        "schedule": environment.schedule or None,
    }


def _containers(environment: Environment) -> tuple[tuple[str, str], ...]:
    pairs = []
    for replica in environment.observed.get("replicas", []):
        names = replica.get("containers") or [replica.get("role")]
        pairs += [(replica["name"], name) for name in names if name]
    return tuple(pairs)


def take(caller: Caller, environment_id: UUID) -> Snapshot:
    """A new snapshot. Raises SignInNeeded or NotFound. Reads the database."""
    environment = caller.environment(environment_id)
    archives = selectors.archives_of(environment).values_list("pk", "replica", "container", "created_at", "truncated")
    return Snapshot(
        namespace=namespace(environment.team.slug),
        state=environment.state,
        last_seq=environment.last_seq,
        document=_document(environment),
        containers=_containers(environment),
        archives=tuple(Archive(*row) for row in archives),
    )


def event_document(event: Event) -> dict[str, Any]:
    """An event as sockets send it; its `seq` is the event's number."""
    document = {key: getattr(event, key) for key in ("seq", "kind", "code", "message", "from_state", "to_state")}
    return {"type": "event", **document, "actor": event.actor.username if event.actor else None, "created_at": _iso(event.created_at)}


def events_after(caller: Caller, environment_id: UUID, seq: int, limit: int) -> list[dict[str, Any]]:
    """Events past `seq`, oldest first. Raises SignInNeeded or NotFound. Reads the database."""
    return [event_document(event) for event in selectors.events_after(caller.environment(environment_id), seq, limit)]


@lru_cache(maxsize=8)
def _parsed(pk: int, half_minute: int) -> tuple[Line, ...]:
    archive = LogArchive.objects.get(pk=pk)
    splitter, lines = Splitter(), []
    # lines without a time follow the one before; a log without any is placed by when it was kept
    numberer = Numberer(Position(0, -1))
    data = selectors.archive_read(archive)
    for raw in splitter.feed(data) + splitter.flush():
        position = numberer.next(raw.time)
        lines.append(Line.of(raw, position, archive.replica, archive.container))
    if lines and numberer.last.time == 0:
        kept_at = int(archive.created_at.timestamp() * 1_000_000_000)
        for line in lines:
            line.position = Position(kept_at, line.position.nth)
    return tuple(lines)


def archived_lines(archive: Archive) -> tuple[Line, ...]:
    """The lines of an archive, as they were when it was live, numbers included. Reads the database and the storage; raises OSError."""
    # viewers come in crowds when something ended; nobody needs it in memory a minute later
    return _parsed(archive.id, int(time.monotonic() / 30))
