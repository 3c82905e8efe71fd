"""Quota resources, how their amounts read, and the arithmetic of the monthly budget. Pure."""

from __future__ import annotations

from datetime import date, datetime, timedelta, tzinfo

ENVIRONMENTS, CPU, MEMORY, STORAGE = "environments", "cpu", "memory", "storage"
ACCELERATORS = "accelerators"  # all devices together, each by its catalogue weight; thousandths
ACCELERATOR_SECONDS = "accelerator_seconds"  # the month's budget: weighted devices times seconds
# Not limited until somebody sets a limit; an accelerator by itself is granted, never assumed.
BASE_RESOURCES = (ENVIRONMENTS, CPU, MEMORY, STORAGE, ACCELERATORS, ACCELERATOR_SECONDS)
MONTHLY = frozenset({ACCELERATOR_SECONDS})
# What an environment without an end is counted with: nobody may have the month's budget for nothing.
ENDLESS = timedelta(days=31)
_ACCELERATOR = "accelerator:"
_MICROSECOND = timedelta(microseconds=1)


def accelerator_resource(slug: str) -> str:
    """Quota resource that counts devices of an accelerator."""
    return _ACCELERATOR + slug


def accelerator_of(resource: str) -> str | None:
    """Slug of the accelerator a quota resource counts; None for any other resource."""
    return resource.removeprefix(_ACCELERATOR) if resource.startswith(_ACCELERATOR) else None


def _trim(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def format_amount(resource: str, amount: int) -> str:
    """`amount` of `resource` for people: "3 environments", "2.5 CPU", "16 GiB memory", "8 nvidia-a100-80g", "1.5 accelerators (weighted)"."""
    if resource == ENVIRONMENTS:
        return f"{amount} environment" if amount == 1 else f"{amount} environments"
    if resource == CPU:
        return f"{_trim(amount / 1000)} CPU"
    if resource in (MEMORY, STORAGE):
        return f"{_trim(amount / 2**30)} GiB {resource}"
    if resource == ACCELERATORS:
        return f"{_trim(amount / 1000)} {'accelerator' if amount == 1000 else 'accelerators'} (weighted)"
    if resource == ACCELERATOR_SECONDS:
        return f"{_trim(amount / 3600)} {'accelerator-hour' if amount == 3600 else 'accelerator-hours'}"
    return f"{amount} {accelerator_of(resource) or resource}"


def weight_thousandths(quota_weight: float) -> int:
    """The catalogue's weight of one device, in thousandths."""
    return round(quota_weight * 1000)


def weighted_seconds(weighted: int, span: timedelta) -> int:
    """Accelerator-seconds of `weighted` thousandths of a device over `span`, rounded up to whole seconds; 0 for an empty span."""
    return max(0, -(-weighted * (span // _MICROSECOND) // 10**9))


def span_of(weighted: int, accelerator_seconds: int) -> timedelta | None:
    """How long `accelerator_seconds` last for `weighted` thousandths, in whole seconds; None when nothing is weighed."""
    return timedelta(seconds=min(accelerator_seconds * 1000 // weighted, 2**31 - 1)) if weighted else None


def charge(weighted: int, granted: timedelta, started: datetime, until: datetime) -> int:
    """Accelerator-seconds that a holding which began at `started` has taken of the budget by `until`. Never more than for what was granted."""
    return weighted_seconds(weighted, min(until - started, granted))


def month_of(moment: datetime, zone: tzinfo) -> date:
    """First day of the month in which `moment` is in `zone`."""
    return moment.astimezone(zone).date().replace(day=1)


def month_start(month: date, zone: tzinfo) -> datetime:
    """The moment at which the month begins in `zone`."""
    return datetime(month.year, month.month, 1, tzinfo=zone)
