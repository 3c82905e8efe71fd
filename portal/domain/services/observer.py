"""The verbs of the observer: workers that compare a row with the cluster. No actor; idempotent; unknown ids return False or None."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.db import IntegrityError, transaction
from django.db.models import Case, F, Q, Value, When
from django.utils import timezone

from .. import outbound, selectors
from ..lifecycle import Desired, State
from ..models import Environment, Event, LogArchive, Node, Volume
from ..quantities import STORAGE
from . import ledger
from .events import append, lock, move

_SEEN_EVERY = timedelta(seconds=30)  # an unchanged snapshot is not worth a write at every look
_BEYOND = timedelta(seconds=1)
_HOLDS_NOTHING = (State.STOPPED, State.FAILED, State.AWAITING_APPROVAL)
_OBSERVED_FIELDS = ("observed", "observed_at", "reason", "message", "desired", "desired_generation", "state", "owner_id", "team_id", "last_seq")


def environment_move(environment_id: UUID | str, to: State | str, reason: str = "", message: str = "", generation: int | None = None) -> bool:
    """Move from any state that allows it, with its event; False when none does or someone else was first.

    Gives quota back on stopped and failed (storage stays with the volume) and on deleted (storage too when purged). With `generation`,
    only if the user has asked for nothing since: what was planned against an older wish is dropped.
    """
    to = State(to)
    with transaction.atomic():
        environment = lock(environment_id)
        if environment is None or (generation is not None and environment.desired_generation != generation):
            return False
        if to is State.QUEUED and environment.state in _HOLDS_NOTHING and not environment.reserved:
            return False  # only start, retry and approval, which reserve anew, may queue it again
        if not move(environment, to, reason=reason, message=message):
            return False
        if to is State.DELETED and environment.purge and environment.volume_id:
            _forget(environment.volume_id)
        return True


def environment_observe(
    environment_id: UUID | str, observed: Mapping[str, Any], reason: str | None = None, message: str | None = None, generation: int | None = None
) -> bool:
    """Store what was seen; True, and announced, when anything changed. A reason is taken only while the environment is wanted running,
    so that why it was stopped is not overwritten by how its pods end.

    No transaction and no lock: one read, and one conditional update where something differs. Most looks see nothing new.
    """
    try:
        key = UUID(str(environment_id))
    except ValueError:
        return False
    observed = dict(observed)
    for _ in range(3):  # again when a user or a move came between the read and the update
        row = Environment.objects.only(*_OBSERVED_FIELDS).filter(pk=key).first()
        if row is None or (generation is not None and row.desired_generation != generation):
            return False
        changes: dict[str, Any] = {} if row.observed == observed else {"observed": observed}
        if row.desired == Desired.RUNNING and row.state != State.FAILED:
            if reason is not None and row.reason != reason[:60]:
                changes["reason"] = reason[:60]
            if message is not None and row.message != message:
                changes["message"] = message
        now = timezone.now()
        if not changes and row.observed_at is not None and row.observed_at >= now - _SEEN_EVERY:
            return False
        same = Environment.objects.filter(pk=key, desired_generation=row.desired_generation, state=row.state)
        if same.update(observed_at=now, **changes):
            if changes:
                outbound.announce(row, kind="observed")
            return bool(changes)
    return False


def event_record(environment_id: UUID | str, kind: str, code: str, message: str, source: str = "") -> bool:
    """Add a line to the history; the same non-empty `source` is recorded once."""
    try:
        with transaction.atomic():
            environment = lock(environment_id)
            if environment is None:
                return False
            source = source[:120]
            if source and Event.objects.filter(environment=environment, source=source).exists():
                return False
            append(environment, kind=Event.Kind(kind), code=code, message=message.replace("\x00", "\ufffd")[:4000], source=source)
            return True
    except IntegrityError:
        return False


def lease_take(environment_id: UUID | str, holder: str, seconds: float) -> Environment | None:
    """Take the right to converge it for `seconds`; None when another holds it, or while it backs off from a failure.

    One whom the holder kept out leaves a mark: the holder's `lease_release` sees it and nudges again. A message that comes during a
    back-off leaves none: else every stray message would be another try. What a user asks for ends the back-off (see `events.write`).
    """
    try:
        key = UUID(str(environment_id))
    except ValueError:
        return None
    now = timezone.now()
    until = now + timedelta(seconds=seconds)
    # A back-off is a lease that nobody holds; a user's verb sets the attempts to zero.
    free = Q(lease_until=None) | Q(lease_until__lte=now) | Q(lease_holder=holder) | Q(lease_holder="", attempts=0)
    # next_check_at goes beyond the lease, so that whoever sets it back meanwhile can be told from nobody
    taken = {"lease_holder": holder, "lease_until": until, "next_check_at": until + _BEYOND}
    if Environment.objects.filter(free, pk=key).update(**taken):
        return Environment.objects.select_related("team", "owner", "template", "flavor__accelerator", "flavor__network", "volume").get(pk=key)
    Environment.objects.filter(pk=key, lease_until__gt=now).exclude(lease_holder__in=("", holder)).update(next_check_at=now)
    return None


def lease_renew(environment_id: UUID | str, holder: str, seconds: float) -> bool:
    """Hold the lease for `seconds` from now; False when somebody else took it, or it was given back. One update.

    A lease that ran out but that nobody took is held again.
    """
    until = timezone.now() + timedelta(seconds=seconds)
    untouched = Q(next_check_at__gt=F("lease_until"))
    check = Case(When(untouched, then=Value(until + _BEYOND)), default=F("next_check_at"))
    return bool(Environment.objects.filter(pk=environment_id, lease_holder=holder).update(lease_until=until, next_check_at=check))


def lease_release(environment_id: UUID | str, holder: str, next_check_in: timedelta | float, failed: bool = False, generation: int | None = None) -> bool:
    """Give the lease back and say when to look again (a timedelta, or seconds); False when the lease was lost meanwhile.

    `failed` counts an attempt and makes `next_check_in` a back-off, success sets the count to zero. When somebody asked for another look
    during the lease, that comes at once; after a failure only if a user did, so that `generation`, the wish that was worked on, is not
    the newest any more.
    """
    try:
        key = UUID(str(environment_id))
    except ValueError:
        return False
    wait = next_check_in if isinstance(next_check_in, timedelta) else timedelta(seconds=next_check_in)
    now = timezone.now()
    attempts = F("attempts") + 1 if failed else Value(0)
    held = Environment.objects.filter(pk=key, lease_holder=holder)
    asleep = Q(next_check_at__gt=now) | Q(next_check_at__gt=F("lease_until"))
    if failed and generation is not None:
        asleep |= Q(desired_generation=generation)
    if held.filter(asleep).update(lease_holder="", lease_until=now + wait if failed else None, next_check_at=now + wait, attempts=attempts):
        return True
    # Woken: by a verb of a user, which sets the count to zero itself, or by a worker that was kept out.
    if held.update(lease_holder="", lease_until=None, next_check_at=now, attempts=Value(0) if generation is not None else attempts):
        outbound.nudge(key)
        return True
    return False


def archive_store(environment_id: UUID | str, replica: str, role: str, container: str, data: bytes, truncated: bool = False) -> bool:
    """Keep what a container printed. Storing the same container again replaces it."""
    try:
        environment = Environment.objects.filter(pk=UUID(str(environment_id))).first()
    except ValueError:
        return False
    if environment is None:
        return False
    safe = [re.sub(r"[^a-zA-Z0-9._-]", "_", part).lstrip(".") or "_" for part in (replica, container)]
    storage, path = storages["archive"], f"{environment.pk}/{safe[0]}/{safe[1]}.log"
    previous = LogArchive.objects.filter(environment=environment, replica=replica, container=container).first()
    saved = storage.save(path, ContentFile(data))  # under another name when that one is taken; the row says which
    LogArchive.objects.update_or_create(
        environment=environment,
        replica=replica,
        container=container,
        defaults={"role": role, "path": saved, "size_bytes": len(data), "truncated": truncated},
    )
    if previous and previous.path != saved:
        storage.delete(previous.path)
    return True


def _forget(volume_id: UUID) -> bool:
    volume = Volume.objects.select_for_update(no_key=True).filter(pk=volume_id).first()
    if volume is None:
        return False
    deleted = Volume.objects.filter(pk=volume.pk).delete()[1].get("domain.Volume", 0)
    if deleted:  # the row is the account of its storage: gone once, given back once
        ledger.release(volume.team_id, volume.owner_id, {STORAGE: volume.size_bytes})
    return bool(deleted)


def volume_forget(volume_id: UUID | str) -> bool:
    """The claim is gone from the cluster: the row goes and its storage is given back."""
    try:
        key = UUID(str(volume_id))
    except ValueError:
        return False
    with transaction.atomic():
        return _forget(key)


def nodes_observed(nodes: Iterable[Mapping[str, Any]]) -> None:
    """Replace what is known of the nodes. Each: name, allocatable, used, labels, taints, ready, simulated (see the Node model)."""
    now = timezone.now()
    rows = [
        Node(
            name=node["name"],
            allocatable=dict(node["allocatable"]),
            used=dict(node["used"]),
            environments=dict(node.get("environments") or {}),
            labels=dict(node.get("labels") or {}),
            taints=list(node.get("taints") or []),
            ready=bool(node.get("ready", True)),
            simulated=bool(node.get("simulated", False)),
            seen_at=now,
        )
        for node in nodes
    ]
    fields = ["allocatable", "used", "environments", "labels", "taints", "ready", "simulated", "seen_at"]
    with transaction.atomic():
        Node.objects.bulk_create(rows, update_conflicts=True, unique_fields=["name"], update_fields=fields)
        Node.objects.exclude(name__in=[row.name for row in rows]).delete()
        if selectors.queue_needs_a_look():
            outbound.queue_run()
