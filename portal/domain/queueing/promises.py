"""Room that admitted environments will still take: their pods that no node shows yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..capacity import NodeLike, count_in
from .model import Admitted, Load, Pods
from .room import Room, added, load_of


def promise(room: Room, admitted: Iterable[Admitted]) -> dict[str, Load]:
    """Take from `room` what is promised; the load by environment, for those that have any.

    A pod is expected where the queue thought it would go, else where it fits best. One that fits nowhere is held against a node all
    the same: the cluster will place it before anything that is admitted later.
    """
    promised: dict[str, Load] = {}
    for one in sorted(admitted, key=lambda one: (one.since, one.id)):
        loads = []
        for pods in one.coming:
            if pods.count > 0:
                seats = _expected(room, one, pods)
                load = load_of({name: {pods.role: count} for name, count in seats.items()}, [pods])
                room.take(load)
                loads.append(load)
        if loads:
            promised[one.id] = added(*loads)
    return promised


def _expected(room: Room, one: Admitted, pods: Pods) -> dict[str, int]:
    left, seats = pods.count, dict[str, int]()
    for name in sorted(one.seats):
        thought = one.seats[name].get(pods.role, 0) - one.seen_pods.get(name, {}).get(pods.role, 0)
        count = min(left, max(0, thought), count_in(room.free[name], pods.need) if name in room.free else 0)
        if count:
            seats[name], left = count, left - count
    if not left:
        return seats
    usable = [name for name in room.usable(pods.need) if name in room.free]
    spare = {name: count_in(room.free[name], pods.need) - seats.get(name, 0) for name in usable}
    while left > 0:
        fitting = [name for name in usable if spare[name] > 0]
        if not fitting:
            break
        best = min(fitting, key=lambda name: (spare[name] < left, abs(spare[name] - left), name))
        count = min(left, spare[best])
        seats[best], left = seats.get(best, 0) + count, left - count
        spare[best] -= count
    if left and (thought_of := [name for name in sorted(one.seats) if name in room.free and pods.role in one.seats[name]] or usable):
        seats[thought_of[0]] = seats.get(thought_of[0], 0) + left
    return seats


@dataclass(frozen=True)
class PromisedNode:
    """A node whose `used` counts what is promised too; for `portal.domain.capacity`."""

    name: str
    allocatable: dict[str, int]
    used: dict[str, int]
    labels: dict[str, str]
    taints: list[dict[str, Any]]
    ready: bool
    simulated: bool


def with_promises(nodes: Sequence[NodeLike], admitted: Sequence[Admitted]) -> list[NodeLike]:
    """The nodes, with what is promised to `admitted` counted as used."""
    load = added(*promise(Room(nodes), admitted).values())
    result: list[NodeLike] = []
    for node in nodes:
        if node.name not in load:
            result.append(node)
            continue
        used = dict(node.used)
        for key, amount in load[node.name].items():
            used[key] = used.get(key, 0) + amount
        more = {"labels": node.labels, "taints": node.taints, "ready": node.ready, "simulated": node.simulated}
        result.append(PromisedNode(name=node.name, allocatable=node.allocatable, used=used, **more))  # type: ignore[arg-type]
    return result
