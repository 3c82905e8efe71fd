"""Setting limits, and checking the account book against what is there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from django.db import transaction

from .. import outbound, selectors
from ..errors import Forbidden, NotFound, ValidationError
from ..models import Accelerator, Environment, Membership, Quota, Team, User, Volume
from ..quantities import BASE_RESOURCES, STORAGE, accelerator_of, accelerator_resource

MAX_LIMIT = 2**62


@dataclass(frozen=True, kw_only=True)
class Drift:
    """A row whose `used` differs from the sum of what environments and volumes hold."""

    team: str
    user: str  # empty: the whole team
    resource: str
    used: int
    held: int


def quota_set(*, actor: User | None, team: Team, user: User | None, resource: str, limit: int | None) -> Quota:
    """Set a limit; None means unlimited. A limit below present use is allowed and only blocks new requests.

    The team's limits are for platform admins, a member's within it also for the team's leads. `actor` None is the installation itself.
    Raises Forbidden, NotFound (team not visible), ValidationError.
    """
    _check_may_set(actor, team, user)
    check_quota(team=team, user=user, resource=resource, limit=limit)
    with transaction.atomic():
        row, _ = Quota.objects.get_or_create(team=team, user=user, resource=resource, defaults={"limit": limit})
        Quota.objects.filter(pk=row.pk).update(limit=limit)  # `used` moves meanwhile, so not save()
        row.limit = limit
        outbound.team_sync(team.slug)
    return row


def check_quota(*, team: Team, user: User | None, resource: str, limit: int | None) -> None:
    """Whether such a limit can be. Raises ValidationError."""
    slug = accelerator_of(resource)
    if resource not in BASE_RESOURCES and not (slug and len(resource) <= 80):
        raise ValidationError.field("resource", f"Must be one of {', '.join(BASE_RESOURCES)} or accelerator:<slug>.")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit <= MAX_LIMIT):
        raise ValidationError.field("limit", "Must be a whole number from 0 up, or null for unlimited.")
    if user is not None and not Membership.objects.filter(team=team, user=user).exists():
        raise ValidationError.field("user", f"{user.username} is not in team {team.slug}.")


def _check_may_set(actor: User | None, team: Team, user: User | None) -> None:
    if actor is None or (actor.is_active and actor.is_staff):
        return
    if not actor.is_active or not Membership.objects.filter(team=team, user=actor).exists():
        raise NotFound("There is no such team.")
    if user is None:
        raise Forbidden("A team's limits are set by platform admins.")
    if not selectors.teams_led_by(actor).filter(pk=team.pk).exists():
        raise Forbidden("A member's limits are set by the leads of the team and by platform admins.")


def quota_rows_ensure(team: Team | None = None) -> None:
    """Make the team-wide rows that are absent, for one team or all: base resources unlimited, each accelerator of the catalogue 0."""
    slugs = list(Accelerator.objects.values_list("slug", flat=True))
    limits = dict.fromkeys(BASE_RESOURCES) | {accelerator_resource(slug): 0 for slug in slugs}
    rows = [Quota(team=each, resource=resource, limit=limit) for each in ([team] if team else Team.objects.all()) for resource, limit in limits.items()]
    Quota.objects.bulk_create(rows, ignore_conflicts=True)


def quota_recompute(*, repair: bool = False) -> list[Drift]:
    """Rows whose `used` is not what environments and volumes hold; with `repair` they are set right. Locks every row meanwhile."""
    with transaction.atomic():
        rows = list(Quota.objects.select_for_update(of=("self",), no_key=True).select_related("team", "user").order_by("team", "user", "resource"))
        held: Counter[tuple[int, int | None, str]] = Counter()  # team, user (None: the team as a whole), resource
        for team, owner, reserved in Environment.objects.exclude(reserved={}).values_list("team", "owner", "reserved"):
            for resource, amount in reserved.items():
                held[team, None, resource] += amount
                held[team, owner, resource] += amount
        for team, owner, size in Volume.objects.values_list("team", "owner", "size_bytes"):
            held[team, None, STORAGE] += size
            held[team, owner, STORAGE] += size
        drifts = []
        for row in rows:
            amount = held.pop((row.team_id, row.user_id, row.resource), 0)
            if row.used != amount:
                name = row.user.username if row.user else ""
                drifts.append(Drift(team=row.team.slug, user=name, resource=row.resource, used=row.used, held=amount))
                if repair:
                    Quota.objects.filter(pk=row.pk).update(used=amount)
        for (team_id, user_id, resource), amount in held.items():
            team_row, user_row = Team.objects.get(pk=team_id), User.objects.filter(pk=user_id).first() if user_id else None
            drifts.append(Drift(team=team_row.slug, user=user_row.username if user_row else "", resource=resource, used=0, held=amount))
            if repair:
                limit = None if user_id or resource in BASE_RESOURCES else 0
                Quota.objects.create(team=team_row, user=user_row, resource=resource, limit=limit, used=amount)
        return drifts
