"""Answers to questions of approval: granted, refused, or nobody answered. Every one is in the history of its environment."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from .. import selectors
from ..durations import format_duration
from ..errors import Conflict, Forbidden, NotFound, ValidationError
from ..lifecycle import Desired, State
from ..models import Approval, Environment, Event, Flavor, User
from ..quantities import STORAGE
from ..shape import scalable_param
from . import ledger
from .amounts import running_amounts
from .asking import approved_amounts
from .checks import check_expiry, check_flavor, check_params, flavor_for
from .environments import check_can_run, shapes_of
from .events import append, lock, move, write
from .exceptions import check_exceptions
from .notifications import notify

_NOTE = 1000  # characters
_SAYS = {
    Approval.Status.APPROVED: "has been approved by {who} already",
    Approval.Status.REFUSED: "has been refused by {who} already",
    Approval.Status.LAPSED: "was not answered in time; it can be asked for again",
    Approval.Status.WITHDRAWN: "has been withdrawn",
}


def _decide(actor: User, approval_id: int | str) -> tuple[Approval, Environment]:
    """A pending question that `actor` may answer, and its environment under lock. Raises NotFound, Forbidden, Conflict."""
    try:
        key = int(approval_id)
    except (TypeError, ValueError):
        key = -1
    found = selectors.approvals_visible_to(actor).filter(pk=key).first() if 0 < key < 2**63 else None
    if found is None:
        raise NotFound("There is no such request for approval.")
    environment = lock(found.environment_id)
    approval = Approval.objects.select_related("decided_by", "asked_by").get(pk=found.pk)  # as it is under the lock
    if environment is None:
        raise NotFound("There is no such request for approval.")
    if approval.status != Approval.Status.PENDING:
        who = approval.decided_by.username if approval.decided_by else "somebody"
        raise Conflict(f"{environment.name} {_SAYS[Approval.Status(approval.status)].format(who=who)}.")
    if not selectors.approvals_decidable_by(actor).filter(pk=key).exists():
        own = actor.pk in (approval.asked_by_id, environment.owner_id)
        who = ", ".join(person.username for person in selectors.approvers_of(found)) or "another platform admin"
        raise Forbidden(f"{'Nobody approves what is his own' if own else 'Leads of the team approve'}; ask {who}.")
    if environment.state != State.AWAITING_APPROVAL or environment.desired != Desired.RUNNING:
        raise Conflict(f"{environment.name} does not wait for approval any more.")
    approval.environment = environment
    return approval, environment


def _note(note: object, *, required: bool) -> str:
    text = note.replace("\x00", "\ufffd").strip() if isinstance(note, str) else ""
    if required and not text:
        raise ValidationError.field("note", "Say why, so that it can be asked for differently.")
    if len(text) > _NOTE:
        raise ValidationError.field("note", f"Use at most {_NOTE} characters.")
    return text


def _smaller(environment: Environment, flavor: str, workers: int | None, expires_in: timedelta | None) -> tuple[dict[str, Any], list[str]]:
    """Changed fields and what to say of each. Raises ValidationError for anything larger than what was asked for."""
    changes: dict[str, Any] = {}
    says = []
    if flavor and flavor != environment.flavor.slug:
        chosen = flavor_for(flavor)
        _check_smaller(chosen, environment.flavor)
        check_flavor(environment.template_spec, chosen)
        check_exceptions(environment.team, chosen)
        changes["flavor"] = chosen
        says.append(f"The flavor is {chosen.slug} instead of {environment.flavor.slug}.")
    if workers is not None and workers != environment.workers:
        param = scalable_param(environment.template_spec)
        if param is None:
            raise ValidationError.field("workers", f"A {environment.template.slug} has no workers.")
        if isinstance(workers, bool) or not isinstance(workers, int) or workers > environment.workers:
            raise ValidationError.field("workers", f"Must be a whole number up to {environment.workers}, which was asked for.")
        try:
            changes["params"] = check_params(environment.template_spec, environment.params | {param: workers})
        except ValidationError as error:
            raise ValidationError.field("workers", " ".join(m for messages in error.errors.values() for m in messages)) from None
        changes["workers"] = workers
        says.append(f"{workers} workers instead of {environment.workers}.")
    if expires_in is not None and int(expires_in.total_seconds()) != environment.expires_in:
        asked = timedelta(seconds=environment.expires_in) if environment.expires_in is not None else None
        if asked is not None and expires_in > asked:
            raise ValidationError.field("expires_in", f"Must be at most {format_duration(asked)}, which was asked for.")
        changes["expires_in"] = int(check_expiry(environment.template_spec, expires_in).total_seconds())
        before = "without end" if asked is None else format_duration(asked)
        says.append(f"The running time is {format_duration(expires_in)} instead of {before}.")
    return changes, says


def _check_smaller(chosen: Flavor, asked: Flavor) -> None:
    chips, most = (chosen.accelerator_count if chosen.accelerator_id else 0), (asked.accelerator_count if asked.accelerator_id else 0)
    same = not chips or chosen.accelerator_id == asked.accelerator_id
    if not same or chips > most or chosen.cpu_millis > asked.cpu_millis or chosen.memory_bytes > asked.memory_bytes:
        raise ValidationError.field("flavor", f"{chosen.slug} is not within {asked.slug}, which was asked for; only less can be approved.")


def approval_grant(
    *, actor: User, approval_id: int | str, flavor: str = "", workers: int | None = None, expires_in: timedelta | None = None, note: str = ""
) -> Approval:
    """Approve what was asked for, or less: a smaller flavor, fewer workers, a shorter time. Its quota is reserved and it is queued.

    Raises NotFound, Forbidden (one's own), Conflict (answered or withdrawn already, cannot run), ValidationError (larger), QuotaExceeded.
    """
    text = _note(note, required=False)
    with transaction.atomic():
        approval, environment = _decide(actor, approval_id)
        changes, says = _smaller(environment, flavor, workers, expires_in)
        for field, value in changes.items():
            setattr(environment, field, value)
        check_can_run(environment)
        granted = None if environment.expires_in is None else timedelta(seconds=environment.expires_in)
        now, held = timezone.now(), running_amounts(shapes_of(environment), granted)
        ledger.reserve(environment.team, environment.owner, held)
        covered = held | ({STORAGE: environment.volume.size_bytes} if environment.volume else {})
        changes |= {"reserved": held, "expires_at": now + granted if granted is not None else None, "approved": approved_amounts(covered, granted)}
        message = f"{actor.username} approved it: {text}" if text else f"{actor.username} approved it."
        _answer(approval, Approval.Status.APPROVED, actor, text)
        write(environment, actor=actor, code="Approved", message=message, changes=changes)
        for sentence in says:
            append(environment, kind=Event.Kind.INFO, code="ApprovedLess", message=sentence, actor=actor)
        move(environment, State.QUEUED, actor=actor)
        _tell(approval, "Approved", " ".join([f"{actor.username} approved {environment.name}{': ' + text if text else '.'}", *says]))
        return approval


def approval_refuse(*, actor: User, approval_id: int | str, note: str) -> Approval:
    """Refuse it, saying why. Raises NotFound, Forbidden (one's own), Conflict (answered or withdrawn already), ValidationError (no reason)."""
    text = _note(note, required=True)
    with transaction.atomic():
        approval, environment = _decide(actor, approval_id)
        _answer(approval, Approval.Status.REFUSED, actor, text)
        move(environment, State.FAILED, reason="Refused", message=f"{actor.username} refused it: {text}", actor=actor)
        _tell(approval, "Refused", f"{actor.username} refused {environment.name}: {text}")
        return approval


def approval_lapse(environment_id: UUID | str) -> bool:
    """End a question that nobody answered in time; False when there is none."""
    with transaction.atomic():
        environment = lock(environment_id)
        if environment is None:
            return False
        now = timezone.now()
        rows = Approval.objects.filter(environment=environment, status=Approval.Status.PENDING, lapses_at__lte=now)
        approval = rows.select_related("asked_by").first()
        if approval is None:
            return False
        approval.environment = environment
        _answer(approval, Approval.Status.LAPSED, None, "")
        waited = format_duration(timedelta(minutes=(now - approval.created_at) // timedelta(minutes=1)))
        message = f"Nobody answered for {waited}, so it is not started. Retry it to ask again."
        move(environment, State.FAILED, reason="ApprovalLapsed", message=message)
        _tell(approval, "ApprovalLapsed", f"Nobody answered for {waited} whether {environment.name} may start. Retry it to ask again.")
        return True


def _answer(approval: Approval, status: Approval.Status, actor: User | None, note: str) -> None:
    environment = approval.environment
    approval.status, approval.decided_by, approval.note, approval.decided_at = status, actor, note, timezone.now()
    if status == Approval.Status.APPROVED:
        approval.granted = {"flavor": environment.flavor.slug, "workers": environment.workers, "expires_in": environment.expires_in}
    approval.save(update_fields=["status", "decided_by", "note", "decided_at", "granted"])


def _tell(approval: Approval, code: str, message: str) -> None:
    people = [approval.environment.owner, approval.asked_by]
    notify(people, code, message, approval.environment, source=f"approval-{approval.pk}-{approval.status}")
