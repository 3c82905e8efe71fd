"""Rows that every verb writes: the lock, the numbered event, the move. Used inside the transaction of a verb."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import F
from django.utils import timezone

from .. import outbound
from ..lifecycle import Desired, State, can_move
from ..models import Approval, Environment, Event, User
from ..quantities import ACCELERATOR_SECONDS
from . import ledger, usage

_KEEPS_REASON = frozenset({State.STOPPING, State.STOPPED})
_SAYS = {
    State.REQUESTED: "Requested.",
    State.AWAITING_APPROVAL: "Waiting for approval.",
    State.QUEUED: "Queued.",
    State.PROVISIONING: "Being set up.",
    State.RUNNING: "Running.",
    State.STOPPING: "Being stopped.",
    State.STOPPED: "Stopped. Its home volume, if it has one, is kept.",
    State.DELETING: "Being deleted.",
    State.DELETED: "Deleted.",
    State.FAILED: "Failed.",
}


def lock(environment_id: UUID | str) -> Environment | None:
    """The row, locked until the transaction ends (on SQLite the whole database is, by BEGIN IMMEDIATE)."""
    try:
        key = UUID(str(environment_id))
    except ValueError:
        return None
    query = Environment.objects.select_for_update(of=("self",), no_key=True)
    return query.select_related("team", "owner", "template", "flavor__accelerator", "flavor__network", "volume").filter(pk=key).first()


def append(
    environment: Environment, *, kind: str, code: str, message: str, actor: User | None = None, source: str = "", from_state: str = "", to_state: str = ""
) -> Event:
    """Add the next line of the history. The environment's row is locked, so numbers have no gaps; a rollback takes both back."""
    Environment.objects.filter(pk=environment.pk).update(last_seq=F("last_seq") + 1)
    environment.last_seq = Environment.objects.values_list("last_seq", flat=True).get(pk=environment.pk)
    event = Event.objects.create(
        environment=environment,
        seq=environment.last_seq,
        kind=kind,
        code=code[:60],
        message=message,
        actor=actor,
        source=source[:120],
        from_state=from_state,
        to_state=to_state,
    )
    outbound.announce(environment, kind="state" if kind == Event.Kind.STATE else "event")
    return event


def write(environment: Environment, *, actor: User | None, code: str, message: str, changes: dict[str, Any]) -> None:
    """What a user asked for: the changed fields, a new generation, an event, and a nudge."""
    changes = changes | {"desired_generation": environment.desired_generation + 1, "next_check_at": timezone.now(), "attempts": 0}
    Environment.objects.filter(pk=environment.pk).update(**changes)
    if environment.state == State.AWAITING_APPROVAL and changes.get("desired", Desired.RUNNING.value) != Desired.RUNNING.value:
        _withdraw(environment)
    for field, value in changes.items():
        setattr(environment, field, value)
    append(environment, kind=Event.Kind.ACTION, code=code, message=message, actor=actor)
    outbound.nudge(environment.pk)


def _withdraw(environment: Environment) -> None:
    """Nobody has to answer any more whether it may start."""
    pending = Approval.objects.filter(environment=environment, status=Approval.Status.PENDING)
    pending.update(status=Approval.Status.WITHDRAWN, decided_at=timezone.now())


def move(environment: Environment, to: State, *, reason: str = "", message: str = "", actor: User | None = None, keep_quota: bool = False) -> bool:
    """Move a locked environment and record it; False when the lifecycle has no such move from where it is.

    Quota held for running is given back on stopped, failed and deleted. `Environment.reserved` is emptied in the very update
    that changes the state, so it is given back once whoever comes second.
    """
    origin = State(environment.state)
    if not can_move(origin, to):
        return False
    now = timezone.now()
    if not reason and to in _KEEPS_REASON:
        reason, message = environment.reason, message or environment.message
    changes: dict[str, Any] = {"state": to.value, "reason": reason[:60], "message": message}
    releases = to in (State.STOPPED, State.FAILED, State.DELETED) and not keep_quota
    if releases:
        changes |= {"reserved": {}, "stopped_at": now}
    if to is State.PROVISIONING and environment.started_at is None and environment.expires_in is not None:
        changes["expires_at"] = now + timedelta(seconds=environment.expires_in)  # what it waited in the queue is not counted
    if to is State.RUNNING:
        changes["attempts"] = 0
        if environment.started_at is None:  # not again when a lost pod came back
            changes["started_at"] = now
            if environment.expires_in is not None:
                changes["expires_at"] = now + timedelta(seconds=environment.expires_in)
    if to is State.DELETED:
        changes["deleted_at"] = now
    if to is State.QUEUED or releases:
        changes |= {"admitted_at": None, "placement": {}, "queue": {}, "preempt_at": None, "preempted_for": None}
        changes["queued_at"] = now if to is State.QUEUED else None
    if to is State.PROVISIONING:
        changes["queue"] = {}
    if not Environment.objects.filter(pk=environment.pk, state=origin.value).update(**changes):
        return False
    if origin is State.AWAITING_APPROVAL:
        _withdraw(environment)  # one that was answered is not pending any more
    if releases:
        ledger.release_all(environment, usage.end(environment, now))
    elif to is State.PROVISIONING and origin is State.QUEUED:
        usage.begin_if_absent(environment, now)
    elif to is State.QUEUED and origin is State.PROVISIONING and (taken := usage.end(environment, now)):
        # the queue took it back; what it held until now stays charged
        changes["reserved"] = environment.reserved | {ACCELERATOR_SECONDS: environment.reserved[ACCELERATOR_SECONDS] - taken}
        Environment.objects.filter(pk=environment.pk).update(reserved=changes["reserved"])
    for field, value in changes.items():
        setattr(environment, field, value)
    append(
        environment,
        kind=Event.Kind.STATE,
        code=reason or "".join(part.title() for part in to.value.split("_")),
        message=message or _SAYS[to],
        actor=actor,
        from_state=origin.value,
        to_state=to.value,
    )
    return True
