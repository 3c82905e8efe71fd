"""Schedules: an environment that starts at 09:00 and stops at 20:00 on workdays, in somebody's time zone. Pure but for the defaults.

A schedule is `{"start": "09:00" | None, "stop": "20:00" | None, "days": [1..7], "timezone": "Asia/Shanghai"}`; 1 is Monday. Where the stop
is not later than the start, it is on the day after. A time that the clocks skip comes as much later as they skip; one that they show
twice counts once, the first time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings

from ..errors import ValidationError
from ..models import User

START, STOP = "start", "stop"
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)
_FIELDS = frozenset({"start", "stop", "days", "timezone"})
_WORKDAYS = [1, 2, 3, 4, 5]
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LOOK_DAYS = 10  # more than a week, so that a weekly time is among them whatever the clocks do


@dataclass(frozen=True, order=True)
class Occurrence:
    """One time at which a schedule acts, in UTC. At the same moment a stop comes after a start."""

    at: datetime
    action: str  # START or STOP; "start" < "stop"


def zone_of(user: User) -> str:
    """Name of the user's time zone, or the installation's."""
    return user.timezone if user.timezone and _zone(user.timezone) else settings.TIME_ZONE


def local_time(moment: datetime, user: User) -> str:
    """A moment as the user reads it: `2026-11-22 14:05 (Asia/Shanghai)`."""
    name = zone_of(user)
    return f"{moment.astimezone(ZoneInfo(name)):%Y-%m-%d %H:%M} ({name})"


def _zone(name: object) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if isinstance(name, str) and 0 < len(name) <= 64 else None
    except (ValueError, OSError, LookupError):  # not a name, a folder of the zone database, not there
        return None


def check_schedule(schedule: object, user: User) -> dict[str, Any]:
    """The schedule with its defaults (workdays, the user's time zone); empty for None or empty. Raises ValidationError naming `schedule`."""
    if schedule is None or schedule == {}:
        return {}
    if not isinstance(schedule, Mapping):
        raise ValidationError.field("schedule", "Must be an object with start, stop, days and timezone.")
    unknown = sorted(str(key)[:40] for key in schedule if key not in _FIELDS)
    if unknown:
        raise ValidationError.field("schedule", f"Unknown: {', '.join(unknown)}; there are start, stop, days and timezone.")
    times = {field: schedule.get(field) or None for field in (START, STOP)}
    for field, value in times.items():
        if value is not None and not (isinstance(value, str) and _TIME.fullmatch(value)):
            raise ValidationError.field("schedule", f"The {field} must be a time of day such as 09:00, or null.")
    if not any(times.values()):
        raise ValidationError.field("schedule", "Give a time to start, a time to stop, or both.")
    if times[START] == times[STOP]:
        raise ValidationError.field("schedule", "The time to start and the time to stop must differ.")
    days = schedule.get("days", _WORKDAYS)
    if not isinstance(days, list) or not days or not all(type(day) is int and 1 <= day <= 7 for day in days):
        raise ValidationError.field("schedule", "The days must be numbers from 1 (Monday) to 7 (Sunday), at least one.")
    zone = schedule.get("timezone") or zone_of(user)
    if _zone(zone) is None:
        raise ValidationError.field("schedule", "The timezone must be a name such as Asia/Shanghai or Europe/Berlin.")
    return {**times, "days": sorted(set(days)), "timezone": zone}


def _at(day: date, text: str, zone: ZoneInfo) -> datetime:
    # fold 0: the first of two; in a gap the offset before it, so the time comes as much later as the clocks skip
    return datetime.combine(day, time.fromisoformat(text), tzinfo=zone).astimezone(UTC)


def _occurrences(schedule: Mapping[str, Any], around: datetime, first: int, last: int) -> Iterator[Occurrence]:
    """Those of the local days `first` to `last`, counted from the day of `around`; in no order."""
    zone = ZoneInfo(schedule["timezone"])
    today = around.astimezone(zone).date()
    overnight = bool(schedule["start"] and schedule["stop"] and schedule["stop"] < schedule["start"])
    for offset in range(first, last + 1):
        day = today + timedelta(days=offset)
        if day.isoweekday() not in schedule["days"]:
            continue
        if schedule["start"]:
            yield Occurrence(_at(day, schedule["start"], zone), START)
        if schedule["stop"]:
            yield Occurrence(_at(day + timedelta(days=overnight), schedule["stop"], zone), STOP)


def next_occurrence(schedule: Mapping[str, Any], after: datetime) -> Occurrence | None:
    """The first one strictly later than `after`; of two at one moment the stop. None for an empty schedule."""
    if not schedule:
        return None
    later = [one for one in _occurrences(schedule, after, -2, _LOOK_DAYS) if one.at > after]
    soonest = min(one.at for one in later)
    return max(one for one in later if one.at == soonest)


def last_occurrence(schedule: Mapping[str, Any], until: datetime) -> Occurrence | None:
    """The last one not later than `until`; of two at one moment the stop. None for an empty schedule."""
    if not schedule:
        return None
    return max(one for one in _occurrences(schedule, until, -_LOOK_DAYS, 1) if one.at <= until)


def describe(schedule: Mapping[str, Any]) -> str:
    """A schedule in few words: `start 09:00, stop 20:00, Mon Tue Wed (Asia/Shanghai)`."""
    times = [f"{field} {schedule[field]}" for field in (START, STOP) if schedule[field]]
    return f"{', '.join(times)}, {' '.join(_DAYS[day - 1] for day in schedule['days'])} ({schedule['timezone']})"


def next_time(schedule: Mapping[str, Any], after: datetime) -> datetime | None:
    """When the schedule acts next, strictly later than `after`."""
    found = next_occurrence(schedule, after)
    return found.at if found else None
