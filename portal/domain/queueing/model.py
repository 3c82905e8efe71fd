"""What the queue looks at and what it answers, free of the database. Amounts as in `portal.domain.capacity`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from ..capacity import Need, NodeLike

Seats = Mapping[str, Mapping[str, int]]  # node -> role -> pods
Load = Mapping[str, Mapping[str, int]]  # node -> resource -> amount


@dataclass(frozen=True, kw_only=True)
class Pods:
    """The replicas of one role, all alike."""

    role: str
    count: int
    need: Need


@dataclass(frozen=True, kw_only=True)
class Topology:
    """All pods on nodes that share one value of the label `key`. An empty key: the level is not configured here."""

    level: str
    key: str
    required: bool


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """One that waits to be admitted."""

    id: str
    team: str
    pods: tuple[Pods, ...]
    queued_at: datetime
    priority: int = 0
    preempts: bool = False
    template: str = ""
    topology: Topology | None = None
    granted: timedelta | None = None  # running time; None: without end
    amounts: Mapping[str, int] = field(default_factory=dict)  # quota resources, for fair shares
    label: str = ""  # what it waits for, for people: an accelerator's slug, counted in devices, or a flavor's, counted in pods
    held_back: str = ""  # came back a moment ago and is not tried again yet: what to tell meanwhile
    promised: bool = False  # others are or were stopped for it

    @cached_property
    def shape(self) -> tuple[Any, ...]:
        """Equal for those that fit into the same room."""
        topology = (self.topology.key, self.topology.required) if self.topology else None
        return tuple((each.count, each.need.key) for each in self.pods), topology

    @cached_property
    def devices(self) -> frozenset[str]:
        return frozenset(key for each in self.pods for key in each.need.devices)


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """One that was let go and has not given its room back."""

    id: str
    team: str
    since: datetime
    priority: int = 0
    template: str = ""
    preemptible: bool = False
    granted: timedelta | None = None
    ends: datetime | None = None  # at the latest; None: without end
    leaving: bool = False  # on its way out already
    coming: tuple[Pods, ...] = ()  # pods that are not seen on a node yet
    seats: Seats = field(default_factory=dict)  # where the queue thought they would go
    seen: Load = field(default_factory=dict)  # its part of what the nodes say is used
    seen_pods: Seats = field(default_factory=dict)  # the same as pods
    elsewhere: bool = False  # another queue decides over it, so nothing is promised to it
    preempt_at: datetime | None = None
    preempted_for: str = ""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the pods of one may go, all of them."""

    seats: Seats
    topology: tuple[str, str, bool] | None = None  # node label, value, required


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What one that goes on waiting is told."""

    position: int
    ahead: int
    code: str
    message: str
    earliest: datetime | None = None
    latest: datetime | None = None
    promised: bool = False


@dataclass(frozen=True, kw_only=True)
class Held:
    """A time during which a team had an amount of a resource; `ends` None: without end."""

    team: str
    resource: str
    amount: int
    started: datetime
    ends: datetime | None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Everything that a pass looks at."""

    now: datetime
    nodes: Sequence[NodeLike]
    waiting: Sequence[Waiting]
    admitted: Sequence[Admitted] = ()
    use: Sequence[Held] = ()  # within the window, for fair shares
    totals: Mapping[str, int] = field(default_factory=dict)  # quota resource -> what the cluster has of it
    history: Sequence[tuple[str, str, float]] = ()  # (template, team, part of the granted time that was really used)
    window: timedelta = timedelta(hours=72)
    slack: timedelta = timedelta()  # from admission to running, and from the end to free room
    grace: Mapping[str, timedelta] = field(default_factory=dict)  # of victims, by id
    default_grace: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a pass makes of it. Nobody is in both `admit` and `told`."""

    admit: Mapping[str, Placement]
    told: Mapping[str, Standing]
    order: tuple[str, ...]  # of all that waited
    marks: Mapping[str, tuple[str, datetime]] = field(default_factory=dict)  # victim -> (for whom, when it is stopped)
    unmarks: tuple[str, ...] = ()
