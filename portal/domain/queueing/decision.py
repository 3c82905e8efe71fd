"""One look at the queue: who may start, who has to be stopped for that, and what everybody else is told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from ..capacity import count_in
from . import words
from .estimate import Ends, History, first_fit, loads_of, starts
from .model import Admitted, Decision, Load, Picture, Placement, Standing, Waiting
from .order import ordered
from .preemption import by_value, may_be_stopped, victims_for
from .promises import promise
from .room import BRIEF_STEPS, SEARCH_STEPS, Room, load_of

_CLOSELY = 20  # of those who cannot start are looked at with patience


def decide(picture: Picture) -> Decision:
    """Pure: the same picture gives the same decision."""
    return _Pass(picture).run()


@dataclass
class _Shadow:
    """What one that cannot start yet will need: nothing that is still there at `until` may take more than `room`. `until` None: its
    start is not known, so whoever goes before it has to leave it all that it could use."""

    until: datetime | None
    room: Room

    def binds(self, end: datetime | None) -> bool:
        return self.until is None or end is None or end > self.until


class _Pass:
    def __init__(self, picture: Picture) -> None:
        self.picture, self.now = picture, picture.now
        self.ends = Ends(History(picture.history), picture.now, picture.slack)
        self.room = Room(picture.nodes)
        self.empty = Room(picture.nodes, empty=True)
        promised = promise(self.room, [one for one in picture.admitted if not one.elsewhere and not one.leaving])
        self.loads = loads_of(picture.admitted, promised)
        self.admit: dict[str, Placement] = {}
        self.begun: list[tuple[Waiting, Load]] = []
        self.codes: dict[str, tuple[str, str]] = {}  # who goes on waiting -> code, and words where these are not made at the end
        self.shadows: list[_Shadow] = []
        self.kept: list[Waiting] = []  # those a shadow is for
        self.known: dict[str, tuple[datetime, datetime]] = {}  # when these start, at the earliest and at the latest
        self.marks: dict[str, tuple[str, datetime]] = {}
        self.spared: set[str] = set()  # marked earlier, and needless now
        self.reserved: list[Load] = []  # what those take that others are stopped for, less what these give
        self.only_preemptors = True  # nobody is blocked so far but those that others are stopped for
        self._least: dict[tuple[bool, ...], Room] = {}
        self._why_never: dict[tuple[object, ...], str] = {}

    def run(self) -> Decision:
        line = ordered(self.picture.waiting, self.picture.use, self.picture.totals, self.now, self.picture.window)
        never = {one.id: why for one in line if (why := self._never(one))}
        alive = {one.id for one in line if one.preempts and one.id not in never}
        marked = [one for one in self.picture.admitted if one.preempt_at is not None and not one.leaving]
        # What victims leave is promised, so whom they are stopped for goes first.
        line.sort(key=lambda one: (one.id in never, not one.promised))
        for one in line:
            if one.id in never:
                self.codes[one.id] = words.UNPLACEABLE, words.unplaceable(never[one.id])
            elif one.held_back:
                self.codes[one.id] = words.ROOM, one.held_back
            else:
                self._consider(one)
        self.spared |= {one.id for one in marked if one.preempted_for not in alive or one.preempted_for in self.admit}
        waiting = [one for one in line if one.id not in self.admit]
        told = self._told(waiting)
        return Decision(admit=self.admit, told=told, order=tuple(one.id for one in line), marks=self.marks, unmarks=tuple(sorted(self.spared)))

    def _never(self, one: Waiting) -> str:
        why = self._why_never.get(one.shape)
        if why is None:
            why = self._why_never[one.shape] = words.why_never(one, self.empty)
        return why

    # --- one at a time -------------------------------------------------------------

    def _consider(self, one: Waiting) -> None:
        end = self.ends.of_start(one, self.now, early=False)
        placement = self._room_for(end).place(one, steps=SEARCH_STEPS if len(self.codes) < _CLOSELY else BRIEF_STEPS)
        if placement is not None:
            load = load_of(placement.seats, one.pods)
            self.admit[one.id] = placement
            self.begun.append((one, load))
            self.room.take(load)
            for shadow in self.shadows:
                if shadow.binds(end):
                    shadow.room.take(load)
            self._least.clear()
        else:
            self._block(one)

    def _room_for(self, end: datetime | None) -> Room:
        """What one that ends at `end` may use: what is free now and what those before it leave over."""
        key = tuple(shadow.binds(end) for shadow in self.shadows)
        if not any(key):
            return self.room
        least = self._least.get(key)
        if least is None:
            least = self.room
            for shadow, binds in zip(self.shadows, key, strict=True):
                if binds:
                    least = least.least(shadow.room)
            self._least[key] = least
        return least

    def _block(self, one: Waiting) -> None:
        if self.shadows and self.room.place(one, steps=BRIEF_STEPS) is not None:
            self.codes[one.id] = words.TURN, ""
        elif one.topology is not None and one.topology.required and self.room.place(replace(one, topology=None), steps=BRIEF_STEPS) is not None:
            self.codes[one.id] = words.TOPOLOGY, words.waiting_for_topology(one)
        else:
            self.codes[one.id] = words.ROOM, ""
        self.only_preemptors = self.only_preemptors and one.preempts and self._preempt(one)
        if all(one.devices and not one.devices & other.devices for other in self.kept):
            self.kept.append(one)
            self._shadow(one)

    # --- those who cannot start yet ------------------------------------------------

    def _releases(self, *, early: bool) -> list[tuple[datetime, Load]]:
        """Room that is given back, and when."""
        result = []
        for one in self.picture.admitted:
            end = self.ends.of(one if one.id not in self.spared else replace(one, preempt_at=None), early=early)
            if one.id in self.marks:
                stop = self.marks[one.id][1] + self.picture.slack
                end = stop if end is None else min(end, stop)
            if end is not None:
                result += [(end, load) for load in self.loads[one.id]]
        for new, load in self.begun:
            end = self.ends.of_start(new, self.now, early=early)
            if end is not None:
                result.append((end, load))
        return result

    def _shadow(self, one: Waiting) -> None:
        """Keep for `one` what it will need, by what was granted and by what history makes likely."""
        self._least.clear()
        late = first_fit(one, self.room, self._releases(early=False))
        if late is None:
            self.shadows.append(_Shadow(None, self._beside(one)))
            return
        self.shadows.append(_Shadow(*late))
        self.known[one.id] = late[0], late[0]
        if self.picture.history:
            soon = first_fit(one, self.room, self._releases(early=True))
            if soon is not None and soon[0] < late[0]:
                self.shadows.append(_Shadow(*soon))
                self.known[one.id] = soon[0], late[0]

    def _beside(self, one: Waiting) -> Room:
        """What others may take when nobody knows where `one` will start: on each node all but as many of its pods as could ever be there."""
        room = self.room.copy()
        for pods in one.pods:
            for name in room.usable(pods.need):
                if name in room.free:
                    fit = min(pods.count, count_in(self.empty.free[name], pods.need))
                    room.take({name: {key: amount * fit for key, amount in pods.need.items}})
        return room

    def _preempt(self, one: Waiting) -> bool:
        """Choose who is stopped for `one`, and spare whom it no longer needs; True when its room is promised now."""
        room = self.room.copy()
        for load in self.reserved:
            room.take(load)
        for each in self.picture.admitted:
            if each.leaving:
                self._give(room, each)
        mine = [each for each in self.picture.admitted if each.preempt_at is not None and each.preempted_for == one.id and not each.leaving]
        for each in mine:
            self._give(room, each)
        candidates = [each for each in self.picture.admitted if may_be_stopped(each, self.marks)]
        victims = victims_for(one, room, candidates, self.loads)
        if victims is None:
            return False
        for each in victims:
            self.marks[each.id] = one.id, self.now + self.picture.grace.get(each.id, self.picture.default_grace)
            self._give(room, each)
        for each in reversed(by_value(mine)):
            without = room.copy()
            for load in self.loads[each.id]:
                without.take(load)
            if without.place(one) is not None:
                self.spared.add(each.id)
                room = without
        placement = room.place(one)
        if placement is not None:
            self.reserved.append(load_of(placement.seats, one.pods))
            self.reserved += [_negative(load) for each in (*mine, *victims) if each.id not in self.spared for load in self.loads[each.id]]
        return True

    def _give(self, room: Room, one: Admitted) -> None:
        for load in self.loads[one.id]:
            room.give(load)

    # --- what they are told --------------------------------------------------------

    def _told(self, waiting: list[Waiting]) -> dict[str, Standing]:
        hopeful = [one for one in waiting if self.codes[one.id][0] != words.UNPLACEABLE]
        # Who has room but not the turn starts no sooner than the first of those it would delay.
        behind = {one.id: self.kept[0].devices for one in hopeful if self.codes[one.id][0] == words.TURN and self.kept}
        late = starts(hopeful, self.room, self._releases(early=False), self.ends, behind, early=False) if hopeful else {}
        early = late
        if late and self.picture.history:
            early = starts(hopeful, self.room, self._releases(early=True), self.ends, behind, early=True)
        promised = {whom for whom, _ in self.marks.values()}
        told = {}
        for number, one in enumerate(waiting):
            code, message = self.codes[one.id]
            if not message:
                message = words.waiting_for_turn(number) if code == words.TURN else words.waiting_for_room(one, self.room, number)
            latest = late.get(one.id)
            earliest = None if latest is None else min(early.get(one.id, latest), latest)
            earliest, latest = self.known.get(one.id, (earliest, latest))
            promise_kept = one.promised or one.id in promised
            told[one.id] = Standing(position=number + 1, ahead=number, code=code, message=message, earliest=earliest, latest=latest, promised=promise_kept)
        return told


def _negative(load: Load) -> Load:
    return {name: {key: -amount for key, amount in amounts.items()} for name, amounts in load.items()}
