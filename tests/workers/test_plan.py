"""The table of what to do next, held to the lifecycle."""

from __future__ import annotations

from itertools import product

import pytest

from k8s.status import Phase
from portal.domain.lifecycle import Desired, State, can_move, is_settled
from workers.plan import Facts, Step, plan

D, S, P = Desired, State, Phase

TARGET = {
    Step.QUEUE: S.QUEUED,
    Step.PROVISION: S.PROVISIONING,
    Step.RUN: S.RUNNING,
    Step.RELAPSE: S.PROVISIONING,
    Step.FAIL: S.FAILED,
    Step.BEGIN_STOP: S.STOPPING,
    Step.BEGIN_DELETE: S.DELETING,
    Step.END_STOP: S.STOPPED,
    Step.END_DELETE: S.DELETED,
}

EVERY = [
    Facts(kind=kind, desired=desired, state=state, phase=phase, empty=empty, stale=stale, fresh=fresh, restarts_left=left, admitted=admitted)
    for kind, desired, state, phase, empty, stale, fresh, left, admitted in product(
        ("notebook", "cluster"), D, S, (None, *P), (False, True), (False, True), (False, True), (False, True), (False, True)
    )
]


def facts(desired: Desired, state: State, **more) -> Facts:
    return Facts(kind=more.pop("kind", "cluster"), desired=desired, state=state, **more)


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        (facts(D.RUNNING, S.REQUESTED, fresh=True), (Step.QUEUE,)),
        (facts(D.RUNNING, S.QUEUED, fresh=True), (Step.ADMIT,)),
        (facts(D.RUNNING, S.QUEUED), (Step.ADMIT,)),
        (facts(D.RUNNING, S.QUEUED, fresh=True, admitted=True), (Step.APPLY, Step.PROVISION)),
        (facts(D.RUNNING, S.QUEUED, admitted=True), (Step.CLEAN, Step.APPLY, Step.PROVISION)),
        (facts(D.RUNNING, S.AWAITING_APPROVAL), ()),
        (facts(D.RUNNING, S.PROVISIONING, phase=P.PROGRESSING), ()),
        (facts(D.RUNNING, S.PROVISIONING, phase=P.PROGRESSING, stale=True), (Step.APPLY,)),
        (facts(D.RUNNING, S.PROVISIONING, phase=P.READY), (Step.RUN,)),
        (facts(D.RUNNING, S.PROVISIONING, phase=P.GONE), (Step.APPLY,)),
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
        waits = given.phase in (P.PROGRESSING, P.DEGRADED, None) and given.state is S.PROVISIONING
        # Stopped and deleting are left by other hands: `environment_start` queues, and nothing is brought back from deletion.
        others = given.state in (S.STOPPED, S.DELETING, S.DELETED) and given.desired is not D.DELETED
        if not is_settled(given.desired, given.state) and not waits and not others:
            assert plan(given), given
