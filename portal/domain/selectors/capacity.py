"""The catalogue, and what the nodes hold of it. Room that is promised to admitted environments counts as used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings
from django.db.models import Q, QuerySet
from django.utils import timezone

from ..allowed import allowed
from ..capacity import Capacity, blocked_now, capacity_for
from ..models import Accelerator, Flavor, Node, Quota, Team, Template, User
from ..quantities import ACCELERATORS, BASE_RESOURCES, accelerator_resource, weight_thousandths
from ..queueing import Waiting
from ..queueing.room import BRIEF_STEPS, Room
from ..shape import RoleShape
from .picture import Needs, nearness_of, need_of, nodes_with_promises, topology_of


@dataclass(frozen=True, kw_only=True)
class FlavorCapacity:
    """A flavor and how many replicas of it the cluster holds. `starts_now`: how many could start at once, within the user's quota where one is given."""

    flavor: Flavor
    capacity: Capacity
    starts_now: int


@dataclass(frozen=True, kw_only=True)
class AcceleratorCapacity:
    """An accelerator and its devices on nodes that may be used: all, used by anyone, free now."""

    accelerator: Accelerator
    known: bool
    total: int
    in_use: int
    free: int
    simulated: bool
    nodes: int = 0  # that have it
    nodes_free: int = 0  # with one free now
    largest: int = 0  # devices that one pod can have at once: the most that are free on one node
    largest_ever: int = 0  # the same when nothing runs

    @property
    def reason(self) -> str:
        """Why nobody can have one; empty when somebody can, or nothing is known."""
        if self.total or not self.known:
            return ""
        labels = ", ".join(f"{key}={value}" for key, value in self.accelerator.node_selector.items())
        return f"no node has {self.accelerator.device_key.partition('#')[0]}" + (f" and the labels {labels}" if labels else "")


def templates_enabled() -> QuerySet[Template]:
    """What can be asked for now."""
    return Template.objects.filter(enabled=True)


def flavors_of(template_spec: Mapping[str, Any]) -> list[Flavor]:
    """Flavors that can be asked for with the template now."""
    rows = Flavor.objects.filter(enabled=True).select_related("accelerator", "network")
    there = [row for row in rows if all(part is None or part.enabled for part in (row.accelerator, row.network))]
    return allowed(template_spec, there)


def _headroom(user: User, flavor: Flavor) -> int | None:
    """Replicas of the flavor that the user's quota still allows in his best team; None: no limit."""
    amounts = {"cpu": flavor.cpu_millis, "memory": flavor.memory_bytes}
    if flavor.accelerator and flavor.accelerator_count:
        amounts[accelerator_resource(flavor.accelerator.slug)] = flavor.accelerator_count
        amounts[ACCELERATORS] = flavor.accelerator_count * weight_thousandths(flavor.accelerator.quota_weight)
    best = 0
    for team in Team.objects.filter(memberships__user=user):
        rows = Quota.objects.filter(Q(user=None) | Q(user=user), team=team, resource__in=list(amounts))
        counts = [row.headroom() // amounts[row.resource] for row in rows if row.limit is not None and amounts[row.resource]]  # type: ignore[operator]
        known = {row.resource for row in rows if row.user_id is None}
        if any(resource not in known and resource not in BASE_RESOURCES for resource in amounts):
            counts.append(0)  # an accelerator nobody granted to the team
        if not counts:
            return None
        best = max(best, min(counts))
    return best


def flavors_with_capacity(user: User | None = None) -> Sequence[FlavorCapacity]:
    """Enabled flavors with what the nodes hold of each."""
    nodes, result = nodes_with_promises(timezone.now()), []
    for flavor in Flavor.objects.filter(enabled=True).select_related("accelerator", "network"):
        if (flavor.accelerator and not flavor.accelerator.enabled) or (flavor.network and not flavor.network.enabled):
            continue
        near = nearness_of({}, flavor.network)
        within = settings.TOPOLOGY_LABELS.get(near["level"], "") if near.get("mode") == "required" else ""
        capacity = capacity_for(nodes, need_of(flavor.shape(), flavor.accelerator), within=within)
        headroom = _headroom(user, flavor) if user is not None else None
        starts = capacity.free if headroom is None else min(capacity.free, headroom)
        result.append(FlavorCapacity(flavor=flavor, capacity=capacity, starts_now=starts))
    return result


def accelerators_with_capacity() -> Sequence[AcceleratorCapacity]:
    """Enabled accelerators with their devices on the nodes their selector names."""
    nodes, result = nodes_with_promises(timezone.now()), []
    for accelerator in Accelerator.objects.filter(enabled=True):
        selector = dict(settings.NODE_SELECTOR) | accelerator.node_selector
        key = accelerator.device_key
        mine = [n for n in nodes if n.allocatable.get(key, 0) and all(n.labels.get(label) == value for label, value in selector.items())]
        left = [max(0, n.allocatable[key] - n.used.get(key, 0)) for n in mine if not blocked_now(n)]
        result.append(
            AcceleratorCapacity(
                accelerator=accelerator,
                known=bool(nodes),
                total=sum(n.allocatable[key] for n in mine),
                in_use=sum(n.used.get(key, 0) for n in mine),
                free=sum(left),
                simulated=bool(mine) and all(n.simulated for n in mine),
                nodes=len(mine),
                nodes_free=sum(each > 0 for each in left),
                largest=max(left, default=0),
                largest_ever=max((n.allocatable[key] for n in mine), default=0),
            )
        )
    return result


def why_never_fits(shapes: Sequence[RoleShape]) -> str:
    """Why no node can ever hold one of the roles; empty when each fits somewhere or no node is known yet."""
    nodes = list(Node.objects.all())
    if not nodes:
        return ""
    chips = {a.slug: a for a in Accelerator.objects.filter(slug__in=[s.accelerator for s in shapes if s.accelerator])}
    for shape in shapes:
        capacity = capacity_for(nodes, need_of(shape, chips.get(shape.accelerator)))
        if not capacity.fits:
            return f"a {shape.name} replica fits on no node of this cluster: {capacity.reason}"
    return ""


def starts_now(shapes: Sequence[RoleShape]) -> bool | None:
    """Whether free room on the nodes is enough for each role taken by itself; None when no node is known yet."""
    nodes = nodes_with_promises(timezone.now())
    if not nodes:
        return None
    chips = {a.slug: a for a in Accelerator.objects.filter(slug__in=[s.accelerator for s in shapes if s.accelerator])}
    return all(capacity_for(nodes, need_of(shape, chips.get(shape.accelerator))).free >= shape.replicas for shape in shapes)


def largest_now(template_spec: Mapping[str, Any], shapes: Sequence[RoleShape], flavor: Flavor, most: int) -> int | None:
    """With how many replicas of its scalable role, up to `most`, a request of these shapes would find room at once, all of them together. 0:
    with none. None: no role is scalable, or no node is known yet."""
    now = timezone.now()
    nodes = nodes_with_promises(now)
    if not nodes or not any(shape.scalable for shape in shapes):
        return None
    chips = {flavor.accelerator.slug: flavor.accelerator} if flavor.accelerator else {}
    room, needs, topology = Room(nodes), Needs(), topology_of(template_spec, flavor.network)

    def fits(count: int) -> bool:
        asked = [replace(shape, replicas=count) if shape.scalable else shape for shape in shapes]
        one = Waiting(id="", team="", pods=needs.pods_of(asked, chips), queued_at=now, topology=topology)
        return room.place(one, steps=BRIEF_STEPS) is not None

    low, high = 0, most  # what fits with more fits with fewer
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
