"""When room becomes free, and when those who wait could start: by what was granted, and by how early such environments used to end."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from .model import Admitted, Load, Waiting
from .room import BRIEF_STEPS, Room, load_of

ENOUGH = 5  # ended environments from which something can be said
EARLY = 0.2  # quantile that stands for "ends early"


class History:
    """Parts of their granted time that environments really used, by template and team."""

    def __init__(self, samples: Iterable[tuple[str, str, float]]) -> None:
        groups: dict[tuple[str, str], list[float]] = {}
        for template, team, part in samples:
            part = min(1.0, max(0.0, part))
            for key in ((template, team), (template, ""), ("", "")):
                groups.setdefault(key, []).append(part)
        self._groups = {key: sorted(parts) for key, parts in groups.items()}

    def early_end(self, template: str, team: str, since: datetime, granted: timedelta, now: datetime) -> datetime | None:
        """When one like this ends if it ends early, given that it has not ended yet; None when too little is known."""
        if granted <= timedelta():
            return None
        for key in ((template, team), (template, ""), ("", "")):
            parts = self._groups.get(key, [])
            if len(parts) >= ENOUGH:
                alive = parts[bisect_right(parts, (now - since) / granted) :]
                return max(now, since + granted * alive[int(len(alive) * EARLY)]) if alive else None
        return None


class Ends:
    """Both views of when something ends. `early` is `late` where history says nothing."""

    def __init__(self, history: History, now: datetime, slack: timedelta) -> None:
        self.history, self.now, self.slack = history, now, slack

    def of(self, one: Admitted, *, early: bool) -> datetime | None:
        """When the room of an admitted one is free; None: never by itself."""
        if one.leaving:
            return self.now + self.slack
        known = [when for when in (one.ends, one.preempt_at) if when is not None]
        if not known:
            return None
        latest = max(self.now, min(known))
        if early and one.granted is not None:
            likely = self.history.early_end(one.template, one.team, one.since, one.granted, self.now)
            if likely is not None:
                latest = min(latest, likely)
        return latest + self.slack

    def of_start(self, one: Waiting, start: datetime, *, early: bool) -> datetime | None:
        """When the room of one that starts at `start` is free again."""
        if one.granted is None:
            return None
        likely = self.history.early_end(one.template, one.team, start, one.granted, start) if early else None
        return (likely or start + one.granted) + self.slack


def first_fit(one: Waiting, room: Room, releases: Sequence[tuple[datetime, Load]]) -> tuple[datetime, Room] | None:
    """The first time at which `one` fits as room is given back, and what is then left beside it. None: never, as far as is known."""
    room = room.copy()
    names = {name for pods in one.pods for name in room.usable(pods.need)}
    pending = sorted(releases, key=lambda each: each[0])
    for index, (when, load) in enumerate(pending):
        room.give(load)
        if index + 1 < len(pending) and pending[index + 1][0] == when:
            continue
        if not any(pending[back][0] == when and names & pending[back][1].keys() for back in _group(pending, index)):
            continue
        found = room.place(one) if _may_fit(one, room) else None
        if found is not None:
            room.take(load_of(found.seats, one.pods))
            return when, room
    return None


def _group(pending: Sequence[tuple[datetime, Load]], index: int) -> range:
    """Indexes of the releases up to `index` that happen at the same time."""
    start = index
    while start and pending[start - 1][0] == pending[index][0]:
        start -= 1
    return range(start, index + 1)


def _may_fit(one: Waiting, room: Room) -> bool:
    """A cheap look: is there enough of what is scarcest, all nodes together?"""
    for pods in one.pods:
        keys = pods.need.devices or ("cpu",)
        if any(room.amount(pods.need, key) < pods.need.resources.get(key, 0) * pods.count for key in keys):
            return False
    return True


def starts(
    order: Sequence[Waiting],
    room: Room,
    releases: Iterable[tuple[datetime, Load]],
    ends: Ends,
    behind: Mapping[str, frozenset[str]],
    *,
    early: bool,
) -> dict[str, datetime]:
    """When each of `order` would start; who is not in the answer has no known start.

    Those who want the same kind of device start strictly in their order, others independently of them; `behind` puts some into
    the line of other devices than their own.
    """
    room, now = room.copy(), ends.now
    lines: dict[tuple[str, ...], list[Waiting]] = {}
    for one in order:
        lines.setdefault(tuple(sorted(behind.get(one.id, one.devices))), []).append(one)
    for line in lines.values():
        line.reverse()
    names = {key: {name for pods in line[-1].pods for name in room.usable(pods.need)} for key, line in lines.items()}
    heap = [(when, number, load) for number, (when, load) in enumerate(releases)]
    heapq.heapify(heap)
    found: dict[str, datetime] = {}
    number, when = len(heap), now
    touched: set[str] | None = None  # nodes that got room just now; None: look at every line
    while True:
        for key in list(lines):
            line = lines[key]
            look = touched is None or bool(touched & names[key])
            while line and look:
                one = line[-1]
                seats = room.place(one, steps=BRIEF_STEPS) if _may_fit(one, room) else None
                if seats is None:
                    break
                load = load_of(seats.seats, one.pods)
                room.take(load)
                found[one.id] = when
                end = ends.of_start(one, when, early=early)
                if end is not None:
                    heapq.heappush(heap, (end, number, load))
                    number += 1
                line.pop()
                if line:
                    names[key] = {name for pods in line[-1].pods for name in room.usable(pods.need)}
            if not line:
                del lines[key]
        if not lines or not heap:
            return found
        when, touched = heap[0][0], set[str]()
        while heap and heap[0][0] == when:
            _, _, load = heapq.heappop(heap)
            room.give(load)
            touched |= load.keys()


def loads_of(admitted: Iterable[Admitted], promised: Mapping[str, Load]) -> dict[str, tuple[Load, ...]]:
    """By environment: its seen part and its promised part."""
    return {one.id: tuple(load for load in (one.seen, promised.get(one.id, {})) if load) for one in admitted}
