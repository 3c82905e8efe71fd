"""Who is stopped so that one of higher priority can start: as few as will do, the least important and youngest first."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from .model import Admitted, Load, Waiting
from .room import Room


def victims_for(one: Waiting, room: Room, candidates: Sequence[Admitted], loads: Mapping[str, tuple[Load, ...]]) -> list[Admitted] | None:
    """Those of `candidates` whose room lets `one` start, none of them needless; empty when it fits into `room` already, None when all would not do."""
    if room.place(one) is not None:
        return []
    names = {name for pods in one.pods for name in room.usable(pods.need)}
    able = [each for each in candidates if each.priority < one.priority and any(names & load.keys() for load in loads.get(each.id, ()))]
    able = by_value(able)
    room, chosen = room.copy(), list[Admitted]()
    for each in able:
        chosen.append(each)
        _give(room, loads[each.id])
        if room.place(one) is not None:
            break
    else:
        return None
    for each in reversed(chosen[:-1]):  # the last is needed, or the one before it would have been enough
        without = room.copy()
        for load in loads[each.id]:
            without.take(load)
        if without.place(one) is not None:
            chosen.remove(each)
            room = without
    return chosen


def by_value(several: Sequence[Admitted]) -> list[Admitted]:
    """Whom to stop first: lowest priority, then youngest."""
    return sorted(several, key=lambda each: (each.priority, -each.since.timestamp(), each.id))


def may_be_stopped(each: Admitted, taken: Collection[str]) -> bool:
    """Whether it can be asked to make room at all; `taken`: those that are to be stopped for somebody else already."""
    return each.preemptible and not each.leaving and not each.elsewhere and each.preempt_at is None and each.id not in taken


def _give(room: Room, loads: tuple[Load, ...]) -> None:
    for load in loads:
        room.give(load)
