"""What holds for every queue: checked on small random ones, against brute force and against a simulated clock."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portal.domain.capacity import count_in, room_of
from portal.domain.queueing import Admitted, Decision, Held, Picture, Placement, Pods, Room, Waiting, decide, load_of
from tests.portal.domain.queueing.make import GPU, T0, Box, after, box, pods, rack, waiting

few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

LABELS = [{}, {"rack": "r0"}, {"rack": "r1"}]


@st.composite
def boxes(draw: Any, most: int = 4) -> list[Box]:
    made = []
    for number in range(draw(st.integers(1, most))):
        cpu, gpu = draw(st.integers(1, 6)), draw(st.integers(0, 3))
        used = draw(st.integers(0, cpu)), draw(st.integers(0, gpu))
        made.append(box(f"n{number}", cpu, gpu, used_cpu=used[0], used_gpu=used[1], labels=draw(st.sampled_from(LABELS)), ready=draw(st.integers(0, 9)) > 0))
    return made


@st.composite
def gangs(draw: Any) -> tuple[Pods, ...]:
    return tuple(pods(draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(0, 2)), role=f"role{n}") for n in range(draw(st.integers(1, 3))))


@st.composite
def lines(draw: Any, most: int = 6) -> list[Waiting]:
    made = []
    for number in range(draw(st.integers(1, most))):
        more = {
            "at": number,
            "hours": draw(st.sampled_from([None, 1, 2, 5])),
            "team": draw(st.sampled_from(["vision", "speech"])),
            "priority": draw(st.sampled_from([50, 50, 90])),
            "preempts": draw(st.booleans()),
            "topology": draw(st.sampled_from([None, None, rack(), rack(required=False)])),
        }
        made.append(waiting(f"w{number}", *draw(gangs()), **more))
    return made


@st.composite
def holders(draw: Any, nodes: list[Box]) -> list[Admitted]:
    """Some who hold part of what is used, and some whose pods are still coming."""
    made = []
    for number, node in enumerate(nodes):
        gpu, cpu = node.used.get(GPU, 0), node.used.get("cpu", 0)
        if (gpu or cpu) and draw(st.booleans()):
            ends = draw(st.sampled_from([None, after(30), after(90)]))
            more = {"preemptible": draw(st.booleans()), "priority": draw(st.sampled_from([10, 50])), "leaving": draw(st.integers(0, 4)) == 0}
            made.append(Admitted(id=f"h{number}", team="vision", since=after(-number), ends=ends, seen={node.name: {"cpu": cpu, GPU: gpu}}, **more))
    if draw(st.booleans()):
        made.append(
            Admitted(id="coming", team="vision", since=T0, coming=(pods(draw(st.integers(1, 2)), 1, draw(st.integers(0, 1))),), seats={"n0": {"worker": 1}})
        )
    return made


@st.composite
def pictures(draw: Any) -> Picture:
    nodes = draw(boxes())
    history = draw(st.sampled_from([(), [("", "vision", part / 10) for part in range(1, 10)]]))
    return Picture(now=T0, nodes=nodes, waiting=draw(lines()), admitted=draw(holders(nodes)), history=history, totals={"cpu": 20_000})


def spread(free: list[dict[str, int]], gang: tuple[Pods, ...]) -> bool:
    """Brute force: every way to put every pod on every node."""
    each = [one for one in gang for _ in range(one.count)]
    if not each:
        return True
    first = each[0]
    rest = tuple(replace(one, count=one.count - (one is first)) for one in gang)
    for room in free:
        if count_in(room, first.need):
            before = dict(room)
            for key, amount in first.need.items:
                room[key] -= amount
            if spread(free, rest):
                room.update(before)
                return True
            room.update(before)
    return False


@few
@given(boxes(most=3), gangs())
def test_the_heuristic_says_no_only_where_brute_force_says_no(nodes: list[Box], gang: tuple[Pods, ...]) -> None:
    gang = tuple(itertools.islice(gang, 3))
    found = Room(nodes).place(waiting("x", *gang))
    free = [room_of(node) for node in nodes if node.ready]
    assert (found is not None) == spread(free, gang)
    if found is not None:
        _check(nodes, {"x": found}, [waiting("x", *gang)])


def _check(nodes: list[Box], placed: dict[str, Placement], line: list[Waiting], admitted: list[Admitted] = []) -> None:  # noqa: B006 - read only
    """Every pod has a seat, nobody has more than there is, and labels hold."""
    by_name = {node.name: room_of(node) for node in nodes}
    pods_of = {one.id: one.pods for one in line}
    for key, placement in placed.items():
        seated: dict[str, int] = {}
        for roles in placement.seats.values():
            for role, count in roles.items():
                seated[role] = seated.get(role, 0) + count
        assert seated == {each.role: each.count for each in pods_of[key]}, "all or none"
        if placement.topology is not None:
            label, value, _ = placement.topology
            assert all(node.labels.get(label) == value for node in nodes if node.name in placement.seats)
        for name, amounts in load_of(placement.seats, pods_of[key]).items():
            for resource, amount in amounts.items():
                by_name[name][resource] -= amount
    for node in nodes:
        taken = any(node.name in placement.seats for placement in placed.values())
        assert not taken or (node.ready and all(amount >= 0 for amount in by_name[node.name].values()))


@few
@given(pictures())
def test_no_pass_gives_more_than_there_is_and_no_gang_is_torn(seen: Picture) -> None:
    decision = decide(seen)
    _check(list(seen.nodes), dict(decision.admit), list(seen.waiting))
    everybody = {one.id for one in seen.waiting}
    assert decision.admit.keys() | decision.told.keys() == everybody
    assert not decision.admit.keys() & decision.told.keys()
    assert sorted(standing.position for standing in decision.told.values()) == list(range(1, len(decision.told) + 1))
    for one in seen.waiting:
        if one.topology and one.topology.required and one.id in decision.admit:
            assert decision.admit[one.id].topology
    for standing in decision.told.values():
        assert (standing.earliest is None) == (standing.latest is None)
        assert standing.earliest is None or standing.latest is None or T0 <= standing.earliest <= standing.latest


@few
@given(pictures(), st.randoms(use_true_random=False))
def test_the_order_in_which_rows_are_read_does_not_matter(seen: Picture, random: Any) -> None:
    shuffled = {field: random.sample(list(getattr(seen, field)), len(getattr(seen, field))) for field in ("nodes", "waiting", "admitted")}
    assert decide(replace(seen, **shuffled)) == decide(seen)


@few
@given(pictures())
def test_only_the_less_important_who_may_be_are_stopped_and_none_needlessly(seen: Picture) -> None:
    decision = decide(seen)
    by_id, waits = {one.id: one for one in seen.admitted}, {one.id: one for one in seen.waiting}
    for victim, (winner, when) in decision.marks.items():
        assert by_id[victim].preemptible
        assert not by_id[victim].leaving
        assert by_id[victim].priority < waits[winner].priority
        assert waits[winner].preempts
        assert winner in decision.told
        assert when > T0
    first = next((whom for whom, _ in decision.marks.values()), None)
    chosen = [victim for victim, (whom, _) in decision.marks.items() if whom == first]
    if first is None or len({whom for whom, _ in decision.marks.values()}) > 1:
        return
    for kept in chosen:
        room = Room(seen.nodes)
        coming = [one for one in seen.admitted if one.coming and not one.leaving]
        for one in seen.admitted:
            if one.leaving or (one.id in chosen and one.id != kept):
                room.give(one.seen)
        for key, placement in decision.admit.items():
            room.take(load_of(placement.seats, waits[key].pods))
        if not coming:
            assert room.place(waits[first]) is None, f"{kept} is stopped for nothing"


# --- a simulated clock ------------------------------------------------------------


class Clock:
    """A cluster in which everything runs exactly as long as granted. `serve` lets the queue decide at every change."""

    def __init__(self, nodes: list[Box], backfill: bool = True) -> None:
        self.nodes, self.backfill = nodes, backfill
        self.runs: dict[str, tuple[Waiting, Placement, datetime]] = {}
        self.started: dict[str, datetime] = {}
        self.past: list[Held] = []

    def look(self, now: datetime, line: list[Waiting]) -> Decision:
        for key in [key for key, (_, _, end) in self.runs.items() if end <= now]:
            one, _, end = self.runs.pop(key)
            self.past += [Held(team=one.team, resource=r, amount=a, started=self.started[key], ends=end) for r, a in one.amounts.items()]
        use = {node.name: dict(node.used) for node in self.nodes}
        admitted, held = [], list(self.past)
        for key, (one, placement, end) in sorted(self.runs.items()):
            load = load_of(placement.seats, one.pods)
            for name, amounts in load.items():
                for resource, amount in amounts.items():
                    use[name][resource] = use[name].get(resource, 0) + amount
            admitted.append(Admitted(id=key, team=one.team, since=self.started[key], granted=one.granted, ends=end, seen=load))
            held += [Held(team=one.team, resource=r, amount=a, started=self.started[key], ends=end) for r, a in one.amounts.items()]
        nodes = [replace(node, used=use[node.name]) for node in self.nodes]
        decision = decide(Picture(now=now, nodes=nodes, waiting=line, admitted=admitted, use=held, totals={"cpu": 10_000}))
        _check(nodes, dict(decision.admit), line)
        for one in line:
            if one.id in decision.admit:
                assert one.granted is not None
                self.started[one.id] = now
                self.runs[one.id] = (one, decision.admit[one.id], now + one.granted)
        return decision

    def times(self, arrivals: list[Waiting]) -> Iterator[datetime]:
        """Every moment at which something changes, until nobody waits or nothing runs any more."""
        now = arrivals[0].queued_at
        while True:
            yield now
            later = [one.queued_at for one in arrivals if one.queued_at > now] + [end for _, _, end in self.runs.values() if end > now]
            if not later:
                return
            now = min(later)


@st.composite
def arrivals(draw: Any) -> list[Waiting]:
    made = []
    for number in range(draw(st.integers(2, 8))):
        gang = tuple(pods(draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(0, 2)), role=f"role{n}") for n in range(draw(st.integers(1, 2))))
        more = {"at": draw(st.integers(0, 90)), "hours": draw(st.sampled_from([0.25, 0.5, 1, 2])), "team": draw(st.sampled_from(["vision", "speech"]))}
        made.append(waiting(f"w{number}", *gang, **more))
    return sorted(made, key=lambda one: (one.queued_at, one.id))


@st.composite
def empty_boxes(draw: Any) -> list[Box]:
    return [box(f"n{number}", draw(st.integers(2, 6)), draw(st.integers(0, 3))) for number in range(draw(st.integers(1, 3)))]


@few
@given(empty_boxes(), arrivals())
def test_backfill_never_delays_the_head_and_everybody_starts(nodes: list[Box], coming: list[Waiting]) -> None:
    """What the head was told when it became the head is kept, whatever goes before it; and nobody who can start is left."""
    clock, promised = Clock(nodes), dict[str, datetime]()
    never: set[str] = set()
    for now in clock.times(coming):
        line = [one for one in coming if one.queued_at <= now and one.id not in clock.started]
        decision = clock.look(now, line)
        never |= {key for key, standing in decision.told.items() if standing.code == "Unplaceable"}
        blocked = [key for key in decision.order if key in decision.told and key not in never]
        # Who comes with a smaller share may become first; from then on nothing is promised to the one that was.
        first = next((key for key in decision.order if key not in never), None)
        promised = {key: when for key, when in promised.items() if key == first}
        if blocked:
            head = decision.told[blocked[0]]
            assert head.latest is not None, "everything that runs has an end"
            assert head.latest <= promised.get(blocked[0], head.latest)
            if blocked[0] == first:
                promised[first] = head.latest
        for key, when in clock.started.items():
            assert key not in promised or when <= promised[key]
    assert clock.started.keys() | never == {one.id for one in coming}


@settings(few, max_examples=10)
@given(st.integers(1, 4), st.integers(10, 20))
def test_a_large_one_is_not_starved_by_an_endless_stream_of_small_ones(stride: int, length: int) -> None:
    """All of one priority, from another team that asks for something small all the time."""
    nodes = [box("a", cpu=4)]
    stream = [waiting(f"s{n:03}", pods(1, cpu=1), at=n * stride, hours=0.5, team="speech") for n in range(length * 4)]
    large = waiting("large", pods(1, cpu=4), at=3 * stride, hours=1)
    coming = sorted([*stream, large], key=lambda one: one.queued_at)
    clock = Clock(nodes)
    for now in clock.times(coming):
        clock.look(now, [one for one in coming if one.queued_at <= now and one.id not in clock.started])
    assert clock.started["large"] - large.queued_at <= timedelta(minutes=31), "as soon as those that ran when it came have ended"


@few
@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from([0.25, 1])), min_size=3, max_size=12))
def test_within_a_team_and_priority_alike_ones_start_in_the_order_they_came(sizes: list[tuple[int, float]]) -> None:
    clock = Clock([box("a", cpu=3)])
    coming = [waiting(f"w{n:02}", pods(1, cpu=3), at=n, hours=hours) for n, (_, hours) in enumerate(sizes)]
    for now in clock.times(coming):
        clock.look(now, [one for one in coming if one.queued_at <= now and one.id not in clock.started])
    begun = [clock.started[one.id] for one in coming]
    assert begun == sorted(begun)
