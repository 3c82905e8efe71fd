"""What the page of an environment says beyond its state: what will happen to it by itself and when, its place in the queue, who has to agree. No writes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.utils.dateparse import parse_datetime

from portal.domain import selectors
from portal.domain.lifecycle import Desired, State
from portal.domain.models import Approval, Environment, User
from portal.domain.services.checks import check_expiry
from portal.domain.services.idleness import rule_of

_UP = frozenset({State.QUEUED, State.PROVISIONING, State.RUNNING})


@dataclass(frozen=True, kw_only=True)
class Notices:
    """Each is None when there is nothing to say. Moments are aware; spans in seconds."""

    expires_at: datetime | None = None  # warned: it stops then
    extend_seconds: int = 0  # what one click extends by
    idle_since: datetime | None = None  # warned: nobody seems to use it
    idle_stop_at: datetime | None = None  # None: not known
    preempt_at: datetime | None = None  # one of higher priority needs its room
    delete_at: datetime | None = None  # it is stopped, and goes then


def notices(environment: Environment) -> Notices:
    """What will happen to it by itself. The warnings are those that the domain gave, so the page never warns of what nobody was told."""
    state, desired = State(environment.state), Desired(environment.desired)
    if desired is Desired.STOPPED and state in (State.STOPPED, State.STOPPING, State.FAILED):
        return Notices(delete_at=environment.delete_at)
    if desired is not Desired.RUNNING or state not in _UP:
        return Notices(delete_at=environment.delete_at if state is State.FAILED else None)
    idle = environment.idle_since if environment.idle_warned_at else None
    return Notices(
        expires_at=environment.expires_at if environment.expiry_warned_at else None,
        extend_seconds=int(check_expiry(environment.template_spec, None).total_seconds()),
        idle_since=idle,
        idle_stop_at=_idle_stop(environment),
        preempt_at=environment.preempt_at,
    )


def _idle_stop(environment: Environment) -> datetime | None:
    """When it is stopped if nobody uses it: not before the rule's time, and not sooner after the warning than the rule says."""
    rule = rule_of(environment.template_spec)
    if rule is None or environment.idle_since is None or environment.idle_warned_at is None:
        return None
    return max(environment.idle_since + rule.after, environment.idle_warned_at + rule.warn)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one that waits stands in the queue. Times None: not known. Position 0: the queue has not looked at it yet."""

    position: int
    ahead: int
    code: str
    message: str
    earliest: datetime | None
    latest: datetime | None


def place(environment: Environment) -> Place | None:
    """Its place while it waits in the queue; None when it does not wait there."""
    if environment.state != State.QUEUED or (environment.admitted_at is not None and not environment.queue):
        return None
    told = environment.queue or {}
    eta = told.get("eta") or {}
    return Place(
        position=int(told.get("position") or 0),
        ahead=int(told.get("ahead") or 0),
        code=str(told.get("code") or ""),
        message=str(told.get("message") or ""),
        earliest=parse_datetime(str(eta.get("earliest") or "")),
        latest=parse_datetime(str(eta.get("latest") or "")),
    )


@dataclass(frozen=True, kw_only=True)
class Question:
    """The newest question that this environment put to the leads, and whether the one who looks may answer it."""

    approval: Approval
    pending: bool
    decidable: bool
    leads: tuple[str, ...]


def question(environment: Environment, user: User) -> Question | None:
    """None when nobody was ever asked."""
    approval = selectors.approvals_visible_to(user).filter(environment=environment).order_by("-created_at", "-id").first()
    if approval is None:
        return None
    pending = approval.status == Approval.Status.PENDING
    return Question(
        approval=approval,
        pending=pending,
        decidable=pending and selectors.approvals_decidable_by(user).filter(pk=approval.pk).exists(),
        leads=tuple(person.username for person in selectors.approvers_of(approval)) if pending else (),
    )
