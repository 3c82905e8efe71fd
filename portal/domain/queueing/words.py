"""What one that waits is told: a code for programs and a sentence for people. See also `portal.web.phrases`."""

from __future__ import annotations

from ..capacity import NodeLike, capacity_for
from .model import Pods, Waiting
from .room import Room

ROOM, TURN, UNPLACEABLE, TOPOLOGY = "WaitingForRoom", "WaitingForTurn", "Unplaceable", "WaitingForTopology"


def ahead_of(count: int) -> str:
    return "1 environment ahead" if count == 1 else f"{count} environments ahead"


def largest(pods: tuple[Pods, ...]) -> Pods:
    """The role that is hardest to place."""
    return max(pods, key=lambda each: (each.need.resources.get(each.need.main_key, 0), each.need.resources.get("cpu", 0), each.count))


def waiting_for_room(one: Waiting, room: Room, ahead: int) -> str:
    """What it waits for, and how much of that is free on nodes that it may use."""
    hard = largest(one.pods)
    if hard.need.devices:
        key = hard.need.main_key
        wanted, free = sum(each.count * each.need.resources.get(key, 0) for each in one.pods), room.amount(hard.need, key)
    else:
        wanted, free = hard.count, room.count(hard.need)
    what = f"{wanted} x {one.label or 'pod'}"
    if free < wanted:
        return f"waiting for {what}: {free} free, {ahead_of(ahead)}"
    return f"waiting for {what}: {free} free, but not together with all that it needs on one node, {ahead_of(ahead)}"


def waiting_for_turn(ahead: int) -> str:
    return f"there is room, but it would delay one that goes first: {ahead_of(ahead)}"


def waiting_for_topology(one: Waiting) -> str:
    return f"room is free, but not within one {one.topology.level if one.topology else 'domain'}"


def why_never(one: Waiting, empty: Room) -> str:
    """Why it does not even fit onto empty nodes; empty when it does."""
    if one.topology is not None and one.topology.required and not one.topology.key:
        return f"this cluster knows no topology level {one.topology.level}; ask an admin to set TOPOLOGY_LABELS, or use another template"
    if empty.place(one) is not None:
        return ""
    nodes: list[NodeLike] = list(empty.nodes.values())
    for pods in one.pods:
        capacity = capacity_for(nodes, pods.need)
        if not capacity.total:
            return f"a {pods.role} replica fits on no node of this cluster: {capacity.reason}"
        if capacity.total < pods.count:
            return f"its {pods.count} {pods.role} replicas do not fit on this cluster, which holds {capacity.total} of them when it is empty"
    if one.topology is not None and one.topology.required:
        return f"it does not fit within one {one.topology.level}, even when that is empty"
    return "its replicas do not fit on the nodes of this cluster together, even when those are empty"


def unplaceable(why: str) -> str:
    return f"it cannot start any more: {why}. Ask an admin for nodes, or stop it and request another shape."
