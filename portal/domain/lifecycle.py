"""The life of an environment: its states and the moves between them. Pure; imports nothing of Django.

Users write `Desired`; only the observer (a worker comparing the row with the cluster) writes `State`.
"""

from __future__ import annotations

from enum import StrEnum


class Desired(StrEnum):
    """What the owner wants."""

    RUNNING = "running"
    STOPPED = "stopped"
    DELETED = "deleted"


class State(StrEnum):
    """What is so, as last observed."""

    REQUESTED = "requested"
    AWAITING_APPROVAL = "awaiting_approval"
    QUEUED = "queued"
    PROVISIONING = "provisioning"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DELETING = "deleting"
    DELETED = "deleted"
    FAILED = "failed"


_S = State

MOVES: dict[State, frozenset[State]] = {
    _S.REQUESTED: frozenset({_S.AWAITING_APPROVAL, _S.QUEUED, _S.STOPPING, _S.FAILED, _S.DELETING}),
    _S.AWAITING_APPROVAL: frozenset({_S.QUEUED, _S.STOPPING, _S.FAILED, _S.DELETING}),
    _S.QUEUED: frozenset({_S.PROVISIONING, _S.STOPPING, _S.FAILED, _S.DELETING}),
    # back to queued: the room it was admitted to was taken by others before all its pods were placed
    _S.PROVISIONING: frozenset({_S.RUNNING, _S.QUEUED, _S.STOPPING, _S.FAILED, _S.DELETING}),
    # back to provisioning: a pod was lost and its controller is making a new one
    _S.RUNNING: frozenset({_S.PROVISIONING, _S.STOPPING, _S.FAILED, _S.DELETING}),
    _S.STOPPING: frozenset({_S.STOPPED, _S.FAILED, _S.DELETING}),
    _S.STOPPED: frozenset({_S.QUEUED, _S.AWAITING_APPROVAL, _S.DELETING}),
    _S.FAILED: frozenset({_S.QUEUED, _S.AWAITING_APPROVAL, _S.STOPPING, _S.DELETING}),
    _S.DELETING: frozenset({_S.DELETED}),
    _S.DELETED: frozenset(),
}

SETTLED: dict[Desired, frozenset[State]] = {
    # where convergence rests until something is observed or asked for
    Desired.RUNNING: frozenset({_S.RUNNING, _S.FAILED, _S.AWAITING_APPROVAL}),
    Desired.STOPPED: frozenset({_S.STOPPED}),
    Desired.DELETED: frozenset({_S.DELETED}),
}


def can_move(origin: State, target: State) -> bool:
    """True when `origin -> target` is a move of the lifecycle."""
    return target in MOVES[origin]


def is_settled(desired: Desired, state: State) -> bool:
    """True when nothing is left to do for this pair until an event arrives."""
    return state in SETTLED[desired]
