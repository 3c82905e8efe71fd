"""Setting limits, and checking the account book against what is there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from django.db import transaction

from .. import outbound, selectors
from ..errors import Forbidden, NotFound, ValidationError
from ..models import Accelerator, Environment, Membership, Quota, Team, TeamClaim, User, Volume
from ..quantities import ACCELERATOR_SECONDS, BASE_RESOURCES, MONTHLY, STORAGE, accelerator_of, accelerator_resource
from ..selectors.usage import budget_held, budget_month
from . import ledger

MAX_LIMIT = 2**62


@dataclass(frozen=True, kw_only=True)
class Drift:
    """A row whose `used` differs from the sum of what environments and volumes hold, and this month's holdings have taken."""

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
        row, made = Quota.objects.get_or_create(team=team, user=user, resource=resource, defaults={"limit": limit})
        if made and resource in MONTHLY:
            ledger.month_turn(team.pk, budget_month())
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
    resources = [*BASE_RESOURCES, *(accelerator_resource(slug) for slug in Accelerator.objects.values_list("slug", flat=True))]
    rows = [
        Quota(team=each, resource=resource, limit=ledger.initial_limit(resource, None))
        for each in ([team] if team else Team.objects.all())
        for resource in resources
    ]
    with transaction.atomic():
        Quota.objects.bulk_create(rows, ignore_conflicts=True)
        if team:
            ledger.month_turn(team.pk, budget_month())
    if team is None:
        quota_turn()


def quota_turn() -> int:
    """Begin the month in the accounts of the budget that are behind; how many. A team's first reservation of the month does the same
    for that team, so this is for those who only look."""
    month, turned = budget_month(), 0
    for team_id in set(Quota.objects.filter(resource__in=MONTHLY).exclude(period=month).values_list("team", flat=True)):
        with transaction.atomic():
            turned += ledger.month_turn(team_id, month)
    return turned


def quota_recompute(*, repair: bool = False) -> list[Drift]:
    """Rows whose `used` is not what environments, volumes and the month's usage say; with `repair` they are set right. Locks every row meanwhile."""
    quota_turn()
    with transaction.atomic():
        query = Quota.objects.select_for_update(of=("self",), no_key=True).select_related("team", "user")
        rows = list(query.order_by("pk"))  # the order in which the ledger locks them
        held = _held()
        drifts = []
        for row in sorted(rows, key=lambda row: (row.team.slug, row.user.username if row.user else "", row.resource)):
            amount = held.pop((row.team_id, row.user_id, row.resource), 0)
            if row.used != amount:
                name = row.user.username if row.user else ""
                drifts.append(Drift(team=row.team.slug, user=name, resource=row.resource, used=row.used, held=amount))
                if repair:
                    Quota.objects.filter(pk=row.pk).update(used=amount)
        for (team_id, user_id, resource), amount in held.items():
            if not amount:
                continue
            team_row, user_row = Team.objects.get(pk=team_id), User.objects.filter(pk=user_id).first() if user_id else None
            drifts.append(Drift(team=team_row.slug, user=user_row.username if user_row else "", resource=resource, used=0, held=amount))
            if repair:
                limit, period = ledger.initial_limit(resource, user_id), budget_month() if resource in MONTHLY else None
                Quota.objects.create(team=team_row, user=user_row, resource=resource, limit=limit, used=amount, period=period)
        return drifts


def _held() -> Counter[tuple[int, int | None, str]]:
    """What is held by team, user (None: the team as a whole) and resource, from environments, volumes and usage alone."""
    held: Counter[tuple[int, int | None, str]] = Counter()
    for team, owner, reserved in Environment.objects.exclude(reserved={}).values_list("team", "owner", "reserved"):
        for resource, amount in reserved.items():
            if resource not in MONTHLY:
                held[team, None, resource] += amount
                held[team, owner, resource] += amount
    for team, owner, size in Volume.objects.values_list("team", "owner", "size_bytes"):
        held[team, None, STORAGE] += size
        held[team, owner, STORAGE] += size
    for team, size in TeamClaim.objects.values_list("team", "size_bytes"):
        held[team, None, STORAGE] += size
    for (team, subject), amount in budget_held(budget_month()).items():
        held[team, subject, ACCELERATOR_SECONDS] += amount
    return held
