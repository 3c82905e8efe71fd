"""Asking for an environment: check everything, reserve quota, make the row. The preview does all but the last two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, Required, TypedDict, Unpack
from uuid import uuid4

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from .. import outbound, selectors
from ..errors import Conflict, DomainError, Forbidden, ValidationError
from ..lifecycle import State
from ..models import Environment, Event, Flavor, Priority, Team, Template, User, Volume
from ..quantities import STORAGE
from ..shape import RoleShape, parameters, parse_bytes, role_shapes, scalable_param
from . import admission, asking, exceptions, ledger, schedules
from .amounts import running_amounts
from .checks import DEFAULT_EXPIRY, check_expiry, check_flavor, check_name, check_params, flavor_for, team_for, template_for
from .events import append
from .mounts import Entry, ensure_claims, new_claim_bytes, resolve


class Asked(TypedDict, total=False):
    """What somebody asks for, unchecked. `template`, `flavor`, `team` and `priority` are slugs; an empty `team` means the asker's only one, an
    empty `priority` the default. `mounts` are storages, datasets and models to have inside it (see `services.mounts`)."""

    name: Required[str]
    template: Required[str]
    flavor: Required[str]
    team: Required[str]
    params: Mapping[str, Any] | None
    expires_in: timedelta | None
    priority: str
    schedule: Mapping[str, Any] | None
    mounts: Any


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A request that is valid in itself; whether the quota has room is another question."""

    actor: User
    name: str
    team: Team
    template: Template
    flavor: Flavor
    params: dict[str, Any]
    expires_in: timedelta
    shapes: tuple[RoleShape, ...]
    workers: int
    home_bytes: int  # 0: no home volume
    priority: Priority
    schedule: dict[str, Any]  # empty: none
    mounts: list[Entry]


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a request would do. Nothing is made."""

    allowed: bool
    refusals: tuple[str, ...]  # why not, in words; empty when allowed
    quota: tuple[ledger.QuotaEffect, ...]
    roles: tuple[RoleShape, ...]
    expires_in: timedelta
    storage_bytes: int  # newly reserved; 0 when there is no home volume or a kept one is taken up again
    keeps_volume: bool  # a kept home volume of this name is taken up again
    starts_now: bool | None  # None: no node has been observed yet
    forecast: admission.Forecast | None  # None: nothing is known of the nodes
    approval: tuple[str, ...]  # why somebody has to approve it, a sentence each; empty: nobody has to
    approvers: tuple[str, ...]  # user names of those who may
    cost_accelerator_hours: float  # weighted, if it runs for the whole of its granted time
    largest_now: int | None  # most replicas of the scalable role for which there is room at once; None: it has none, or nothing is known of the nodes
    cost_per_hour: Decimal | None  # of all accelerators, in the setting CURRENCY; None: costs are not shown or the catalogue has none
    cost: Decimal | None  # the same for the whole of its granted time


def prepare(*, actor: User, **asked: Unpack[Asked]) -> Draft:
    """Check a request. Raises ValidationError naming every wrong field at once, Forbidden for an inactive user."""
    if unknown := asked.keys() - Asked.__annotations__:
        raise TypeError(f"nobody can ask for {', '.join(sorted(unknown))}")  # a caller's typing error; who types is told by mypy
    if not User.objects.filter(pk=actor.pk, is_active=True).exists():
        raise Forbidden(_DEACTIVATED)
    name, params = asked["name"], asked.get("params")
    errors: dict[str, list[str]] = {}

    def attempt(check: Any, *args: Any) -> Any:
        try:
            return check(*args)
        except ValidationError as error:
            for field, messages in error.errors.items():
                errors.setdefault(field, []).extend(messages)
            return None

    good_name, good_team = attempt(check_name, name), attempt(team_for, actor, asked["team"])
    chosen, shape = attempt(template_for, asked["template"]), attempt(flavor_for, asked["flavor"])
    good_params = attempt(check_params, chosen.spec, {} if params is None else params) if chosen else None
    expiry = attempt(check_expiry, chosen.spec, asked.get("expires_in")) if chosen else None
    usual = (chosen.spec.get("scheduling") or {}).get("priority", "") if chosen else ""
    urgency: Any = attempt(lambda: admission.priority_for(actor=actor, team=good_team, slug=asked.get("priority", ""), usual=usual)) if good_team else None
    times = attempt(schedules.check_schedule, asked.get("schedule"), actor)
    data: Any = attempt(lambda: resolve(actor=actor, team=good_team, template_spec=chosen.spec, wishes=asked.get("mounts"))) if good_team and chosen else None
    shapes: tuple[RoleShape, ...] = ()
    if chosen and shape:
        attempt(check_flavor, chosen.spec, shape)
    if good_team and shape:
        attempt(exceptions.check_exceptions, good_team, shape)
    if chosen and shape and "flavor" not in errors and good_params is not None:
        shapes = role_shapes(chosen.spec, good_params, shape.shape())
        why = selectors.why_never_fits(shapes)
        if why:
            errors.setdefault("flavor", []).append(f"{shape.slug} cannot start here: {why}.")
    if good_team and good_name and _name_taken(actor, good_team, good_name):
        errors.setdefault("name", []).append(_TAKEN.format(name=good_name))
    if errors:
        raise ValidationError(" ".join(message for messages in errors.values() for message in messages), errors=errors)
    home = chosen.spec.get("home")
    return Draft(
        actor=actor,
        name=good_name,
        team=good_team,
        template=chosen,
        flavor=shape,
        params=good_params or {},
        expires_in=expiry or DEFAULT_EXPIRY,
        shapes=shapes,
        workers=next((s.replicas for s in shapes if s.scalable), 0),
        home_bytes=parse_bytes(str(home.get("size") or settings.HOME_SIZE)) if home is not None else 0,
        priority=urgency,
        schedule=times or {},
        mounts=data or [],
    )


def _check_still_may(draft: Draft) -> None:
    """What may have changed since `prepare` and must not change until the row is there. Raises as that does."""
    # Serialises with user_deactivate and membership_remove: whoever comes second sees the other.
    if not User.objects.select_for_update(no_key=True).filter(pk=draft.actor.pk, is_active=True).exists():
        raise Forbidden(_DEACTIVATED)
    team_for(draft.actor, draft.team.slug)
    exceptions.check_exceptions(draft.team, draft.flavor, lock=True)
    if _name_taken(draft.actor, draft.team, draft.name, lock=True):
        raise ValidationError.field("name", _TAKEN.format(name=draft.name))


_DEACTIVATED = "This account is deactivated."
_TAKEN = "You already have an environment called {name} in this team; choose another name or delete that one."


def _name_taken(actor: User, team: Team, name: str, lock: bool = False) -> bool:
    live = Environment.objects.filter(owner=actor, team=team, name=name).exclude(state=State.DELETED)
    # Locked, because a row that is just being deleted would otherwise make the insert wait while it waits for our quota rows.
    return bool(live.select_for_update(no_key=True)) if lock else live.exists()


def _kept_volume(draft: Draft) -> Volume | None:
    """The home volume kept from an environment of the same name, locked."""
    volume = Volume.objects.select_for_update(no_key=True).filter(team=draft.team, owner=draft.actor, name=draft.name).first()
    if volume and volume.purge_requested_at:
        raise Conflict(f"The home volume of the former {draft.name} is being purged. Try again in a minute, or choose another name.")
    return volume


@dataclass(frozen=True, kw_only=True)
class _Terms:
    """What a request takes, and why somebody has to approve it."""

    new_volume: bool
    why: tuple[str, ...]  # empty: nobody has to
    held: dict[str, int]  # by the environment; empty while it waits for approval
    amounts: dict[str, int]  # the same with the storage of a new volume


def _terms(draft: Draft, *, new_volume: bool) -> _Terms:
    storage = {STORAGE: draft.home_bytes} if new_volume else {}
    why = _reasons(draft, storage.get(STORAGE, 0))
    held = {} if why else running_amounts(draft.shapes, draft.expires_in)
    return _Terms(new_volume=new_volume, why=why, held=held, amounts=held | storage)


def _reasons(draft: Draft, storage: int) -> tuple[str, ...]:
    """Why the request goes beyond self-service."""
    amounts = running_amounts(draft.shapes, draft.expires_in) | ({STORAGE: storage} if storage else {})
    return asking.reasons(team=draft.team, template=draft.template, flavor=draft.flavor, amounts=amounts, granted=draft.expires_in)


def environment_preview(*, actor: User, **asked: Unpack[Asked]) -> Preview:
    """What `environment_request` with the same arguments would do. Raises ValidationError as that does; a full quota is told in the result."""
    draft = prepare(actor=actor, **asked)
    volume = Volume.objects.filter(team=draft.team, owner=actor, name=draft.name).first()
    amounts = running_amounts(draft.shapes, draft.expires_in)
    storage = draft.home_bytes if volume is None else 0
    if storage:
        amounts[STORAGE] = storage
    shared = new_claim_bytes(draft.team, draft.mounts)
    quota = _with_shared(ledger.effects(draft.team, actor, amounts), draft.team, shared)
    approval, rate = _reasons(draft, storage), _hourly(draft)
    # What waits for approval holds only its storage; the rest has to fit when it is approved.
    now_needed = [effect for effect in quota if not approval or effect.resource == STORAGE]
    refusals = [message for messages in ledger.exceeded(draft.team, actor, now_needed).errors.values() for message in messages]
    if volume and volume.purge_requested_at:
        refusals.append(f"The home volume of the former {draft.name} is being purged. Try again in a minute, or choose another name.")
    return Preview(
        allowed=not refusals,
        refusals=tuple(refusals),
        quota=quota,
        roles=draft.shapes,
        expires_in=draft.expires_in,
        storage_bytes=storage + shared,
        keeps_volume=volume is not None and draft.home_bytes > 0,
        starts_now=selectors.starts_now(draft.shapes),
        forecast=admission.forecast(
            team=draft.team, shapes=draft.shapes, priority_value=draft.priority.value, template_spec=draft.template.spec, expires_in=draft.expires_in
        ),
        approval=approval,
        approvers=tuple(person.username for person in selectors.approvers_for(draft.team, {actor.pk})) if approval else (),
        cost_accelerator_hours=amounts.get("accelerator_seconds", 0) / 3600,
        largest_now=selectors.largest_now(draft.template.spec, draft.shapes, draft.flavor, _most_replicas(draft)),
        cost_per_hour=rate,
        cost=None if rate is None else (rate * Decimal(draft.expires_in.total_seconds()) / 3600).quantize(Decimal("0.01")),
    )


def _with_shared(effects: list[ledger.QuotaEffect], team: Team, shared: int) -> tuple[ledger.QuotaEffect, ...]:
    """`effects` with the storage of shared claims that the team as a whole would newly hold."""
    if not shared:
        return tuple(effects)
    own = next((effect for effect in effects if effect.scope == "team" and effect.resource == STORAGE), None)
    others = [effect for effect in effects if effect is not own]
    return (*ledger.effects_team(team, {STORAGE: shared + (own.amount if own else 0)}), *others)


def _most_replicas(draft: Draft) -> int:
    """The most that the template allows of its scalable role."""
    name = scalable_param(draft.template.spec)
    return int(parameters(draft.template.spec)["properties"][name].get("maximum", 1000)) if name else 0


def _hourly(draft: Draft) -> Decimal | None:
    """What its accelerators cost in an hour."""
    chip = draft.flavor.accelerator
    if not settings.CURRENCY or chip is None or chip.cost_per_hour is None:
        return None
    return chip.cost_per_hour * sum(shape.replicas * shape.accelerator_count for shape in draft.shapes)


def environment_request(*, actor: User, **asked: Unpack[Asked]) -> Environment:
    """Ask for an environment: its quota is reserved, its row and first event are written, a worker is nudged after commit.

    What goes beyond self-service waits for approval instead and holds only its storage. Raises ValidationError, QuotaExceeded, Conflict
    (its former home volume is being purged), Forbidden (inactive user).
    """
    # All that can be is done before the transaction: on SQLite that keeps every other writer waiting.
    draft = prepare(actor=actor, **asked)
    kept = draft.home_bytes > 0 and Volume.objects.filter(team=draft.team, owner=actor, name=draft.name).exists()
    terms = _terms(draft, new_volume=draft.home_bytes > 0 and not kept)
    ledger.look(draft.team, actor, terms.amounts)
    try:
        with transaction.atomic():
            _check_still_may(draft)
            if draft.mounts:  # grants and versions may have gone meanwhile
                draft = replace(draft, mounts=resolve(actor=actor, team=draft.team, template_spec=draft.template.spec, wishes=asked.get("mounts")))
            return _make(draft, terms)
    except IntegrityError as error:
        if "one_live_environment" in str(error) or "UNIQUE" in str(error):
            raise ValidationError.field("name", _TAKEN.format(name=str(asked["name"])[:40])) from error
        raise DomainError("The request met another one. Try again.") from error


def _make(draft: Draft, terms: _Terms) -> Environment:
    volume = _kept_volume(draft) if draft.home_bytes else None
    new_volume = draft.home_bytes > 0 and volume is None
    if new_volume != terms.new_volume:  # it came or went meanwhile
        terms = _terms(draft, new_volume=new_volume)
    ledger.reserve(draft.team, draft.actor, terms.amounts, looked=True)
    ensure_claims(draft.team, draft.mounts)
    if new_volume:
        key = uuid4()
        volume = Volume.objects.create(
            id=key,
            team=draft.team,
            owner=draft.actor,
            name=draft.name,
            # with the volume's id: a claim still being purged is never mistaken for its successor
            claim=f"home-{draft.name}-{key.hex[:8]}",
            size_bytes=draft.home_bytes,
        )
    now = timezone.now()
    environment = Environment.objects.create(
        name=draft.name,
        kind=draft.template.kind,
        team=draft.team,
        owner=draft.actor,
        template=draft.template,
        template_version=draft.template.version,
        template_spec=draft.template.spec,
        flavor=draft.flavor,
        params=draft.params,
        workers=draft.workers,
        volume=volume,
        reserved=terms.held,
        expires_in=int(draft.expires_in.total_seconds()),
        expires_at=None if terms.why else now + draft.expires_in,
        next_check_at=now,
        priority=draft.priority.slug,
        priority_value=draft.priority.value,
        schedule=draft.schedule,
        mounts=draft.mounts,
        schedule_next_at=schedules.next_time(draft.schedule, now),
    )
    append(
        environment,
        kind=Event.Kind.STATE,
        code="Requested",
        message=f"Requested from template {draft.template.slug} with flavor {draft.flavor.slug}.",
        actor=draft.actor,
        to_state=State.REQUESTED.value,
    )
    if terms.why:
        asking.ask(environment, actor=draft.actor, why=terms.why)
    outbound.nudge(environment.pk)
    return environment
