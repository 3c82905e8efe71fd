"""What to do next for an environment: a table of what is wanted, where it is, and what was seen. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from k8s.status import Phase
from portal.domain.lifecycle import Desired, State


class Step(StrEnum):
    """One thing to do. Each may be done late, twice, or again after half of it."""

    QUEUE = "queue"  # move to queued
    ADMIT = "admit"  # ask the queue; go on only when it lets it go
    CLEAN = "clean"  # remove what an earlier run left; go on only when it is gone
    APPLY = "apply"  # make or mend its objects, and start its server
    PROVISION = "provision"  # move to provisioning
    RUN = "run"  # move to running
    RELAPSE = "relapse"  # move from running back to provisioning
    RELEASE = "release"  # delete at once the pods that a lost node will never confirm
    REQUEUE = "requeue"  # give its pods up, then move back to queued, not admitted
    COMPLETE = "complete"  # what it was to run has ended: want it stopped
    FAIL = "fail"  # tear down, then move to failed
    BEGIN_STOP = "begin-stop"  # move to stopping
    BEGIN_DELETE = "begin-delete"  # move to deleting
    TEAR_DOWN = "tear-down"  # archive logs, stop the server, delete the objects
    END_STOP = "end-stop"  # move to stopped
    END_DELETE = "end-delete"  # remove what it shared and what is to be purged, move to deleted


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the table looks at. `phase` is None where nothing was looked at; `empty`: nothing with its label is left, and no server;
    `stale`: objects differ from the spec; `fresh`: requested just now, so nothing can be there; `restarts_left`: of a lost notebook;
    `admitted`: the queue lets it go; `external`: a queue of the cluster decides, `held_outside`: and it holds its pods back;
    `stuck`: pods should have been gone for a while; `no_room`: never up in this run, and pods have been without a node for too long;
    `untouched`: nothing was ever made of it."""

    kind: str
    desired: Desired
    state: State
    phase: Phase | None = None
    empty: bool = False
    stale: bool = False
    fresh: bool = False
    restarts_left: bool = True
    admitted: bool = False
    external: bool = False
    held_outside: bool = False
    stuck: bool = False
    no_room: bool = False
    untouched: bool = False


def plan(facts: Facts) -> tuple[Step, ...]:
    """The steps to take now, in order. Empty: nothing to do but wait."""
    if facts.desired is Desired.DELETED:
        return _towards_deleted(facts)
    if facts.desired is Desired.STOPPED:
        return _towards_stopped(facts)
    return _towards_running(facts)


def needs_phase(desired: Desired, state: State, *, waits_outside: bool = False) -> bool:
    """True where the plan depends on how its pods are. `waits_outside`: admitted, and a queue of the cluster decides."""
    return desired is Desired.RUNNING and (state in (State.PROVISIONING, State.RUNNING) or (state is State.QUEUED and waits_outside))


def needs_rest(desired: Desired, state: State) -> bool:
    """True where the plan depends on whether anything is left."""
    return state in (State.STOPPING, State.DELETING) or (state is State.FAILED and desired is Desired.RUNNING)


def needs_past(desired: Desired, state: State) -> bool:
    """True where the plan depends on whether anything was ever made."""
    return desired is not Desired.RUNNING and state in (State.REQUESTED, State.AWAITING_APPROVAL, State.QUEUED)


def _towards_running(facts: Facts) -> tuple[Step, ...]:
    match facts.state:
        case State.REQUESTED:
            return (Step.QUEUE, Step.ADMIT)
        case State.QUEUED:
            return _while_queued(facts)
        case State.PROVISIONING:
            return _first_release(facts, _while_provisioning(facts))
        case State.RUNNING:
            return _first_release(facts, _while_running(facts))
        case State.STOPPING:  # started again meanwhile: first come to rest
            return (Step.END_STOP,) if facts.empty else (Step.TEAR_DOWN,)
        case State.FAILED:
            return () if facts.empty else (Step.TEAR_DOWN,)
        case _:  # awaiting approval; stopped, which only `environment_start` leaves, since it reserves quota; deleting and deleted
            return ()


def _first_release(facts: Facts, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Tearing down and cleaning release by themselves."""
    return (Step.RELEASE, *steps) if facts.stuck and not {Step.COMPLETE, Step.FAIL, Step.REQUEUE, Step.CLEAN} & set(steps) else steps


def _while_queued(facts: Facts) -> tuple[Step, ...]:
    if not facts.admitted:
        return (Step.ADMIT,)
    if not facts.external:
        return (Step.APPLY, Step.PROVISION) if facts.fresh else (Step.CLEAN, Step.APPLY, Step.PROVISION)
    # The cluster's queue looks at pods, so they are made for it to hold back.
    if facts.phase is Phase.FAILED:
        return (Step.FAIL,)
    if facts.phase in (None, Phase.GONE) or facts.stale:
        return (Step.CLEAN, Step.APPLY) if facts.restarts_left else (Step.FAIL,)
    return () if facts.held_outside else (Step.PROVISION,)


def _while_provisioning(facts: Facts) -> tuple[Step, ...]:
    match facts.phase:
        case Phase.READY | Phase.DEGRADED:  # degraded is what was up before: it can be used again
            return (Step.APPLY, Step.RUN) if facts.stale else (Step.RUN,)
        case Phase.COMPLETED:
            return (Step.RUN, Step.COMPLETE)
        case Phase.FAILED:
            return (Step.FAIL,)
        case Phase.GONE:
            return (Step.CLEAN, Step.APPLY) if facts.restarts_left else (Step.FAIL,)
        case _:
            if facts.no_room and not facts.external:
                return (Step.REQUEUE,)
            return (Step.APPLY,) if facts.stale else ()


def _while_running(facts: Facts) -> tuple[Step, ...]:
    match facts.phase:
        case Phase.COMPLETED:
            return (Step.COMPLETE,)
        case Phase.FAILED:
            return (Step.FAIL,)
        case Phase.GONE:
            return (Step.RELAPSE, Step.CLEAN, Step.APPLY) if facts.restarts_left else (Step.FAIL,)
        case Phase.PROGRESSING:
            return (Step.RELAPSE, Step.APPLY) if facts.stale else (Step.RELAPSE,)
        case _:
            return (Step.APPLY,) if facts.stale else ()


def _towards_stopped(facts: Facts) -> tuple[Step, ...]:
    match facts.state:
        case State.STOPPED | State.DELETING | State.DELETED:
            return ()
        case State.STOPPING:
            return (Step.END_STOP,) if facts.empty else (Step.TEAR_DOWN,)
        case _:
            return (Step.BEGIN_STOP, Step.END_STOP) if _never_made(facts) else (Step.BEGIN_STOP, Step.TEAR_DOWN)


def _towards_deleted(facts: Facts) -> tuple[Step, ...]:
    match facts.state:
        case State.DELETED:
            return ()
        case State.DELETING:
            return (Step.END_DELETE,) if facts.empty else (Step.TEAR_DOWN,)
        case _:
            return (Step.BEGIN_DELETE, Step.END_DELETE) if _never_made(facts) else (Step.BEGIN_DELETE, Step.TEAR_DOWN)


def _never_made(facts: Facts) -> bool:
    return facts.untouched and facts.state in (State.REQUESTED, State.AWAITING_APPROVAL, State.QUEUED)
