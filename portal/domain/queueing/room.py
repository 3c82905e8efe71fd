"""Free room on nodes, and whether all pods of an environment go into it at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ..capacity import COMMON, Need, NodeLike, blocked_now, count_in, eligible, room_of
from .model import Load, Placement, Pods, Seats, Topology, Waiting

SEARCH_STEPS = 3000  # tries before a gang of several roles is said not to fit; small ones are searched to the end
BRIEF_STEPS = 300  # the same for estimates, and for those far behind in a long queue


_WIDE = 64  # nodes among which such a search looks


class Room:
    """What is free per node. Cheap to copy; which nodes a need may use is worked out once for all copies."""

    def __init__(self, nodes: Sequence[NodeLike], *, empty: bool = False) -> None:
        """`empty`: as if no pod were there and every node were up, which is what can ever fit."""
        self.nodes = {node.name: node for node in sorted(nodes, key=lambda node: node.name)}
        self.free = {name: room_of(node, empty=empty) for name, node in self.nodes.items() if empty or not blocked_now(node)}
        self._usable: dict[tuple[Any, ...], tuple[str, ...]] = {}
        self._full: set[tuple[Any, ...]] = set()  # shapes that did not fit; less room does not help them

    def copy(self) -> Room:
        other = Room.__new__(Room)
        other.nodes, other._usable = self.nodes, self._usable
        other.free = {name: dict(free) for name, free in self.free.items()}
        other._full = set(self._full)
        return other

    def least(self, other: Room) -> Room:
        """What is free in both."""
        both = self.copy()
        both._full |= other._full
        for name, free in both.free.items():
            mine = other.free.get(name, {})
            for key in free:
                free[key] = min(free[key], mine.get(key, 0))
        return both

    def take(self, load: Load) -> None:
        for name, amounts in load.items():
            free = self.free.get(name)
            if free is not None:
                for key, amount in amounts.items():
                    if key in free:  # else the node does not say how much it has
                        free[key] -= amount

    def give(self, load: Load) -> None:
        self._full.clear()
        for name, amounts in load.items():
            free = self.free.get(name)
            if free is not None:
                for key, amount in amounts.items():
                    if key in free:
                        free[key] += amount

    def usable(self, need: Need) -> tuple[str, ...]:
        """Nodes, up or not, on which a pod may be placed if there is room."""
        found = self._usable.get(need.key)
        if found is None:
            found = tuple(name for name, node in self.nodes.items() if not eligible(node, need))
            self._usable[need.key] = found
        return found

    def count(self, need: Need) -> int:
        """Pods of `need` that fit now, each by itself."""
        return sum(count_in(self.free[name], need) for name in self.usable(need) if name in self.free)

    def amount(self, need: Need, key: str) -> int:
        """What is free of one resource on nodes that `need` may use."""
        return sum(max(0, self.free[name].get(key, 0)) for name in self.usable(need) if name in self.free)

    def place(self, one: Waiting, *, steps: int = SEARCH_STEPS) -> Placement | None:
        """Seats for all its pods, or None. Nothing is taken."""
        if one.shape in self._full:
            return None
        found = self._placed(one, steps)
        if found is None:
            self._full.add(one.shape)
        return found

    def _placed(self, one: Waiting, steps: int) -> Placement | None:
        topology = one.topology if any(each.count for each in one.pods) else None
        if topology is not None and topology.key:
            for value, names in self._domains(one.pods, topology):
                seats = seats_for(self, one.pods, within=names, steps=steps)
                if seats is not None:
                    return Placement(seats=seats, topology=(topology.key, value, topology.required))
        if topology is not None and topology.required:
            return None
        seats = seats_for(self, one.pods, steps=steps)
        return None if seats is None else Placement(seats=seats)

    def _domains(self, pods: Sequence[Pods], topology: Topology) -> list[tuple[str, set[str]]]:
        """Nodes by the label's value, the tightest that holds the largest role first."""
        largest = _by_size(pods)[0]
        domains: dict[str, set[str]] = {}
        for name in self.free:
            value = self.nodes[name].labels.get(topology.key)
            if value is not None:
                domains.setdefault(value, set()).add(name)
        usable = set(self.usable(largest.need))
        counts = {value: sum(count_in(self.free[name], largest.need) for name in names & usable) for value, names in domains.items()}
        return [(value, domains[value]) for value in sorted(domains, key=lambda value: (counts[value], value)) if counts[value] >= largest.count]


def load_of(seats: Seats, pods: Iterable[Pods]) -> Load:
    """What the seated pods take of each node."""
    needs = {each.role: each.need for each in pods}
    load: dict[str, dict[str, int]] = {}
    for name, roles in seats.items():
        amounts = load.setdefault(name, {})
        for role, count in roles.items():
            if role in needs:
                for key, amount in needs[role].items:
                    amounts[key] = amounts.get(key, 0) + amount * count
    return load


def added(*loads: Load) -> Load:
    """Sum of loads."""
    total: dict[str, dict[str, int]] = {}
    for load in loads:
        for name, amounts in load.items():
            mine = total.setdefault(name, {})
            for key, amount in amounts.items():
                mine[key] = mine.get(key, 0) + amount
    return total


def _by_size(pods: Iterable[Pods]) -> list[Pods]:
    """Roles that ask for most per pod first: devices, then CPU, then memory."""

    def size(each: Pods) -> tuple[int, int, int, str]:
        devices = each.need.resources.get(each.need.main_key, 0)
        return -devices, -each.need.resources.get("cpu", 0), -each.need.resources.get("memory", 0), each.role

    return sorted((each for each in pods if each.count > 0), key=size)


def seats_for(room: Room, pods: Sequence[Pods], *, within: Collection[str] | None = None, steps: int = SEARCH_STEPS) -> Seats | None:
    """Seats for all pods or None: the largest role first, each where it leaves least; then a bounded search over what that missed."""
    groups = _by_size(pods)
    names = [[name for name in room.usable(each.need) if name in room.free and (within is None or name in within)] for each in groups]
    if len(groups) == 1:
        alone = _best_fit(room.free, names[0], groups[0])
        return None if alone is None else {name: {groups[0].role: count} for name, count in alone.items()}
    for each, own in zip(groups, names, strict=True):
        if not _enough(room.free, own, each.need, each.count):
            return None
    free = {name: dict(room.free[name]) for name in {name for own in names for name in own}}
    seats: dict[str, dict[str, int]] = {}
    for each, own in zip(groups, names, strict=True):
        chosen = _best_fit(free, own, each)
        if chosen is None:
            return _Search(room, groups, names, steps).run()
        for name, count in chosen.items():
            seats.setdefault(name, {})[each.role] = count
            _change(free[name], each.need, -count)
    return seats


def _enough(free: Mapping[str, Mapping[str, int]], names: Iterable[str], need: Need, count: int) -> bool:
    for name in names:
        count -= count_in(free[name], need)
        if count <= 0:
            return True
    return count <= 0


def _change(free: dict[str, int], need: Need, count: int) -> None:
    for key, amount in need.items:
        if key in free:
            free[key] += amount * count


def _foreign(free: Mapping[str, int], need: Need) -> bool:
    """Whether the node has devices that the pod does not ask for: such a node is kept for those who do."""
    return any(amount > 0 and key not in COMMON and "/" in key and key not in need.devices for key, amount in free.items())


def _best_fit(free: Mapping[str, Mapping[str, int]], names: Sequence[str], pods: Pods) -> dict[str, int] | None:
    """Nodes for one role: few of them, the one that holds the rest most tightly last."""
    counts = {name: count for name in names if (count := count_in(free[name], pods.need))}
    if sum(counts.values()) < pods.count:
        return None
    foreign = {name: _foreign(free[name], pods.need) for name in counts}
    cpu = {name: free[name].get("cpu", 0) for name in counts}
    left, chosen = pods.count, {}
    while left > 0:
        best = min(counts, key=lambda name: (foreign[name], counts[name] < left, counts[name] if counts[name] >= left else -counts[name], cpu[name], name))
        chosen[best] = min(left, counts.pop(best))
        left -= chosen[best]
    return chosen


class _Search:
    """All ways to spread the roles over the nodes, but for the last role, whose pods only have to be counted; up to a number of tries."""

    def __init__(self, room: Room, groups: Sequence[Pods], names: Sequence[Sequence[str]], steps: int) -> None:
        # Where there are many nodes, those with most room; the search goes one node deeper with each.
        counts = [{name: count_in(room.free[name], pods.need) for name in own} for pods, own in zip(groups, names, strict=True)]
        self.groups, self.steps = groups, steps
        self.names = [sorted(sorted(own, key=lambda name: (-fit[name], name))[:_WIDE]) for own, fit in zip(names, counts, strict=True)]
        self.free = {name: dict(room.free[name]) for own in names for name in own}
        self.seats: dict[str, dict[str, int]] = {}

    def run(self) -> Seats | None:
        return self.seats if self._fill(0, 0, self.groups[0].count) else None

    def _fill(self, group: int, node: int, left: int) -> bool:
        pods, names = self.groups[group], self.names[group]
        self.steps -= 1
        if self.steps < 0:
            return False
        if left == 0:
            return self._next(group + 1)
        if group == len(self.groups) - 1:
            chosen = _best_fit(self.free, names, pods)
            for name, count in (chosen or {}).items():
                self.seats.setdefault(name, {})[pods.role] = count
            return chosen is not None
        if not _enough(self.free, names[node:], pods.need, left):
            return False
        name = names[node]
        for count in range(min(left, count_in(self.free[name], pods.need)), -1, -1):
            if count:
                self.seats.setdefault(name, {})[pods.role] = count
                _change(self.free[name], pods.need, -count)
            if self._fill(group, node + 1, left - count):
                return True
            if count:
                del self.seats[name][pods.role]
                if not self.seats[name]:
                    del self.seats[name]
                _change(self.free[name], pods.need, count)
        return False

    def _next(self, group: int) -> bool:
        if group == len(self.groups):
            return True
        rest = zip(self.groups[group:], self.names[group:], strict=True)
        if not all(_enough(self.free, names, pods.need, pods.count) for pods, names in rest):
            return False
        return self._fill(group, 0, self.groups[group].count)
