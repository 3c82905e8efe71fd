"""Every visibility-checked read. An environment is visible to its owner, the leads of its team and platform admins; others get NotFound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.core.files.storage import storages
from django.db.models import Q, QuerySet

from .capacity import Capacity, Need, capacity_for
from .errors import NotFound
from .lifecycle import Desired, State
from .models import Accelerator, Environment, Event, Flavor, LogArchive, Membership, Node, Quota, Team, Template, User, Volume
from .quantities import BASE_RESOURCES, accelerator_resource
from .shape import RoleShape


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


# --- environments -----------------------------------------------------------
def environments_visible_to(user: User) -> QuerySet[Environment]:
    """All that `user` may see, deleted ones included; nothing for an inactive or anonymous user."""
    query = Environment.objects.select_related("team", "owner", "template", "flavor__accelerator", "volume")
    if not user.is_active or not user.is_authenticated:
        return query.none()
    if user.is_staff:
        return query
    return query.filter(Q(owner=user) | Q(team__in=teams_led_by(user)))


def environment_get(user: User, environment_id: UUID | str) -> Environment:
    """The environment, or NotFound when it is absent or not visible to `user`."""
    try:
        key = environment_id if isinstance(environment_id, UUID) else UUID(str(environment_id))
    except ValueError:
        raise NotFound("There is no such environment.") from None
    environment = environments_visible_to(user).filter(pk=key).first()
    if environment is None:
        raise NotFound("There is no such environment.")
    return environment


def events_after(environment: Environment, seq: int, limit: int) -> QuerySet[Event]:
    """The next events in order of their number."""
    return Event.objects.filter(environment=environment, seq__gt=seq).select_related("actor").order_by("seq")[:limit]


def archives_of(environment: Environment) -> QuerySet[LogArchive]:
    """What is kept of the logs of its past pods, oldest first."""
    return LogArchive.objects.filter(environment=environment)


def archive_read(archive: LogArchive) -> bytes:
    """The bytes of an archived log."""
    with storages["archive"].open(archive.path) as file:
        return file.read()


def clusters_of(owner: User, team: Team | None = None) -> QuerySet[Environment]:
    """The owner's clusters that are up or coming up, for the notebooks that will connect to them."""
    query = Environment.objects.filter(owner=owner, kind=Template.Kind.CLUSTER, desired=Desired.RUNNING, state__in=[State.PROVISIONING, State.RUNNING])
    if team is not None:
        query = query.filter(team=team)
    return query.select_related("team", "owner", "template", "flavor__accelerator").order_by("name")


# --- for the workers (no user, no visibility) ---------------------------------
def environments_due(now: datetime, limit: int) -> list[UUID]:
    """Environments to look at: their check is due and nobody holds their lease. Most overdue first."""
    free = Q(lease_until=None) | Q(lease_until__lte=now)
    query = Environment.objects.filter(free, next_check_at__lte=now).exclude(state=State.DELETED)
    return list(query.order_by("next_check_at").values_list("pk", flat=True)[:limit])


def environments_expired(now: datetime) -> list[UUID]:
    """Environments that are wanted but past their expiry."""
    query = Environment.objects.filter(desired=Desired.RUNNING, expires_at__lte=now).exclude(state__in=[State.FAILED, State.DELETED])
    return list(query.values_list("pk", flat=True))


def volumes_to_purge(team: Team | None = None) -> QuerySet[Volume]:
    """Volumes somebody asked to purge and no environment uses; `services.volume_forget` when the claim is gone."""
    live = Environment.objects.exclude(state=State.DELETED).filter(volume__isnull=False).values("volume")
    query = Volume.objects.exclude(purge_requested_at=None).exclude(pk__in=live).select_related("team", "owner")
    return query if team is None else query.filter(team=team)


# --- teams, quota, volumes ----------------------------------------------------
def teams_led_by(user: User) -> QuerySet[Team]:
    """Teams of which `user` is a lead."""
    return Team.objects.filter(memberships__user=user, memberships__role=Membership.Role.LEAD)


def leads_of(team: Team) -> QuerySet[User]:
    """Active leads of the team."""
    return User.objects.filter(memberships__team=team, memberships__role=Membership.Role.LEAD, is_active=True).order_by("username")


def platform_admins() -> QuerySet[User]:
    """Active platform admins."""
    return User.objects.filter(is_staff=True, is_active=True).order_by("username")


def quota_rows(user: User) -> QuerySet[Quota]:
    """Quota of the user's teams: the team's rows, the user's own, and for leads and admins every member's."""
    if not user.is_active:
        return Quota.objects.none()
    query = Quota.objects.select_related("team", "user").order_by("team__slug", "user__username", "resource")
    if user.is_staff:
        return query
    mine = Q(team__memberships__user=user) & (Q(user=None) | Q(user=user))
    return query.filter(mine | Q(team__in=teams_led_by(user))).distinct()


def volumes_visible_to(user: User) -> QuerySet[Volume]:
    """Home volumes, in use or kept."""
    query = Volume.objects.select_related("team", "owner")
    if not user.is_active:
        return query.none()
    return query if user.is_staff else query.filter(Q(owner=user) | Q(team__in=teams_led_by(user)))


# --- catalogue and capacity ---------------------------------------------------
def templates_enabled() -> QuerySet[Template]:
    """What can be asked for now."""
    return Template.objects.filter(enabled=True)


def need_of(shape: Flavor | RoleShape, accelerator: Accelerator | None) -> Need:
    """What one replica asks of a node."""
    resources = {"cpu": shape.cpu_millis, "memory": shape.memory_bytes}
    selector, tolerations = dict(settings.NODE_SELECTOR), ()
    if accelerator is not None and shape.accelerator_count:
        resources[accelerator.resource_key] = shape.accelerator_count
        selector |= accelerator.node_selector
        tolerations = tuple(accelerator.tolerations)
    return Need(resources=resources, node_selector=selector, tolerations=tolerations)


def _headroom(user: User, flavor: Flavor) -> int | None:
    """Replicas of the flavor that the user's quota still allows in his best team; None: no limit."""
    amounts = {"cpu": flavor.cpu_millis, "memory": flavor.memory_bytes}
    if flavor.accelerator and flavor.accelerator_count:
        amounts[accelerator_resource(flavor.accelerator.slug)] = flavor.accelerator_count
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
    nodes, result = list(Node.objects.all()), []
    for flavor in Flavor.objects.filter(enabled=True).select_related("accelerator"):
        if flavor.accelerator and not flavor.accelerator.enabled:
            continue
        capacity = capacity_for(nodes, need_of(flavor, flavor.accelerator))
        headroom = _headroom(user, flavor) if user is not None else None
        starts = capacity.free if headroom is None else min(capacity.free, headroom)
        result.append(FlavorCapacity(flavor=flavor, capacity=capacity, starts_now=starts))
    return result


def accelerators_with_capacity() -> Sequence[AcceleratorCapacity]:
    """Enabled accelerators with their devices on the nodes their selector names."""
    nodes, result = list(Node.objects.all()), []
    for accelerator in Accelerator.objects.filter(enabled=True):
        selector = dict(settings.NODE_SELECTOR) | accelerator.node_selector
        key = accelerator.resource_key
        mine = [n for n in nodes if n.allocatable.get(key, 0) and all(n.labels.get(label) == value for label, value in selector.items())]
        total, used = sum(n.allocatable[key] for n in mine), sum(n.used.get(key, 0) for n in mine)
        free = sum(max(0, n.allocatable[key] - n.used.get(key, 0)) for n in mine if n.ready)
        simulated = bool(mine) and all(n.simulated for n in mine)
        result.append(AcceleratorCapacity(accelerator=accelerator, known=bool(nodes), total=total, in_use=used, free=free, simulated=simulated))
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
    nodes = list(Node.objects.all())
    if not nodes:
        return None
    chips = {a.slug: a for a in Accelerator.objects.filter(slug__in=[s.accelerator for s in shapes if s.accelerator])}
    return all(capacity_for(nodes, need_of(shape, chips.get(shape.accelerator))).free >= shape.replicas for shape in shapes)
