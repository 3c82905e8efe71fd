"""What was held and for how long: reports for people, and the ground of the monthly budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Literal, get_args

from django.db.models import Q, QuerySet
from django.utils import timezone

from ..errors import ValidationError
from ..models import Environment, Usage, User
from ..quantities import ACCELERATOR_SECONDS, ACCELERATORS, CPU, ENDLESS, MEMORY, accelerator_of, charge, month_of, month_start
from .teams import teams_led_by

Group = Literal["user", "team", "accelerator", "template"]
GROUPS: tuple[str, ...] = get_args(Group)
_HOUR = timedelta(hours=1) // timedelta(microseconds=1)


@dataclass(kw_only=True)
class UsageRow:
    """What one user, team, accelerator or template held within a span of time. Hours are exact: a sum of whole microseconds, divided once.

    `key` is a user name or a slug; empty for what has no accelerator, when grouped by accelerator.
    """

    key: str
    environments: int = 0  # how many held anything
    cpu_hours: Fraction = field(default_factory=Fraction)  # cores times hours
    memory_hours: Fraction = field(default_factory=Fraction)  # GiB times hours
    accelerator_hours: Fraction = field(default_factory=Fraction)  # devices times hours
    weighted_hours: Fraction = field(default_factory=Fraction)  # the same, each device by its catalogue weight at the time


def usage_visible_to(user: User) -> QuerySet[Usage]:
    """What `user` may know of: his own, that of teams he leads, everything for platform admins."""
    query = Usage.objects.all()
    if not user.is_active or not user.is_authenticated:
        return query.none()
    return query if user.is_staff else query.filter(Q(owner=user) | Q(team__in=teams_led_by(user)))


def usage_report(user: User, since: datetime, until: datetime, group_by: str = "user") -> list[UsageRow]:
    """Hours held between `since` and `until`, largest first; what is still held counts up to now. Time in the queue is not counted.

    `group_by` is `user`, `team`, `accelerator` or `template`. By accelerator, the CPU and memory of an environment are in the row of
    the accelerator it was asked with. Raises ValidationError naming `group_by` or `until`.
    """
    if group_by not in GROUPS:
        raise ValidationError.field("group_by", f"Must be one of {', '.join(GROUPS)}.")
    if until <= since:
        raise ValidationError.field("until", "Must be later than the beginning.")
    now = timezone.now()
    rows: dict[str, UsageRow] = {}
    seen: set[tuple[str, object]] = set()
    for held in _held(user, since, until):
        end = min(held.ended_at or now, until)
        hours = Fraction(max(end - max(held.started_at, since), timedelta()) // timedelta(microseconds=1), _HOUR) * held.amount
        key = _key(held, group_by)
        row = rows.setdefault(key, UsageRow(key=key))
        if (key, held.environment_id) not in seen:
            seen.add((key, held.environment_id))
            row.environments += 1
        if held.resource == CPU:
            row.cpu_hours += hours / 1000
        elif held.resource == MEMORY:
            row.memory_hours += hours / 2**30
        else:
            row.accelerator_hours += hours
            row.weighted_hours += hours * held.weight / 1000
    return sorted(rows.values(), key=lambda row: (-row.weighted_hours, -row.cpu_hours, row.key))


def _held(user: User, since: datetime, until: datetime) -> Iterator[Usage]:
    query = usage_visible_to(user).filter(Q(ended_at=None) | Q(ended_at__gt=since), started_at__lt=until).exclude(resource=ACCELERATORS)
    return query.select_related("team", "owner", "environment__template", "environment__flavor__accelerator").iterator()


def _key(held: Usage, group_by: str) -> str:
    if group_by == "user":
        return held.owner.username
    if group_by == "team":
        return held.team.slug
    if group_by == "template":
        return held.environment.template.slug
    slug = accelerator_of(held.resource)
    if slug is None:
        flavor = held.environment.flavor
        slug = flavor.accelerator.slug if flavor.accelerator and flavor.accelerator_count else ""
    return slug


# --- the budget of the month ---------------------------------------------------


def budget_month(now: datetime | None = None) -> date:
    """First day of the month whose budget counts at `now`, in the time zone of the installation."""
    return month_of(now or timezone.now(), timezone.get_default_timezone())


def budget_held(month: date, team_id: int | None = None) -> Counter[tuple[int, int | None]]:
    """Accelerator-seconds of the month by team and user (None: the team as a whole), from environments and usage alone.

    What counts: of holdings that ended, the part that falls into the month; of those that hold now, everything they are granted
    less what was taken before the month began.
    """
    start = month_start(month, timezone.get_default_timezone())
    environments, usage = Environment.objects.exclude(reserved={}), Usage.objects.filter(Q(ended_at=None) | Q(ended_at__gt=start), resource=ACCELERATORS)
    if team_id is not None:
        environments, usage = environments.filter(team=team_id), usage.filter(team=team_id)
    held: Counter[tuple[int, int | None]] = Counter()
    holding = set()
    for key, team, owner, reserved in environments.values_list("pk", "team", "owner", "reserved"):
        if ACCELERATOR_SECONDS in reserved:
            holding.add(key)
            held[team, None] += reserved[ACCELERATOR_SECONDS]
            held[team, owner] += reserved[ACCELERATOR_SECONDS]
    for row in usage:
        granted = ENDLESS if row.granted_seconds is None else timedelta(seconds=row.granted_seconds)
        before = charge(row.amount, granted, row.started_at, start)
        if row.ended_at is not None:
            amount = charge(row.amount, granted, row.started_at, row.ended_at) - before
        else:
            amount = -before if row.environment_id in holding else 0
        held[row.team_id, None] += amount
        held[row.team_id, row.owner_id] += amount
    return held
