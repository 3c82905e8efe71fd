"""The account book of quota: reserve and release by conditional update. Rows are touched in one fixed order, so two requests cannot deadlock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.db import transaction
from django.db.models import F, Q, Value
from django.db.models.functions import Greatest

from .. import selectors
from ..errors import QuotaExceeded
from ..models import Quota, Team, User
from ..models.team import fits
from ..quantities import BASE_RESOURCES, format_amount


@dataclass(frozen=True, kw_only=True)
class QuotaEffect:
    """What a request does to one limit. Amounts in the resource's unit (count, millicores, bytes, devices)."""

    scope: str  # "team" or "user"
    team: str
    resource: str
    limit: int | None
    used: int
    amount: int

    @property
    def fits(self) -> bool:
        return self.limit is None or self.amount <= 0 or self.used + self.amount <= self.limit


def _initial_limit(resource: str, user_id: int | None) -> int | None:
    """Limit of a row made on demand: accelerators are granted to a team, never assumed; everything else is open until someone limits it."""
    return 0 if user_id is None and resource not in BASE_RESOURCES else None


def rows_for(team_id: int, user_id: int, resources: Iterable[str]) -> list[Quota]:
    """The team's rows and the user's rows for `resources`, made where absent, in the order in which they are to be changed."""
    wanted = sorted(set(resources))
    query = Quota.objects.filter(Q(user=None) | Q(user=user_id), team=team_id, resource__in=wanted)
    have = {(row.user_id, row.resource) for row in query}
    missing = [
        Quota(team_id=team_id, user_id=subject, resource=resource, limit=_initial_limit(resource, subject))
        for subject in (None, user_id)
        for resource in wanted
        if (subject, resource) not in have
    ]
    if missing:
        Quota.objects.bulk_create(missing, ignore_conflicts=True)
    return sorted(query.all(), key=lambda row: (row.user_id is not None, row.resource))


def effects(team: Team, user: User, amounts: Mapping[str, int]) -> list[QuotaEffect]:
    """What reserving `amounts` would do to each limit. Reads only."""
    rows = {(row.user_id, row.resource): row for row in Quota.objects.filter(Q(user=None) | Q(user=user), team=team, resource__in=list(amounts))}
    result = []
    for subject, scope in ((None, "team"), (user.pk, "user")):
        for resource in sorted(amounts):
            row = rows.get((subject, resource))
            limit = row.limit if row else _initial_limit(resource, subject)
            result.append(QuotaEffect(scope=scope, team=team.slug, resource=resource, limit=limit, used=row.used if row else 0, amount=amounts[resource]))
    return result


class _FullError(Exception):
    """A row has no room; leaves the savepoint so that what was taken before it is given back."""


def reserve(team: Team, user: User, amounts: Mapping[str, int]) -> None:
    """Take `amounts` from the team and from the user within it, all or nothing. Raises QuotaExceeded naming every limit in the way."""
    amounts = {resource: amount for resource, amount in amounts.items() if amount > 0}
    try:
        with transaction.atomic():
            for row in rows_for(team.pk, user.pk, amounts):
                amount = amounts[row.resource]
                if not Quota.objects.filter(fits(amount), pk=row.pk).update(used=F("used") + amount):
                    raise _FullError  # noqa: TRY301 - only an exception rolls the savepoint back
    except _FullError:
        raise exceeded(team, user, effects(team, user, amounts)) from None


def release(team_id: int, user_id: int, amounts: Mapping[str, int]) -> None:
    """Give `amounts` back. Never below zero: a drift is for `quota_recompute` to report, not to block a teardown."""
    amounts = {resource: amount for resource, amount in amounts.items() if amount > 0}
    for row in rows_for(team_id, user_id, amounts):
        Quota.objects.filter(pk=row.pk).update(used=Greatest(F("used") - amounts[row.resource], Value(0)))


def exceeded(team: Team, user: User, all_effects: Iterable[QuotaEffect]) -> QuotaExceeded:
    """The refusal: limit, use, amount, and who can change it."""
    errors: dict[str, list[str]] = {}
    for effect in all_effects:
        if not effect.fits:
            errors.setdefault(effect.resource, []).append(_refusal(team, user, effect))
    messages = [message for several in errors.values() for message in several]
    return QuotaExceeded(" ".join(messages) or "The quota was used up by somebody else a moment ago. Try again.", errors=errors)


def _refusal(team: Team, user: User, effect: QuotaEffect) -> str:
    whose = f"Team {team.slug}" if effect.scope == "team" else f"{user.username} in team {team.slug}"
    limit, used = format_amount(effect.resource, effect.limit or 0), format_amount(effect.resource, effect.used)
    return f"{whose} may use {limit}; {used} in use, and this needs {format_amount(effect.resource, effect.amount)} more. {_who(team, effect.scope)}"


def _who(team: Team, scope: str) -> str:
    admins = [person.username for person in selectors.platform_admins()[:5]]
    leads = [person.username for person in selectors.leads_of(team)[:5]] if scope == "user" else []
    people = [f"{name} (lead)" for name in leads] + [f"{name} (platform admin)" for name in admins if name not in leads]
    return f"The limit can be changed by {', '.join(people)}." if people else "The limit can be changed by a platform admin."
