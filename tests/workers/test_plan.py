"""The table of what to do next, held to the lifecycle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import product

import pytest
from hypothesis import given as for_all
from hypothesis import settings as search
from hypothesis import strategies as st

from k8s.status import Phase
from portal.domain.lifecycle import Desired, State, can_move, is_settled
from workers.plan import Facts, Step, plan

D, S, P = Desired, State, Phase

TARGET = {
    Step.QUEUE: S.QUEUED,
    Step.PROVISION: S.PROVISIONING,
    Step.RUN: S.RUNNING,
    Step.RELAPSE: S.PROVISIONING,
    Step.REQUEUE: S.QUEUED,
    Step.FAIL: S.FAILED,
    Step.BEGIN_STOP: S.STOPPING,
    Step.BEGIN_DELETE: S.DELETING,
    Step.END_STOP: S.STOPPED,
    Step.END_DELETE: S.DELETED,
}
FLAGS = [field.name for field in fields(Facts) if field.type == "bool"]


def every() -> Iterator[Facts]:
    """Each combination of all that the table looks at."""
    for desired, state, phase in product(D, S, (None, *P)):
        for values in product((False, True), repeat=len(FLAGS)):
            yield Facts(kind="cluster", desired=desired, state=state, phase=phase, **dict(zip(FLAGS, values, strict=True)))


EVERY = list(every())


def facts(desired: Desired, state: State, **more) -> Facts:
    return Facts(kind=more.pop("kind", "cluster"), desired=desired, state=state, **more)


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        (facts(D.RUNNING, S.REQUESTED, fresh=True), (Step.QUEUE, Step.ADMIT)),
        (facts(D.RUNNING, S.QUEUED, fresh=True), (Step.ADMIT,)),
        (facts(D.RUNNING, S.PROVISIONING, phase=P.COMPLETED), (Step.RUN, Step.COMPLETE)),
        (facts(D.RUNNING, S.RUNNING, phase=P.COMPLETED), (Step.COMPLETE,)),
        (facts(D.RUNNING, S.QUEUED), (Step.ADMIT,)),
        (facts(D.RUNNING, S.QUEUED, fresh=True, admitted=True), (Step.APPLY, Step.PROVISION)),
        (facts(D.RUNNING, S.QUEUED, admitted=True), (Step.CLEAN, Step.APPLY, Step.PROVISION)),
        (facts(D.RUNNING, S.QUEUED, admitted=True, external=True), (Step.CLEAN, Step.APPLY)),
        (facts(D.RUNNING, S.QUEUED, admitted=True, external=True, phase=P.GONE), (Step.CLEAN, Step.APPLY)),
        (facts(D.RUNNING, S.QUEUED, admitted=True, external=True, phase=P.GONE, restarts_left=False), (Step.FAIL,)),
        (facts(D.RUNNING, S.QUEUED, admitted=True, external=True, phase=P.PROGRESSING, held_outside=True), ()),
        (facts(D.RUNNING, S.QUEUED, admitted=True, external=True, phase=P.PROGRESSING, held_outside=True, stale=True), (Step.CLEAN, Step.APPLY)),
        (facts(D.RUNNING, S.QUEUED, admitted=True, external=True, phase=P.PROGRESSING), (Step.PROVISION,)),
        (facts(D.RUNNING, S.QUEUED, admitted=True, external=True, phase=P.FAILED, held_outside=True), (Step.FAIL,)),
        (facts(D.RUNNING, S.AWAITING_APPROVAL), ()),
        (facts(D.RUNNING, S.PROVISIONING, phase=P.PROGRESSING), ()),
        (facts(D.RUNNING, S.PROVISIONING, phase=P.PROGRESSING, stale=True), (Step.APPLY,)),
        (facts(D.RUNNING, S.PROVISIONING, phase=P.READY), (Step.RUN,)),
        (facts(D.RUNNING, S.PROVISIONING, phase=P.DEGRADED), (Step.RUN,)),
        (facts(D.RUNNING, S.PROVISIONING, phase=P.GONE), (Step.CLEAN, Step.APPLY)),
        (facts(D.RUNNING, S.PROVISIONING, phase=P.GONE, restarts_left=False), (Step.FAIL,)),
        (facts(D.RUNNING, S.PROVISIONING, phase=P.PROGRESSING, no_room=True), (Step.REQUEUE,)),
        (facts(D.RUNNING, S.PROVISIONING, phase=P.PROGRESSING, no_room=True, external=True), ()),
        (facts(D.RUNNING, S.PROVISIONING, phase=P.PROGRESSING, stuck=True), (Step.RELEASE,)),
        (facts(D.RUNNING, S.RUNNING, phase=P.PROGRESSING, stuck=True), (Step.RELEASE, Step.RELAPSE)),
        (facts(D.RUNNING, S.PROVISIONING, phase=P.FAILED), (Step.FAIL,)),
        (facts(D.RUNNING, S.RUNNING, phase=P.READY), ()),
        (facts(D.RUNNING, S.RUNNING, phase=P.READY, stale=True), (Step.APPLY,)),
        (facts(D.RUNNING, S.RUNNING, phase=P.DEGRADED), ()),
        (facts(D.RUNNING, S.RUNNING, phase=P.PROGRESSING), (Step.RELAPSE,)),
        (facts(D.RUNNING, S.RUNNING, phase=P.GONE), (Step.RELAPSE, Step.CLEAN, Step.APPLY)),
        (facts(D.RUNNING, S.RUNNING, phase=P.GONE, restarts_left=False), (Step.FAIL,)),
        (facts(D.RUNNING, S.RUNNING, phase=P.FAILED), (Step.FAIL,)),
        (facts(D.RUNNING, S.FAILED), (Step.TEAR_DOWN,)),
        (facts(D.RUNNING, S.FAILED, empty=True), ()),
        (facts(D.RUNNING, S.STOPPED), ()),
        (facts(D.STOPPED, S.RUNNING), (Step.BEGIN_STOP, Step.TEAR_DOWN)),
        (facts(D.STOPPED, S.FAILED), (Step.BEGIN_STOP, Step.TEAR_DOWN)),
        (facts(D.STOPPED, S.REQUESTED), (Step.BEGIN_STOP, Step.TEAR_DOWN)),
        (facts(D.STOPPED, S.QUEUED, untouched=True), (Step.BEGIN_STOP, Step.END_STOP)),
        (facts(D.STOPPED, S.AWAITING_APPROVAL, untouched=True), (Step.BEGIN_STOP, Step.END_STOP)),
        (facts(D.DELETED, S.AWAITING_APPROVAL, untouched=True), (Step.BEGIN_DELETE, Step.END_DELETE)),
        (facts(D.STOPPED, S.STOPPING), (Step.TEAR_DOWN,)),
        (facts(D.STOPPED, S.STOPPING, empty=True), (Step.END_STOP,)),
        (facts(D.STOPPED, S.STOPPED), ()),
        (facts(D.DELETED, S.RUNNING), (Step.BEGIN_DELETE, Step.TEAR_DOWN)),
        (facts(D.DELETED, S.STOPPED), (Step.BEGIN_DELETE, Step.TEAR_DOWN)),
        (facts(D.DELETED, S.DELETING), (Step.TEAR_DOWN,)),
        (facts(D.DELETED, S.DELETING, empty=True), (Step.END_DELETE,)),
        (facts(D.DELETED, S.DELETED), ()),
    ],
)
def test_the_table(given: Facts, steps: tuple[Step, ...]) -> None:
    assert plan(given) == steps


def test_no_plan_asks_for_a_move_that_the_lifecycle_forbids() -> None:
    for given in EVERY:
        state = given.state
        for step in plan(given):
            if step in TARGET:
                assert can_move(state, TARGET[step]), (given, step)
                state = TARGET[step]


def test_nothing_is_made_for_what_is_not_wanted_running() -> None:
    for given in EVERY:
        if given.desired is not D.RUNNING:
            assert not {Step.APPLY, Step.PROVISION, Step.RUN, Step.QUEUE} & set(plan(given)), given


def test_what_is_unsettled_always_has_something_to_do_or_to_wait_for() -> None:
    for given in EVERY:
        waits = given.phase in (P.PROGRESSING, None) and given.state is S.PROVISIONING
        outside = given.state is S.QUEUED and given.external and given.held_outside
        # Stopped and deleting are left by other hands: `environment_start` queues, and nothing is brought back from deletion.
        others = given.state in (S.STOPPED, S.DELETING, S.DELETED) and given.desired is not D.DELETED
        if not is_settled(given.desired, given.state) and not waits and not outside and not others:
            assert plan(given), given


def test_nothing_is_made_before_it_is_admitted_and_clean() -> None:
    for given in EVERY:
        steps = plan(given)
        if Step.APPLY in steps and given.state is S.QUEUED:
            assert given.admitted, given
            assert Step.CLEAN in steps or given.fresh, given


def test_objects_are_given_up_before_the_row_says_so() -> None:
    """A step that frees what an environment holds is the last of its plan, or follows from nothing being there."""
    for given in EVERY:
        steps = plan(given)
        if Step.REQUEUE in steps or Step.FAIL in steps:
            assert len(steps) == 1, given
        if {Step.END_STOP, Step.END_DELETE} & set(steps):
            assert given.empty or given.untouched, given


# --- a model: any observations at first, true ones in the end -----------------------------


class World:
    """One environment as it truly is: which objects it has, and how they are. The queue and the nodes are kind in the end."""

    def __init__(self, desired: Desired, state: State, objects: str, *, admitted: bool, external: bool) -> None:
        self.desired, self.state, self.objects = desired, state, objects  # objects: "none", "old" (of an earlier run) or "own"
        self.admitted, self.external = admitted, external

    def facts(self) -> Facts:
        up = self.objects == "own"
        return Facts(
            kind="cluster",
            desired=self.desired,
            state=self.state,
            phase={"none": P.GONE, "old": P.PROGRESSING, "own": P.READY}[self.objects],
            empty=self.objects == "none",
            stale=self.objects == "old",
            admitted=self.admitted,
            external=self.external,
            held_outside=not up,
        )

    def take(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            if step in TARGET:
                assert can_move(self.state, TARGET[step]), (self.state, step)
            if not self._do(step):
                return

    def _do(self, step: Step) -> bool:
        """Whether the next step of the plan may follow."""
        if step is Step.ADMIT:
            self.admitted = True
        elif step in (Step.TEAR_DOWN, Step.FAIL, Step.REQUEUE):
            self.objects = "none"
            self.admitted = self.admitted and step is Step.TEAR_DOWN
        elif step is Step.CLEAN and self.objects == "old":
            self.objects = "none"
            return False
        elif step is Step.APPLY:
            self.objects = "own"
        self.state = TARGET.get(step, self.state)
        return True


@search(max_examples=400, deadline=None)
@for_all(
    desired=st.sampled_from(D),
    state=st.sampled_from(S),
    objects=st.sampled_from(["none", "old", "own"]),
    admitted=st.booleans(),
    external=st.booleans(),
    lies=st.lists(st.tuples(st.sampled_from([None, *P]), st.fixed_dictionaries({name: st.booleans() for name in FLAGS})), max_size=8),
)
def test_whatever_was_seen_before_true_observations_bring_it_to_rest(
    desired: Desired, state: State, objects: str, admitted: bool, external: bool, lies: list[tuple[Phase | None, dict[str, bool]]]
) -> None:
    world = World(desired, state, objects, admitted=admitted, external=external)
    for phase, flags in lies:
        # What is said of the row itself is always true; what is said of the cluster is anything.
        told = {**flags, "admitted": world.admitted, "external": external, "untouched": False, "fresh": False}
        world.take(plan(replace(world.facts(), phase=phase, **told)))
    for _ in range(10):
        steps = plan(world.facts())
        if not steps:
            break
        world.take(steps)
    assert not plan(world.facts()), "it goes round and round"
    left_to_others = (S.STOPPED, S.DELETING, S.DELETED)  # see above
    assert is_settled(desired, world.state) or world.state in left_to_others, world.state
    assert world.objects == "none" or world.state is not S.FAILED
