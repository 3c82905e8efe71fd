"""The account book of quota: every change of what is used is one conditional update of all rows concerned, all or nothing.

Rows are locked in the order of their keys, so two requests cannot deadlock. Call it inside the transaction of the verb. What holds these
locks makes everybody in the team wait, on SQLite everybody who writes anything: so the hot verbs `look` before they begin, and who is
refused then has locked nothing.

The budget (`accelerator_seconds`) is by month: `Quota.period` names the month that `used` is about. `used` is what holdings have taken in that
month, plus everything that is granted to those that hold now and not yet taken. When the month turns, the first to reserve, or the timer,
sets a row anew under its lock: to what is still ahead of those that hold, from the beginning of the month on. What they took before
that moment stays with the month before; what they are granted beyond the end of a month is counted in full until then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any, NamedTuple

from django.db import DEFAULT_DB_ALIAS, connection, connections, transaction
from django.utils import timezone

from ..errors import QuotaExceeded
from ..models import Environment, Quota, Team, User
from ..quantities import ACCELERATOR_SECONDS, BASE_RESOURCES, MONTHLY, format_amount
from ..selectors.usage import budget_held, budget_month
from . import usage


@dataclass(frozen=True, kw_only=True)
class QuotaEffect:
    """What a request does to one limit. Amounts in the resource's unit (count, millicores, bytes, devices, thousandths, seconds)."""

    scope: str  # "team" or "user"
    team: str
    resource: str
    limit: int | None
    used: int
    amount: int

    @property
    def fits(self) -> bool:
        return self.limit is None or self.amount <= 0 or self.used + self.amount <= self.limit


def initial_limit(resource: str, user_id: int | None) -> int | None:
    """Limit of a row made on demand: accelerators are granted to a team, never assumed; everything else is open until someone limits it."""
    return 0 if user_id is None and resource not in BASE_RESOURCES else None


def _room(resources: int, *, lock: str = "", order: str = "") -> str:
    """The rows of a team and of a user in it that so many amounts concern, and whether each has room."""
    want = ", ".join(["(%s, CAST(%s AS bigint))"] * resources)
    return (
        f"WITH want (resource, amount) AS (VALUES {want}), "  # noqa: S608 - nothing but placeholders is put in
        'room AS (SELECT q.id AS place, w.amount AS amount, (w.amount <= 0 OR ((q."limit" IS NULL OR q."limit" >= q.used + w.amount) '
        f"AND (q.resource <> '{ACCELERATOR_SECONDS}' OR q.period = %s))) AS fits "
        "FROM domain_quota q JOIN want w ON w.resource = q.resource "
        f"WHERE q.team_id = %s AND (q.user_id IS NULL OR q.user_id = %s) {order} {lock})"
    )


def _in_form_of(vendor: str, sql: str) -> str:
    """A statement as the database's driver takes it."""
    return sql.replace("%s", "?") if vendor == "sqlite" else sql


@lru_cache(maxsize=64)
def take_sql(vendor: str, resources: int) -> str:
    """The statement that adds amounts of so many resources to the rows of a team and of a user in it, in the driver's own form.

    Parameters: resource and amount of each, the month, the team, the user, how many rows must have room. It changes all rows or none.
    """
    lock, most = ("FOR NO KEY UPDATE OF q", "GREATEST") if vendor == "postgresql" else ("", "MAX")
    sql = (
        f"{_room(resources, lock=lock, order='ORDER BY q.id')} "  # noqa: S608 - nothing but placeholders is put in
        f"UPDATE domain_quota AS q SET used = {most}(q.used + room.amount, 0) FROM room "
        "WHERE q.id = room.place AND (SELECT COUNT(*) FROM room WHERE fits) >= %s RETURNING used"
    )
    return _in_form_of(vendor, sql)


@lru_cache(maxsize=64)
def _look_sql(vendor: str, resources: int) -> str:
    """How many of the rows have room; the parameters of `take_sql` but the last."""
    return _in_form_of(vendor, f"{_room(resources)} SELECT COUNT(*) FROM room WHERE fits")  # noqa: S608 - nothing but placeholders is put in


def _run(sql: str, parameters: list[Any]) -> list[Any]:
    """The rows of a statement in the driver's own form. The hottest rows of the database are locked meanwhile, so nothing is done twice here."""
    database = connections[DEFAULT_DB_ALIAS]  # looked up once: each use of the `connection` proxy is a look-up of its own
    database.ensure_connection()
    database.validate_no_broken_transaction()
    with database.wrap_database_errors:
        cursor = database.connection.cursor()
        try:
            return list(cursor.execute(sql, parameters).fetchall())
        finally:
            cursor.close()


def _parameters(team_id: int, user_id: int, amounts: Mapping[str, int]) -> list[Any]:
    return [part for item in amounts.items() for part in item] + [budget_month().isoformat(), team_id, user_id]


def _take(team_id: int, user_id: int, amounts: Mapping[str, int], rows: int) -> bool:
    """Add `amounts` (negative ones give back, never below zero) if at least `rows` rows have room; whether it was done."""
    return len(_run(take_sql(connection.vendor, len(amounts)), [*_parameters(team_id, user_id, amounts), rows])) >= rows


def look(team: Team, user: User, amounts: Mapping[str, int]) -> None:
    """Refuse what has no room as things stand, before anything is locked: the words of a refusal are found while nobody waits for it.
    Reserves nothing, so `reserve` decides. Raises QuotaExceeded."""
    amounts = {resource: amount for resource, amount in amounts.items() if amount}
    if not amounts or _run(_look_sql(connection.vendor, len(amounts)), _parameters(team.pk, user.pk, amounts))[0][0] >= 2 * len(amounts):
        return
    all_effects = effects(team, user, amounts)  # rows may be absent, or a month behind
    if not all(effect.fits for effect in all_effects):
        raise exceeded(team, user, all_effects)


def reserve(team: Team, user: User, amounts: Mapping[str, int], *, looked: bool = False) -> None:
    """Take `amounts` from the team and from the user within it, all or nothing; negative amounts give back. Raises QuotaExceeded naming
    every limit in the way.

    Call it before the environment's row is written: when a month turns here, the row is counted as it stands. `looked`: the verb has
    asked `look` a moment ago, before its transaction.
    """
    amounts = {resource: amount for resource, amount in amounts.items() if amount}
    if not amounts:
        return
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("quota is reserved inside the transaction of a verb")
    if not looked and connection.vendor == "postgresql":
        look(team, user, amounts)  # on SQLite the verb's transaction has locked everything already
    if _take(team.pk, user.pk, amounts, 2 * len(amounts)):
        return
    all_effects = _effects(team, user, amounts, _rows_ready(team.pk, user.pk, amounts))
    # Rows may have been absent, or a month behind; those that were there are locked by the first try.
    if all(effect.fits for effect in all_effects) and _take(team.pk, user.pk, amounts, 2 * len(amounts)):
        return
    raise exceeded(team, user, all_effects)


def release(team_id: int, user_id: int, amounts: Mapping[str, int]) -> None:
    """Give `amounts` back. Never below zero: a drift is for `quota_recompute` to report, not to block a teardown."""
    amounts = {resource: -amount for resource, amount in amounts.items() if amount > 0}
    if amounts:
        _take(team_id, user_id, amounts, 0)


_NOBODY = 0  # no user has this id: only the team's rows are meant


def reserve_team(team: Team, amounts: Mapping[str, int]) -> None:
    """Take `amounts` from the team as a whole, for what is nobody's own. Raises QuotaExceeded."""
    amounts = {resource: amount for resource, amount in amounts.items() if amount}
    if not amounts or _take(team.pk, _NOBODY, amounts, len(amounts)):
        return
    raise QuotaExceeded(" ".join(refusals_team(team, amounts)) or "The quota was used up by somebody else a moment ago. Try again.")


def effects_team(team: Team, amounts: Mapping[str, int]) -> list[QuotaEffect]:
    """What `reserve_team` would do to each limit. Reads only."""
    rows = _rows(team.pk, _NOBODY, amounts)
    absent = _Row(None, 0, "")
    found = [(resource, rows.get((None, resource), absent)) for resource in sorted(amounts)]
    return [QuotaEffect(scope="team", team=team.slug, resource=name, limit=row.limit, used=row.used, amount=amounts[name]) for name, row in found]


def refusals_team(team: Team, amounts: Mapping[str, int]) -> list[str]:
    """Sentences that name every limit of the team in the way; empty when there is room."""
    refused = [effect for effect in effects_team(team, amounts) if not effect.fits]
    if not refused:
        return []
    who = _who(team)["team"]
    return [
        f"Team {team.slug} may use {format_amount(effect.resource, effect.limit or 0)}; {format_amount(effect.resource, effect.used)} in use, "
        f"and this needs {format_amount(effect.resource, effect.amount)} more. {who}"
        for effect in refused
    ]


def release_team(team_id: int, amounts: Mapping[str, int]) -> None:
    """Give `amounts` back to the team as a whole."""
    release(team_id, _NOBODY, amounts)


def release_all(environment: Environment, taken: int) -> None:
    """Give back what the environment held, when its row says that it holds nothing any more; of the budget all but what it has `taken`
    (`usage.end`), so that the rest of its grant can be used by others this month."""
    held = environment.reserved
    if ACCELERATOR_SECONDS in held:
        held = held | {ACCELERATOR_SECONDS: held[ACCELERATOR_SECONDS] - taken}
    release(environment.team_id, environment.owner_id, held)


def rebook(environment: Environment, amounts: Mapping[str, int]) -> dict[str, int]:
    """Change what an environment holds to `amounts`: reserve what is more, give back what is less. Its new account, for `reserved`.

    For scaling and extending. `amounts` is `running_amounts` of the new shape and of the time that it may run from now on: for an
    extension the new span, for another size `usage.ahead(environment, now)`. What it has taken of the budget until now stays charged, and
    its usage rows are closed and begun anew. Call it under the row's lock and before the row is written. Raises QuotaExceeded.
    """
    now, new = timezone.now(), dict(amounts)
    held = environment.reserved
    if ACCELERATOR_SECONDS in held:
        held = held | {ACCELERATOR_SECONDS: held[ACCELERATOR_SECONDS] - usage.spent(environment, now)}
    reserve(environment.team, environment.owner, {resource: new.get(resource, 0) - held.get(resource, 0) for resource in new.keys() | held.keys()})
    usage.renew(environment, new, now)
    return new


class _Row(NamedTuple):
    limit: int | None
    used: int
    month: str  # as the database writes a date; empty: none


_Rows = dict[tuple[int | None, str], _Row]


@lru_cache(maxsize=64)
def _rows_sql(vendor: str, resources: int) -> str:
    names = ", ".join(["%s"] * resources)
    sql = (
        'SELECT user_id, resource, "limit", used, period FROM domain_quota '  # noqa: S608 - nothing but placeholders is put in
        f"WHERE team_id = %s AND (user_id IS NULL OR user_id = %s) AND resource IN ({names})"
    )
    return _in_form_of(vendor, sql)


def _rows(team_id: int, user_id: int, resources: Collection[str]) -> _Rows:
    found = _run(_rows_sql(connection.vendor, len(resources)), [team_id, user_id, *resources]) if resources else []
    return {(subject, resource): _Row(limit, used, str(period or "")) for subject, resource, limit, used, period in found}


def _rows_ready(team_id: int, user_id: int, resources: Collection[str]) -> _Rows:
    """The rows of team and user, made where absent, their month turned where it is behind."""
    rows, wanted = _rows(team_id, user_id, resources), sorted(resources)
    missing = [(subject, resource) for subject in (None, user_id) for resource in wanted if (subject, resource) not in rows]
    month = budget_month()
    if missing:
        new = [Quota(team_id=team_id, user_id=subject, resource=resource, limit=initial_limit(resource, subject)) for subject, resource in missing]
        Quota.objects.bulk_create(new, ignore_conflicts=True)
        rows = _rows(team_id, user_id, wanted)
    if any(resource in MONTHLY and row.month != str(month) for (_, resource), row in rows.items()):
        month_turn(team_id, month)
        rows = _rows(team_id, user_id, wanted)
    return rows


def month_turn(team_id: int, month: date) -> int:
    """Set the team's accounts of the month that are behind to what is still ahead of those that hold; how many. Inside a transaction.

    Under the rows' locks, since a reservation that is not yet committed would be missed; a second caller finds nothing left to do.
    """
    behind = Quota.objects.filter(team=team_id, resource__in=MONTHLY).exclude(period=month)
    rows = list(behind.select_for_update(no_key=True).order_by("pk"))
    held = budget_held(month, team_id) if rows else {}
    return sum(behind.filter(pk=row.pk).update(used=max(0, held.get((team_id, row.user_id), 0)), period=month) for row in rows)


def effects(team: Team, user: User, amounts: Mapping[str, int]) -> list[QuotaEffect]:
    """What reserving `amounts` would do to each limit. Reads only."""
    return _effects(team, user, amounts, _rows(team.pk, user.pk, amounts))


def _effects(team: Team, user: User, amounts: Mapping[str, int], rows: _Rows) -> list[QuotaEffect]:
    month = budget_month()
    behind = any(resource in MONTHLY and row.month != str(month) for (_, resource), row in rows.items())
    held = budget_held(month, team.pk) if behind else {}
    result = []
    for subject, scope in ((None, "team"), (user.pk, "user")):
        for resource in sorted(amounts):
            row = rows.get((subject, resource))
            limit = row.limit if row else initial_limit(resource, subject)
            used = row.used if row else 0
            if row and resource in MONTHLY and row.month != str(month):
                used = held.get((team.pk, subject), 0)
            result.append(QuotaEffect(scope=scope, team=team.slug, resource=resource, limit=limit, used=used, amount=amounts[resource]))
    return result


def exceeded(team: Team, user: User, all_effects: Iterable[QuotaEffect]) -> QuotaExceeded:
    """The refusal: limit, use, amount, and who can change it."""
    errors: dict[str, list[str]] = {}
    refused = [effect for effect in all_effects if not effect.fits]
    who = _who(team) if refused else {}
    for effect in refused:
        errors.setdefault(effect.resource, []).append(f"{_refusal(team, user, effect)} {who[effect.scope]}")
    messages = [message for several in errors.values() for message in several]
    return QuotaExceeded(" ".join(messages) or "The quota was used up by somebody else a moment ago. Try again.", errors=errors)


def _refusal(team: Team, user: User, effect: QuotaEffect) -> str:
    whose = f"Team {team.slug}" if effect.scope == "team" else f"{user.username} in team {team.slug}"
    limit, used = format_amount(effect.resource, effect.limit or 0), format_amount(effect.resource, effect.used)
    more = format_amount(effect.resource, effect.amount)
    if effect.resource in MONTHLY:
        return f"{whose} may use {limit} this month; {used} are used or promised, and this needs {more} more."
    return f"{whose} may use {limit}; {used} in use, and this needs {more} more."


_WHO = (
    "SELECT u.username, u.is_staff, m.id IS NOT NULL FROM domain_user u "
    "LEFT JOIN domain_membership m ON m.user_id = u.id AND m.team_id = %s AND m.role = 'lead' "
    "WHERE u.is_active AND (u.is_staff OR m.id IS NOT NULL) ORDER BY u.username"
)


def _who(team: Team) -> dict[str, str]:
    """By scope, the sentence that says who can change the limit: admins, and for a member's the leads first."""
    people = _run(_in_form_of(connection.vendor, _WHO), [team.pk])
    leads = [name for name, _, leads in people if leads][:5]
    admins = [name for name, staff, _ in people if staff][:5]
    words = {}
    for scope, first in (("team", []), ("user", leads)):
        named = [f"{name} (lead)" for name in first] + [f"{name} (platform admin)" for name in admins if name not in first]
        words[scope] = f"The limit can be changed by {', '.join(named)}." if named else "The limit can be changed by a platform admin."
    return words
