"""Usage rows: what an environment holds, from the moment the queue lets it go until its quota is given back. Used inside a verb's transaction.

Beside a row per resource there is one for `accelerators` (all devices, weighted, thousandths). It alone is what the monthly budget is
charged by: `amount` times the time held, up to `granted_seconds`, rounded up to whole accelerator-seconds. An environment's commitment
(`reserved["accelerator_seconds"]`) is for what is still ahead of it from the beginning of its open row, or from admission when none is open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from ..models import Accelerator, Environment, Usage
from ..quantities import ACCELERATOR_SECONDS, ACCELERATORS, CPU, ENDLESS, MEMORY, accelerator_of, charge, span_of, weight_thousandths


def begin(environments: Iterable[Environment], now: datetime) -> None:
    """Open the rows of environments that are admitted at `now`; those that have open ones keep them.

    For `queue_pass`, within its transaction. One that is handed to another queue (`placement["queue"]`) still waits there and is left
    out: its rows are opened when it is moved to provisioning. Call it when their rows are written, and so locked: what they hold is
    read again here, since somebody may have changed its size after the queue was looked at.
    """
    admitted = {environment.pk: environment for environment in environments if not (environment.placement or {}).get("queue")}
    held = Environment.objects.filter(pk__in=admitted).values_list("pk", "reserved")
    _open([(admitted[key], reserved) for key, reserved in held], now)


def begin_if_absent(environment: Environment, now: datetime) -> None:
    """Open the rows of one that is being set up, whichever queue let it go."""
    _open([(environment, environment.reserved)], now)


def _open(holdings: Iterable[tuple[Environment, Mapping[str, int]]], now: datetime) -> None:
    counted = [
        (environment, reserved, resource)
        for environment, reserved in holdings
        for resource in sorted(reserved)
        if resource in (CPU, MEMORY, ACCELERATORS) or accelerator_of(resource)
    ]
    slugs = {slug for _, _, resource in counted if (slug := accelerator_of(resource))}
    weights = {}
    if slugs:
        weights = {slug: weight_thousandths(weight) for slug, weight in Accelerator.objects.filter(slug__in=slugs).values_list("slug", "quota_weight")}
    rows = [
        Usage(
            environment=environment,
            team_id=environment.team_id,
            owner_id=environment.owner_id,
            resource=resource,
            amount=reserved[resource],
            weight=weights.get(accelerator_of(resource) or "", 0),
            started_at=now,
            granted_seconds=_granted_seconds(environment, reserved),
        )
        for environment, reserved, resource in counted
        if reserved[resource]
    ]
    Usage.objects.bulk_create(rows, ignore_conflicts=True)


def _granted_seconds(environment: Environment, reserved: Mapping[str, int]) -> int | None:
    span = span_of(reserved.get(ACCELERATORS, 0), reserved.get(ACCELERATOR_SECONDS, 0))
    return environment.expires_in if span is None else int(span.total_seconds())


def end(environment: Environment, now: datetime) -> int:
    """Close the open rows; how many accelerator-seconds they have taken of the budget."""
    rows = list(Usage.objects.filter(environment=environment, ended_at=None))
    if not rows:
        return 0
    now = max(now, *(row.started_at for row in rows))
    Usage.objects.filter(pk__in=[row.pk for row in rows]).update(ended_at=now)
    return sum(_charge(row, now) for row in rows if row.resource == ACCELERATORS)


def spent(environment: Environment, now: datetime) -> int:
    """What `end` at `now` would answer; nothing is closed."""
    return sum(_charge(row, now) for row in Usage.objects.filter(environment=environment, resource=ACCELERATORS, ended_at=None))


def renew(environment: Environment, reserved: Mapping[str, int], now: datetime) -> None:
    """Close the open rows and begin new ones with other amounts. Does nothing while none are open: what waits holds, but does not use."""
    if Usage.objects.filter(environment=environment, ended_at=None).exists():
        end(environment, now)
        _open([(environment, reserved)], now)


def ahead(environment: Environment, now: datetime) -> timedelta | None:
    """The part of its grant that an environment has still ahead: what its budget is charged for when it changes its size. None: no end."""
    reserved = environment.reserved
    span = span_of(reserved.get(ACCELERATORS, 0), reserved.get(ACCELERATOR_SECONDS, 0) - spent(environment, now))
    if span is not None:
        return span
    return None if environment.expires_in is None else timedelta(seconds=environment.expires_in)


def _charge(row: Usage, until: datetime) -> int:
    return charge(row.amount, ENDLESS if row.granted_seconds is None else timedelta(seconds=row.granted_seconds), row.started_at, until)
