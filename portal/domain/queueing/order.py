"""In what order those who wait are looked at: priority, then fair share between teams, then first come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from .model import Held, Waiting

OLD = 1 / 3  # of the window; who has waited that long goes before fair shares, so that nobody waits for ever among equals


def taken(use: Iterable[Held], now: datetime, window: timedelta) -> dict[str, dict[str, float]]:
    """Resource-seconds of each team: held within the window that has passed, and still to be held by what runs, up to one window ahead.

    What is ahead counts because else a team with the least share could take everything in one moment.
    """
    since, until = now - window, now + window
    sums: dict[str, dict[str, float]] = {}
    for held in use:
        end = until if held.ends is None else min(held.ends, until)
        seconds = (end - max(held.started, since)).total_seconds()
        if seconds > 0:
            mine = sums.setdefault(held.team, {})
            mine[held.resource] = mine.get(held.resource, 0.0) + held.amount * seconds
    return sums


def dominant(amounts: Mapping[str, float], totals: Mapping[str, int], window: timedelta) -> float:
    """The largest part of any resource of the cluster that these resource-seconds are."""
    return max((used / (totals[key] * window.total_seconds()) for key, used in amounts.items() if totals.get(key)), default=0.0)


def ordered(waiting: Sequence[Waiting], use: Iterable[Held], totals: Mapping[str, int], now: datetime, window: timedelta) -> list[Waiting]:
    """All of `waiting` in their order. Each one's own demand counts for its team from its place on, so that teams take turns."""
    sums = taken(use, now, window)
    result: list[Waiting] = []
    for priority in sorted({one.priority for one in waiting}, reverse=True):
        equals = sorted((one for one in waiting if one.priority == priority), key=lambda one: (one.queued_at, one.id))
        old = [one for one in equals if now - one.queued_at >= window * OLD]
        for one in old:
            _count(sums, one, window)
        result += old
        lines: dict[str, list[Waiting]] = {}
        for one in reversed([one for one in equals if now - one.queued_at < window * OLD]):
            lines.setdefault(one.team, []).append(one)
        shares = {team: dominant(sums.get(team, {}), totals, window) for team in lines}
        while lines:
            team = min(lines, key=lambda team: (shares[team], lines[team][-1].queued_at, lines[team][-1].id))
            one = lines[team].pop()
            _count(sums, one, window)
            shares[team] = dominant(sums[team], totals, window)
            result.append(one)
            if not lines[team]:
                del lines[team]
    return result


def _count(sums: dict[str, dict[str, float]], one: Waiting, window: timedelta) -> None:
    seconds = (window if one.granted is None else min(one.granted, window)).total_seconds()
    mine = sums.setdefault(one.team, {})
    for key, amount in one.amounts.items():
        mine[key] = mine.get(key, 0.0) + amount * seconds
