"""The verbs of users on an environment that is there. Each is one transaction under the row's lock."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from .. import outbound, selectors
from ..durations import format_duration
from ..errors import Conflict, NotFound, ValidationError
from ..lifecycle import Desired, State
from ..models import Environment, Membership, User, Volume
from ..shape import role_shapes
from . import ledger, usage
from .amounts import running_amounts
from .events import lock, move, write
from .requests import check_expiry, check_name, check_params, flavor_shape, scalable_param

_REST = frozenset({State.STOPPED, State.FAILED})


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


def _launch(environment: Environment, actor: User, *, code: str, message: str) -> None:
    """Reserve again and queue. The move is made here, not by the worker, so that no environment is ever queued without its quota."""
    if not User.objects.select_for_update(no_key=True).filter(pk=environment.owner_id, is_active=True).exists():
        raise Conflict(f"Its owner {environment.owner.username} is deactivated, so it cannot run.")
    if not Membership.objects.filter(user=environment.owner_id, team=environment.team_id).exists():
        raise Conflict(f"Its owner {environment.owner.username} is no longer in team {environment.team.slug}, so it cannot run there.")
    if environment.volume and environment.volume.purge_requested_at:
        raise Conflict("Its home volume is being purged; delete it and request a new one.")
    shapes = role_shapes(environment.template_spec, environment.params, flavor_shape(environment.flavor), environment.workers)
    why = selectors.why_never_fits(shapes)
    if why:
        raise Conflict(f"It cannot start here: {why}. Request one with another flavor.")
    held = running_amounts(shapes, _granted(environment))
    ledger.reserve(environment.team, environment.owner, held)
    now = timezone.now()
    expires_at = None if environment.expires_in is None else now + timedelta(seconds=environment.expires_in)
    write(
        environment,
        actor=actor,
        code=code,
        message=message,
        changes={
            "desired": Desired.RUNNING.value,
            "reserved": held,
            "expires_at": expires_at,
            "expiry_warned_at": None,
            "started_at": None,
            "stopped_at": None,
            "observed": {},
        },
    )
    move(environment, State.QUEUED, actor=actor)


def environment_start(*, actor: User, environment_id: UUID | str) -> Environment:
    """Bring a stopped environment back. Raises NotFound, Conflict, QuotaExceeded."""
    with transaction.atomic():
        environment = _locked(actor, environment_id)
        _refuse_gone(environment)
        if environment.state == State.FAILED:
            raise Conflict(f"{environment.name} has failed; retry it instead of starting it.")
        if environment.state != State.STOPPED:
            stopping = environment.desired == Desired.STOPPED
            what = "is still being stopped; start it when it has stopped" if stopping else f"is {environment.state} already; there is nothing to start"
            raise Conflict(f"{environment.name} {what}.")
        _launch(environment, actor, code="StartRequested", message=f"{actor.username} asked to start it.")
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
        message = f"{actor.username} asked to delete it{' with its home volume' if purge else ''}."
        changes = {"desired": Desired.DELETED.value, "purge": environment.purge or purge, "reason": "", "message": message}
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
        _refuse_gone(environment)
        param = scalable_param(environment.template_spec)
        if param is None:
            raise ValidationError.field("workers", f"A {environment.template.slug} has no workers to scale.")
        if isinstance(workers, bool) or not isinstance(workers, int):
            raise ValidationError.field("workers", "Must be a whole number.")
        try:
            params = check_params(environment.template_spec, environment.params | {param: workers})
        except ValidationError as error:
            message = " ".join(m for messages in error.errors.values() for m in messages)
            raise ValidationError.field("workers", message) from None
        if environment.desired == Desired.STOPPED and environment.state not in _REST:
            raise Conflict(f"{environment.name} is being stopped; scale it when it has stopped.")
        if workers == environment.workers:
            return environment
        before = environment.workers
        changes: dict[str, object] = {"workers": workers, "params": params}
        if environment.reserved:
            shapes = role_shapes(environment.template_spec, environment.params, flavor_shape(environment.flavor), workers)
            changes["reserved"] = ledger.rebook(environment, running_amounts(shapes, usage.ahead(environment, timezone.now())))
        write(environment, actor=actor, code="ScaleRequested", message=f"{actor.username} asked for {workers} workers instead of {before}.", changes=changes)
        return environment


def environment_extend(*, actor: User, environment_id: UUID | str, expires_in: timedelta) -> Environment:
    """Let it run `expires_in` longer from now. Raises NotFound, Conflict, ValidationError, QuotaExceeded (the budget of the month)."""
    with transaction.atomic():
        environment = _locked(actor, environment_id)
        _refuse_gone(environment)
        span = check_expiry(environment.template_spec, expires_in)
        changes: dict[str, object] = {"expires_in": int(span.total_seconds()), "expiry_warned_at": None}
        if environment.desired == Desired.RUNNING and environment.state != State.FAILED:
            changes["expires_at"] = timezone.now() + span
            if environment.reserved:
                shapes = role_shapes(environment.template_spec, environment.params, flavor_shape(environment.flavor), environment.workers)
                changes["reserved"] = ledger.rebook(environment, running_amounts(shapes, span))
        elif environment.desired == Desired.STOPPED and environment.state not in _REST:
            raise Conflict(f"{environment.name} is being stopped; start it again to run it longer.")
        write(environment, actor=actor, code="Extended", message=f"{actor.username} extended it to {format_duration(span)} from now.", changes=changes)
        return environment


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
        if volume.purge_requested_at is None:
            volume.purge_requested_at = timezone.now()
            volume.save(update_fields=["purge_requested_at"])
        outbound.team_sync(volume.team.slug)
        return volume
