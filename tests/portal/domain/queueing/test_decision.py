"""One look at the queue, case by case."""

from __future__ import annotations

from datetime import timedelta

import pytest

from portal.domain.queueing import Admitted, Held, decide, with_promises
from tests.portal.domain.queueing.make import T0, after, box, picture, pods, rack, running, waiting


def test_all_pods_or_none() -> None:
    nodes = [box("a", gpu=2), box("b", gpu=2)]
    assert set(decide(picture(nodes, [waiting("x", pods(4, gpu=1))])).admit) == {"x"}
    decision = decide(picture(nodes, [waiting("x", pods(2, gpu=2)), waiting("y", pods(3, gpu=1), at=1)]))
    assert set(decision.admit) == {"x"}
    assert decision.told["y"].message == "waiting for 3 x a100: 0 free, 0 environments ahead"


def test_what_waits_is_told_what_for_and_how_many_are_ahead() -> None:
    nodes = [box("a", gpu=4, used_gpu=1)]
    line = [waiting(name, pods(1, gpu=4), at=number) for number, name in enumerate("xyz")]
    told = decide(picture(nodes, line)).told
    assert told["x"].message == "waiting for 4 x a100: 3 free, 0 environments ahead"
    assert told["y"].message == "waiting for 4 x a100: 3 free, 1 environment ahead"
    assert (told["z"].position, told["z"].ahead, told["z"].code) == (3, 2, "WaitingForRoom")
    assert told["z"].message == "waiting for 4 x a100: 3 free, 2 environments ahead"
    assert told["z"].earliest is None, "nothing that runs is known to end"


def test_enough_in_all_but_not_on_one_node_is_said_so() -> None:
    decision = decide(picture([box("a", gpu=2, used_gpu=1), box("b", gpu=2, used_gpu=1)], [waiting("x", pods(1, gpu=2))]))
    assert decision.told["x"].message == "waiting for 2 x a100: 2 free, but not together with all that it needs on one node, 0 environments ahead"


def test_selectors_taints_and_readiness_bound_where_pods_go() -> None:
    tainted = box("tainted", taints=[{"key": "team", "value": "x", "effect": "NoSchedule"}])
    cordoned = box("cordoned", taints=[{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}])
    nodes = [tainted, cordoned, box("down", ready=False), box("arm", labels={"arch": "arm"})]
    decision = decide(picture(nodes, [waiting("x", pods(1, node_selector={"arch": "arm"})), waiting("y", pods(1, node_selector={"arch": "x86"}))]))
    assert decision.admit["x"].seats == {"arm": {"worker": 1}}
    assert decision.told["y"].code == "Unplaceable"
    assert "no node has the label arch=x86" in decision.told["y"].message
    decision = decide(picture(nodes[:3], [waiting("x", pods(1))]))
    assert decision.told["x"].code == "WaitingForRoom", "a node that is down comes back"


def test_one_that_can_never_start_keeps_nobody_waiting() -> None:
    decision = decide(picture([box("a", cpu=4)], [waiting("big", pods(1, cpu=5)), waiting("many", pods(5, cpu=1), at=1), waiting("x", pods(1, cpu=4), at=2)]))
    assert set(decision.admit) == {"x"}
    assert "no node has 5 CPU (the largest node has 4 CPU)" in decision.told["big"].message
    assert "its 5 worker replicas do not fit on this cluster, which holds 4 of them when it is empty" in decision.told["many"].message


def test_pods_of_admitted_ones_that_no_node_shows_yet_are_counted_once() -> None:
    coming = Admitted(id="new", team="vision", since=T0, coming=(pods(2, cpu=3),), seats={"a": {"worker": 2}})
    nodes = [box("a", cpu=8)]
    assert with_promises(nodes, [coming])[0].used["cpu"] == 6000
    decision = decide(picture(nodes, [waiting("x", pods(1, cpu=3))], [coming]))
    assert set(decision.told) == {"x"}
    shown = Admitted(id="new", team="vision", since=T0, seats={"a": {"worker": 2}}, seen={"a": {"cpu": 6000}}, seen_pods={"a": {"worker": 2}})
    assert with_promises([box("a", cpu=8, used_cpu=6)], [shown])[0].used["cpu"] == 6000
    # one of two seen, and not where it was thought to go
    half = Admitted(
        id="new", team="vision", since=T0, coming=(pods(1, cpu=3),), seats={"a": {"worker": 2}}, seen={"b": {"cpu": 3000}}, seen_pods={"b": {"worker": 1}}
    )
    used = {node.name: node.used["cpu"] for node in with_promises([box("a", cpu=8), box("b", cpu=8, used_cpu=3)], [half])}
    assert used == {"a": 3000, "b": 3000}


def test_pods_without_devices_leave_nodes_with_devices_to_those_who_need_them() -> None:
    decision = decide(picture([box("a-gpu", gpu=8), box("b", cpu=8)], [waiting("x", pods(2, cpu=4))]))
    assert set(decision.admit["x"].seats) == {"b"}


# --- topology ---------------------------------------------------------------------


def racks(*used: int) -> list:
    return [box(f"n{number}", gpu=4, used_gpu=use, labels={"rack": f"r{number // 2}"}) for number, use in enumerate(used)]


def test_required_topology_keeps_all_pods_within_one_domain() -> None:
    decision = decide(picture(racks(2, 2, 0, 1), [waiting("x", pods(3, gpu=2), topology=rack())]))
    assert decision.admit["x"].topology == ("rack", "r1", True)
    assert set(decision.admit["x"].seats) == {"n2", "n3"}
    decision = decide(picture(racks(2, 2, 0, 4), [waiting("x", pods(3, gpu=2), topology=rack())]))
    assert (decision.told["x"].code, decision.told["x"].message) == ("WaitingForTopology", "room is free, but not within one rack")


def test_preferred_topology_falls_back_to_any_nodes() -> None:
    decision = decide(picture(racks(2, 2, 0, 4), [waiting("x", pods(3, gpu=2), topology=rack(required=False))]))
    assert (decision.admit["x"].topology, len(decision.admit["x"].seats)) == (None, 2)
    decision = decide(picture(racks(2, 2, 0, 1), [waiting("x", pods(3, gpu=2), topology=rack(required=False))]))
    assert decision.admit["x"].topology == ("rack", "r1", False)


def test_a_level_that_is_not_configured_is_told() -> None:
    one = waiting("x", pods(1), topology=rack().__class__(level="rack", key="", required=True))
    assert "no topology level rack; ask an admin to set TOPOLOGY_LABELS" in decide(picture([box("a")], [one])).told["x"].message
    one = waiting("x", pods(1), topology=rack().__class__(level="rack", key="", required=False))
    assert set(decide(picture([box("a")], [one])).admit) == {"x"}


# --- order ------------------------------------------------------------------------


def test_priority_first_then_fair_share_then_first_come() -> None:
    line = [
        waiting("late", pods(1), at=5, team="speech"),
        waiting("early", pods(1), at=1, team="vision"),
        waiting("urgent", pods(1), at=9, team="vision", priority=90),
    ]
    totals = {"cpu": 8000}
    assert decide(picture([], line, totals=totals)).order == ("urgent", "late", "early"), "the urgent one counts for its team"
    line = line[:2]
    assert decide(picture([], line, totals=totals)).order == ("early", "late")
    used = [Held(team="vision", resource="cpu", amount=4000, started=after(-600), ends=after(-300))]
    assert decide(picture([], line, totals=totals, use=used)).order == ("late", "early")
    runs_on = [Held(team="speech", resource="cpu", amount=8000, started=after(-10), ends=None)]
    assert decide(picture([], line, totals=totals, use=used + runs_on)).order == ("early", "late")
    long_ago = [Held(team="vision", resource="cpu", amount=8000, started=after(-60 * 200), ends=after(-60 * 100))]
    assert decide(picture([], line, totals=totals, use=long_ago)).order == ("early", "late"), "outside of the window"


def test_the_dominant_share_is_of_the_scarcest_resource() -> None:
    line = [waiting("x", pods(1), at=1, team="vision", amounts={}), waiting("y", pods(1), at=2, team="speech", amounts={})]
    use = [
        Held(team="vision", resource="accelerator:a100", amount=4, started=after(-60), ends=T0),
        Held(team="speech", resource="cpu", amount=20_000, started=after(-60), ends=T0),
    ]
    assert decide(picture([], line, use=use, totals={"cpu": 100_000, "accelerator:a100": 8})).order == ("y", "x")


def test_teams_take_turns_and_who_waited_long_goes_before_shares() -> None:
    line = [waiting(f"v{n}", pods(1), at=n, team="vision") for n in range(3)] + [waiting(f"s{n}", pods(1), at=10 + n, team="speech") for n in range(3)]
    assert decide(picture([], line, totals={"cpu": 8000})).order == ("v0", "s0", "v1", "s1", "v2", "s2")
    busy = [Held(team="vision", resource="cpu", amount=8000, started=after(-3000), ends=None)]
    line[0] = waiting("v0", pods(1), at=-60 * 25, team="vision")
    assert decide(picture([], line, totals={"cpu": 8000}, use=busy)).order[0] == "v0"


# --- backfill ---------------------------------------------------------------------


def full() -> tuple[list, list]:
    """A node of 4 GPUs, 3 in use for another hour, and one of 2 that is empty but for CPU."""
    return [box("a", gpu=4, used_gpu=3)], [running("r", "a", gpu=3, ends=60)]


def test_a_small_one_goes_first_only_when_it_ends_before_the_head_can_start() -> None:
    nodes, admitted = full()
    head, short, long = waiting("head", pods(1, gpu=4), at=0), waiting("short", pods(1, gpu=1), at=1, hours=1), waiting("long", pods(1, gpu=1), at=1, hours=2)
    decision = decide(picture(nodes, [head, short], admitted))
    assert (set(decision.admit), decision.told["head"].latest) == ({"short"}, after(60))
    decision = decide(picture(nodes, [head, long], admitted))
    assert (set(decision.admit), decision.told["long"].code) == (set(), "WaitingForTurn")
    assert decision.told["long"].message == "there is room, but it would delay one that goes first: 1 environment ahead"
    assert decision.told["long"].latest == after(120), "after the head"


def test_a_long_one_goes_first_on_room_that_the_head_leaves_over() -> None:
    nodes, admitted = full()
    head = waiting("head", pods(1, gpu=2))
    assert set(decide(picture(nodes, [head, waiting("long", pods(1, gpu=1), at=1, hours=99)], admitted)).admit) == {"long"}
    assert set(decide(picture(nodes, [head, waiting("cpu", pods(1, cpu=7), at=1, hours=99)], admitted)).admit) == {"cpu"}


def test_history_makes_the_head_likely_to_start_sooner_and_backfill_more_careful() -> None:
    nodes, admitted = full()
    admitted = [running("r", "a", gpu=3, ends=60, granted=timedelta(hours=2), template="t")]
    line = [waiting("head", pods(1, gpu=4), template="u"), waiting("short", pods(1, gpu=1), at=1, hours=1)]
    history = [("t", "vision", 0.75)] * 10
    decision = decide(picture(nodes, line, admitted, history=history))
    assert decision.admit == {}
    assert (decision.told["head"].earliest, decision.told["head"].latest) == (after(30), after(60))
    overdue = [("t", "vision", 0.25)] * 10
    assert decide(picture(nodes, line, admitted, history=overdue)).told["head"].earliest == after(60), "it has outlived all that is known"
    assert decide(picture(nodes, line, admitted, history=history[:3])).told["head"].earliest == after(60), "too little is known"


def test_while_the_heads_start_is_unknown_others_take_only_what_it_cannot_use() -> None:
    nodes = [box("a", gpu=4, used_gpu=3), box("b", cpu=4)]
    admitted = [running("r", "a", gpu=3, ends=None)]
    head = waiting("head", pods(1, cpu=6, gpu=4))
    others = [waiting("gpu", pods(1, gpu=1), at=1), waiting("cpu", pods(1, cpu=4), at=2), waiting("more", pods(1, cpu=3), at=3)]
    decision = decide(picture(nodes, [head, *others], admitted))
    assert set(decision.admit) == {"cpu"}
    assert decision.told["gpu"].code == "WaitingForTurn"
    assert decision.told["more"].code == "WaitingForTurn", "6 of the 8 CPU of the node with GPUs are the head's"
    assert decision.told["head"].latest is None


def test_the_head_of_another_kind_of_device_is_protected_too() -> None:
    npu = "huawei.com/Ascend910"
    nodes = [box("a", gpu=4, used_gpu=3), box("n", used_cpu=0)]
    nodes[1].allocatable[npu] = 4
    nodes[1].used[npu] = 1
    line = [waiting("head", pods(1, gpu=4))]
    for name, count, at in (("npu4", 4, 1), ("npu1", 1, 2)):
        role = pods(1)
        role.need.resources[npu] = count  # type: ignore[index]
        line.append(waiting(name, role, at=at))
    decision = decide(picture(nodes, line, [running("r", "a", gpu=3)]))
    assert decision.admit == {}
    assert decision.told["npu1"].code == "WaitingForTurn"


# --- preemption -------------------------------------------------------------------


def victims(**more: dict) -> list[Admitted]:
    defaults = {
        "old": {"priority": 10, "since": after(-90)},
        "young": {"priority": 10, "since": after(-30)},
        "normal": {"priority": 50, "since": after(-10)},
        "fixed": {"priority": 10, "preemptible": False},
    }
    return [running(name, "a", gpu=2, **{"preemptible": True} | values | more.get(name, {})) for name, values in defaults.items()]


BUSY = [box("a", cpu=16, gpu=8, used_gpu=8)]


def test_the_least_important_and_youngest_are_asked_to_leave_and_no_more_than_needed() -> None:
    urgent = waiting("urgent", pods(1, gpu=2), priority=90, preempts=True)
    decision = decide(picture(BUSY, [urgent], victims()))
    assert decision.marks == {"young": ("urgent", after(5))}
    assert decision.told["urgent"].promised
    assert decision.told["urgent"].latest == after(5)
    decision = decide(picture(BUSY, [waiting("urgent", pods(2, gpu=2), priority=90, preempts=True)], victims(), grace={"old": timedelta(minutes=1)}))
    assert decision.marks == {"young": ("urgent", after(5)), "old": ("urgent", after(1))}


@pytest.mark.parametrize(
    ("urgent", "why"),
    [
        ({"preempts": False, "priority": 90}, "its class does not preempt"),
        ({"preempts": True, "priority": 10}, "nobody is of lower priority"),
        ({"preempts": True, "priority": 90, "pods": (pods(4, gpu=2),)}, "all victims together would not do"),
    ],
)
def test_nobody_is_stopped_in_vain(urgent: dict, why: str) -> None:
    assert decide(picture(BUSY, [waiting("urgent", pods(1, gpu=2), **urgent)], victims())).marks == {}, why


def test_a_needless_victim_is_left_alone() -> None:
    nodes = [box("a", gpu=2, used_gpu=2), box("b", gpu=4, used_gpu=4)]
    admitted = [running("small", "a", gpu=2, preemptible=True, since=after(-5)), running("large", "b", gpu=4, preemptible=True, since=after(-60))]
    decision = decide(picture(nodes, [waiting("urgent", pods(1, gpu=4), priority=90, preempts=True)], admitted))
    assert set(decision.marks) == {"large"}


def test_room_of_the_marked_is_promised_and_they_are_not_marked_again() -> None:
    marked = {"young": {"preempt_at": after(3), "preempted_for": "urgent"}}
    urgent = waiting("urgent", pods(1, gpu=2), at=5, priority=90, preempts=True, promised=True)
    other = waiting("other", pods(1, gpu=2), at=1, priority=90, preempts=True)
    decision = decide(picture(BUSY, [other, urgent], victims(**marked)))
    assert decision.marks == {"old": ("other", after(5))}, "the other one needs a victim of its own"
    assert decision.order == ("urgent", "other")
    # the victim is gone: nobody else takes its place, not even one that came first and is as urgent
    free = [box("a", cpu=16, gpu=8, used_gpu=6)]
    gone = [each for each in victims() if each.id != "young"]
    assert set(decide(picture(free, [other, urgent], gone)).admit) == {"urgent"}


def test_marks_are_taken_back_when_the_winner_is_gone_or_needs_them_no_more() -> None:
    marked = {"young": {"preempt_at": after(3), "preempted_for": "urgent"}, "old": {"preempt_at": after(3), "preempted_for": "urgent"}}
    assert decide(picture(BUSY, [], victims(**marked))).unmarks == ("old", "young")
    urgent = waiting("urgent", pods(1, gpu=2), priority=90, preempts=True, promised=True)
    decision = decide(picture(BUSY, [urgent], victims(**marked)))
    assert (decision.unmarks, decision.marks) == (("old",), {}), "one of them is enough by now"
    free = [box("a", cpu=16, gpu=10, used_gpu=8)]
    decision = decide(picture(free, [urgent], victims(**marked)))
    assert (set(decision.admit), decision.unmarks) == ({"urgent"}, ("old", "young"))


def test_nobody_is_stopped_while_room_is_being_given_back_anyway() -> None:
    leaving = {"normal": {"leaving": True}}
    decision = decide(picture(BUSY, [waiting("urgent", pods(1, gpu=2), priority=90, preempts=True)], victims(**leaving)))
    assert decision.marks == {}


def test_one_that_came_back_waits_a_moment_and_keeps_nobody_waiting() -> None:
    back = waiting("back", pods(1, gpu=1), held_back="its pods found no node")
    decision = decide(picture([box("a", gpu=1)], [back, waiting("x", pods(1, gpu=1), at=1)]))
    assert set(decision.admit) == {"x"}
    assert decision.told["back"].message == "its pods found no node"
