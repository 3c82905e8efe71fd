"""The verbs of users on an environment that is there. Each is one transaction under the row's lock."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from .. import autoscale, outbound, selectors
from ..durations import format_duration
from ..errors import Conflict, NotFound, ValidationError
from ..lifecycle import Desired, State
from ..models import ArtifactVersion, Environment, Event, Membership, User, Volume
from ..selectors.picture import is_gang
from ..shape import RoleShape, role_shapes, scalable_param
from . import asking, exceptions, ledger, mounts, schedules, usage
from .amounts import running_amounts
from .checks import check_expiry, check_flavor, check_name, check_params
from .events import append, lock, move, write
from .redirects import Following, following

_REST = frozenset({State.STOPPED, State.FAILED})
# What belongs to one run and must not reach into the next.
_ANEW: dict[str, Any] = {
    "expiry_warned_at": None,
    "delete_at": None,
    "delete_warned_at": None,
    "activity": {},
    "idle_since": None,
    "idle_warned_at": None,
    "started_at": None,
    "stopped_at": None,
    "observed": {},
}


def _locked(actor: User, environment_id: UUID | str) -> Environment:
    """The row under lock, if `actor` may see it: who sees an environment may also act on it."""
    selectors.environment_get(actor, environment_id)
    environment = lock(environment_id)
    if environment is None:
        raise NotFound("There is no such environment.")
    return environment


def _refuse_gone(environment: Environment) -> None:
    if environment.desired == Desired.DELETED or environment.state in (State.DELETING, State.DELETED):
        raise Conflict(f"{environment.name} is {'deleted' if environment.state == State.DELETED else 'being deleted'}; request a new one.")


def _granted(environment: Environment) -> timedelta | None:
    return None if environment.expires_in is None else timedelta(seconds=environment.expires_in)


def shapes_of(environment: Environment, workers: int | None = None) -> tuple[RoleShape, ...]:
    """Its roles as they are asked for now, or with another number of workers."""
    count = environment.workers if workers is None else workers
    return role_shapes(environment.template_spec, environment.params, environment.flavor.shape(), count)


def check_can_run(environment: Environment) -> None:
    """Whether a locked environment may be queued, its quota aside. Raises Conflict."""
    if not User.objects.select_for_update(no_key=True).filter(pk=environment.owner_id, is_active=True).exists():
        raise Conflict(f"Its owner {environment.owner.username} is deactivated, so it cannot run.")
    if not Membership.objects.filter(user=environment.owner_id, team=environment.team_id).exists():
        raise Conflict(f"Its owner {environment.owner.username} is no longer in team {environment.team.slug}, so it cannot run there.")
    if environment.volume and environment.volume.purge_requested_at:
        raise Conflict("Its home volume is being purged; delete it and request a new one.")
    try:
        check_flavor(environment.template_spec, environment.flavor)
    except ValidationError as error:
        raise Conflict(error.errors["flavor"][0]) from None
    try:
        exceptions.check_exceptions(environment.team, environment.flavor, lock=True)
    except ValidationError as error:
        raise Conflict(error.errors["flavor"][0]) from None
    why = selectors.why_never_fits(shapes_of(environment))
    if why:
        raise Conflict(f"It cannot start here: {why}. Request one with another flavor.")


def _beyond(environment: Environment, amounts: Mapping[str, int], granted: timedelta | None) -> tuple[str, ...]:
    """Why this goes beyond self-service and beyond what was approved before."""
    return asking.reasons(
        team=environment.team, template=environment.template, flavor=environment.flavor, amounts=amounts, granted=granted, approved=environment.approved
    )


def _launch(environment: Environment, actor: User, *, code: str, message: str) -> None:
    """Reserve again and queue, or ask for approval. The move is made here, not by the worker, so that no environment is ever queued
    without its quota. A version of the template that was replaced is left for the later one here."""
    later = following(environment)
    for field, value in later.changes.items():
        setattr(environment, field, value)
    check_can_run(environment)
    granted = _granted(environment)
    held = running_amounts(shapes_of(environment), granted)
    why = _beyond(environment, held, granted)
    data = mounts.refresh(environment)
    mounts.ensure_claims(environment.team, data)
    changes = {**_ANEW, **later.changes, "desired": Desired.RUNNING.value, "mounts": data}
    if why:
        write(environment, actor=actor, code=code, message=message, changes=changes | {"reserved": {}, "expires_at": None})
        _say(environment, later)
        asking.ask(environment, actor=actor, why=why)
        return
    ledger.reserve(environment.team, environment.owner, held)
    expires_at = None if granted is None else timezone.now() + granted
    write(environment, actor=actor, code=code, message=message, changes=changes | {"reserved": held, "expires_at": expires_at})
    _say(environment, later)
    move(environment, State.QUEUED, actor=actor)


def _say(environment: Environment, later: Following) -> None:
    for kind, code, message in later.says:
        append(environment, kind=kind, code=code, message=message)


def start_locked(environment: Environment, actor: User, *, code: str, message: str) -> None:
    """Start a locked environment that is stopped. Raises Conflict, QuotaExceeded."""
    _refuse_gone(environment)
    if environment.state == State.FAILED:
        raise Conflict(f"{environment.name} has failed; retry it instead of starting it.")
    if environment.state != State.STOPPED:
        stopping = environment.desired == Desired.STOPPED
        what = "is still being stopped; start it when it has stopped" if stopping else f"is {environment.state} already; there is nothing to start"
        raise Conflict(f"{environment.name} {what}.")
    _launch(environment, actor, code=code, message=message)


def environment_start(*, actor: User, environment_id: UUID | str) -> Environment:
    """Bring a stopped environment back; what goes beyond self-service waits for approval first. Raises NotFound, Conflict, QuotaExceeded."""
    with transaction.atomic():
        environment = _locked(actor, environment_id)
        start_locked(environment, actor, code="StartRequested", message=f"{actor.username} asked to start it.")
        return environment


def environment_retry(*, actor: User, environment_id: UUID | str) -> Environment:
    """Try a failed environment again. Raises NotFound, Conflict, QuotaExceeded."""
    with transaction.atomic():
        environment = _locked(actor, environment_id)
        _refuse_gone(environment)
        if environment.state != State.FAILED:
            raise Conflict(f"{environment.name} is {environment.state}; only a failed environment can be retried.")
        _launch(environment, actor, code="RetryRequested", message=f"{actor.username} asked to try again.")
        return environment


def environment_stop(*, actor: User, environment_id: UUID | str) -> Environment:
    """Stop it; the home volume is kept. Raises NotFound, Conflict."""
    with transaction.atomic():
        environment = _locked(actor, environment_id)
        _refuse_gone(environment)
        if environment.desired == Desired.STOPPED:
            raise Conflict(f"{environment.name} is {'stopped' if environment.state == State.STOPPED else 'being stopped'} already.")
        message = f"{actor.username} asked to stop it."
        write(environment, actor=actor, code="StopRequested", message=message, changes={"desired": Desired.STOPPED.value, "reason": "", "message": message})
        return environment


def environment_delete(*, actor: User, environment_id: UUID | str, purge: bool = False) -> Environment:
    """Tear it down; the home volume goes too with `purge`. Asking again is no error. Raises NotFound, Conflict (purge of one deleted earlier)."""
    with transaction.atomic():
        environment = _locked(actor, environment_id)
        if environment.state == State.DELETED:
            if purge and environment.volume:
                raise Conflict(f"{environment.name} is deleted already; its kept home volume can be purged by itself.")
            return environment
        if environment.desired == Desired.DELETED and (environment.purge or not purge):
            return environment
        if purge and environment.volume_id:
            refuse_purge(environment.volume_id)
        message = f"{actor.username} asked to delete it{' with its home volume' if purge else ''}."
        changes = {"desired": Desired.DELETED.value, "purge": environment.purge or purge, "reason": "", "message": message}
        changes |= {"delete_at": None, "schedule_next_at": None}
        write(environment, actor=actor, code="DeleteRequested", message=message, changes=changes)
        return environment


def environment_rename(*, actor: User, environment_id: UUID | str, name: str) -> Environment:
    """Give a stopped environment another name; its home volume follows it. Raises NotFound, Conflict, ValidationError."""
    check_name(name)
    taken = ValidationError.field("name", f"The owner already has an environment or a kept home volume called {name} in this team.")
    try:
        with transaction.atomic():
            environment = _locked(actor, environment_id)
            _refuse_gone(environment)
            if environment.name == name:
                return environment
            if environment.state != State.STOPPED:
                raise Conflict(f"{environment.name} is {environment.state}; stop it before renaming, since its name is part of its addresses.")
            others = Environment.objects.filter(team=environment.team, owner=environment.owner, name=name).exclude(state=State.DELETED)
            kept = Volume.objects.filter(team=environment.team, owner=environment.owner, name=name)
            if environment.volume_id:
                kept = kept.exclude(pk=environment.volume_id)
            if others.exists() or kept.exists():
                raise taken
            if environment.volume_id:
                Volume.objects.filter(pk=environment.volume_id).update(name=name)
            write(environment, actor=actor, code="Renamed", message=f"{actor.username} renamed it from {environment.name} to {name}.", changes={"name": name})
            return environment
    except IntegrityError:
        raise taken from None


def environment_scale(*, actor: User, environment_id: UUID | str, workers: int) -> Environment:
    """Change the number of workers while it runs or before it starts again. Raises NotFound, Conflict, ValidationError, QuotaExceeded."""
    with transaction.atomic():
        environment = _locked(actor, environment_id)
        if environment.workers != workers and autoscale.is_on(environment.template_spec, environment.autoscale):
            # Else the rule would take back what a person has just asked for.
            Environment.objects.filter(pk=environment.pk).update(autoscale={"on": False})
            environment.autoscale = {"on": False}
        message = f"{actor.username} asked for {workers} workers instead of {environment.workers}."
        return scale_locked(environment, workers, actor=actor, code="ScaleRequested", message=message)


def scale_locked(environment: Environment, workers: int, *, actor: User | None, code: str, message: str) -> Environment:
    """Change the number of workers of a locked environment. `actor` None: its own rule does. Raises as `environment_scale`."""
    _refuse_gone(environment)
    param = scalable_param(environment.template_spec)
    if param is None:
        raise ValidationError.field("workers", f"A {environment.template.slug} has no workers to scale.")
    if isinstance(workers, bool) or not isinstance(workers, int):
        raise ValidationError.field("workers", "Must be a whole number.")
    try:
        params = check_params(environment.template_spec, environment.params | {param: workers})
    except ValidationError as error:
        wrong = " ".join(m for messages in error.errors.values() for m in messages)
        raise ValidationError.field("workers", wrong) from None
    if environment.desired == Desired.STOPPED and environment.state not in _REST:
        raise Conflict(f"{environment.name} is being stopped; scale it when it has stopped.")
    _refuse_asked(environment)
    if workers == environment.workers:
        return environment
    gang = is_gang(environment.template_spec)
    if gang and environment.placement.get("queue") and environment.admitted_at and environment.desired == Desired.RUNNING:
        queue = environment.placement["queue"].title()  # a gang that another queue let go cannot grow or shrink in it
        raise Conflict(f"On this cluster {queue} decides what starts, all workers together. Stop {environment.name}, scale it, and start it again.")
    if environment.admitted_at and environment.desired == Desired.RUNNING and environment.state not in _REST and _runs_once(environment.template_spec):
        raise Conflict(f"The workers of {environment.name} run once, all together. Stop it, scale it, and start it again.")
    before = environment.workers
    changes: dict[str, object] = {"workers": workers, "params": params}
    if environment.reserved:
        shapes = shapes_of(environment, workers)
        if workers > before:
            _refuse_beyond(environment, running_amounts(shapes, _granted(environment)), _granted(environment))
        changes["reserved"] = ledger.rebook(environment, running_amounts(shapes, usage.ahead(environment, timezone.now())))
    write(environment, actor=actor, code=code, message=message, changes=changes)
    return environment


def _runs_once(template_spec: Mapping[str, Any]) -> bool:
    return any(role.get("run") == "once" for role in template_spec["roles"] if isinstance(role.get("replicas"), Mapping))


def _refuse_asked(environment: Environment) -> None:
    if environment.state == State.AWAITING_APPROVAL and environment.desired == Desired.RUNNING:
        raise Conflict(f"{environment.name} waits for approval as it was asked for; stop it to ask for something else.")


def _refuse_beyond(environment: Environment, amounts: Mapping[str, int], granted: timedelta | None) -> None:
    """What runs cannot grow beyond self-service and beyond what was approved; asking again is the way."""
    why = _beyond(environment, amounts, granted)
    if why:
        raise Conflict(
            f"That needs approval. {' '.join(why)} Stop it, ask for this while it is stopped, and start it again: then it is asked.", code="needs_approval"
        )


def environment_extend(*, actor: User, environment_id: UUID | str, expires_in: timedelta) -> Environment:
    """Let it run `expires_in` longer from now; one that is stopped is kept, and has that time when it starts.

    Raises NotFound, Conflict (also: needs approval), ValidationError, QuotaExceeded (the budget of the month).
    """
    with transaction.atomic():
        environment = _locked(actor, environment_id)
        _refuse_gone(environment)
        _refuse_asked(environment)
        span = check_expiry(environment.template_spec, expires_in)
        changes: dict[str, object] = {"expires_in": int(span.total_seconds()), "expiry_warned_at": None, "delete_at": None, "delete_warned_at": None}
        if environment.desired == Desired.RUNNING and environment.state != State.FAILED:
            changes["expires_at"] = timezone.now() + span
            if environment.reserved:
                amounts = running_amounts(shapes_of(environment), span)
                granted = _granted(environment)
                if granted is not None and span > granted:
                    _refuse_beyond(environment, amounts, span)
                changes["reserved"] = ledger.rebook(environment, amounts)
        elif environment.desired == Desired.STOPPED and environment.state not in _REST:
            raise Conflict(f"{environment.name} is being stopped; start it again to run it longer.")
        write(environment, actor=actor, code="Extended", message=f"{actor.username} extended it to {format_duration(span)} from now.", changes=changes)
        return environment


def _note(environment: Environment, actor: User, code: str, message: str, changes: dict[str, Any]) -> None:
    """A wish that concerns the portal alone: no worker has to look, nothing that is planned becomes void."""
    Environment.objects.filter(pk=environment.pk).update(**changes)
    for field, value in changes.items():
        setattr(environment, field, value)
    append(environment, kind=Event.Kind.ACTION, code=code, message=message, actor=actor)


def environment_keep(*, actor: User, environment_id: UUID | str) -> Environment:
    """Keep a stopped environment that would be deleted by itself. Raises NotFound, Conflict."""
    with transaction.atomic():
        environment = _locked(actor, environment_id)
        _refuse_gone(environment)
        if environment.delete_at is None:
            raise Conflict(f"{environment.name} is not going to be deleted by itself; there is nothing to keep it from.")
        _note(environment, actor, "Kept", f"{actor.username} keeps it: it is not deleted by itself.", {"delete_at": None, "delete_warned_at": None})
        return environment


def environment_schedule(*, actor: User, environment_id: UUID | str, schedule: Mapping[str, Any] | None) -> Environment:
    """Set when it starts and stops by itself; None or empty: never. In the actor's time zone unless it names one.
    Raises NotFound, Conflict, ValidationError."""
    wanted = schedules.check_schedule(schedule, actor)
    with transaction.atomic():
        environment = _locked(actor, environment_id)
        _refuse_gone(environment)
        if environment.schedule == wanted:
            return environment
        changes = {"schedule": wanted, "schedule_next_at": schedules.next_time(wanted, timezone.now())}
        message = f"{actor.username} set its schedule: {schedules.describe(wanted)}." if wanted else f"{actor.username} took its schedule away."
        _note(environment, actor, "Scheduled" if wanted else "Unscheduled", message, changes)
        return environment


def refuse_purge(volume_id: UUID) -> None:
    """Raise Conflict while a dataset or model lies in the volume. Its row stays locked, so that none is registered meanwhile."""
    Volume.objects.select_for_update(no_key=True).filter(pk=volume_id).first()
    versions = list(ArtifactVersion.objects.filter(volume=volume_id).select_related("artifact")[:5])
    if versions:
        raise Conflict(f"{selectors.references(versions)} lies in its home volume; delete that first, or keep the volume.", code="in_use")


def volume_purge(*, actor: User, volume_id: UUID | str) -> Volume:
    """Ask for a kept home volume to be destroyed; the storage it holds is given back when it is gone. Raises NotFound, Conflict."""
    try:
        key = UUID(str(volume_id))
    except ValueError:
        raise NotFound("There is no such volume.") from None
    with transaction.atomic():
        if not selectors.volumes_visible_to(actor).filter(pk=key).exists():
            raise NotFound("There is no such volume.")
        # Locks in the order of environment_request, which may be taking the volume up again at this moment.
        volume = Volume.objects.select_for_update(of=("self",), no_key=True).select_related("team", "owner").filter(pk=key).first()
        if volume is None:
            raise NotFound("There is no such volume.")
        user = Environment.objects.filter(volume=volume).exclude(state=State.DELETED).first()
        if user:
            raise Conflict(f"The volume is in use by {user.name}; delete that environment with purge instead.")
        refuse_purge(volume.pk)
        if volume.purge_requested_at is None:
            volume.purge_requested_at = timezone.now()
            volume.save(update_fields=["purge_requested_at"])
        outbound.team_sync(volume.team.slug)
        return volume
