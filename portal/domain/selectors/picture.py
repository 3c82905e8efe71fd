"""What the queue looks at: nodes, who holds room on them, who waits for some. Rows in, plain data out; no visibility."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Q, QuerySet

from ..capacity import Need, NodeLike
from ..durations import parse_duration
from ..lifecycle import Desired, State
from ..models import Accelerator, Environment, Network, Node, Priority, Usage
from ..quantities import CPU, MEMORY, accelerator_resource
from ..queueing import Admitted, Held, Pods, Topology, Waiting, with_promises
from ..shape import FlavorShape, RoleShape, role_shapes

_HISTORY = timedelta(days=30)
_HISTORY_ROWS = 1000
_SHORT = timedelta(minutes=1)  # what ended sooner never really began
HELD_BACK = timedelta(seconds=30)  # one that came back for want of room is not tried again sooner, unless the nodes have changed


def need_of(shape: FlavorShape | RoleShape, accelerator: Accelerator | None) -> Need:
    """What one replica asks of a node."""
    resources = {"cpu": shape.cpu_millis, "memory": shape.memory_bytes}
    soft, count_key = set(), ""
    selector, tolerations = dict(settings.NODE_SELECTOR), ()
    if shape.ephemeral_bytes:
        resources["ephemeral-storage"] = shape.ephemeral_bytes
        soft.add("ephemeral-storage")
    if accelerator is not None and shape.accelerator_count:
        resources |= accelerator.amounts(shape.accelerator_count)
        count_key = accelerator.device_key
        soft |= set(accelerator.resources)
        selector |= accelerator.node_selector
        tolerations = tuple(accelerator.tolerations)
    if shape.network_key:
        resources[shape.network_key] = shape.network_count
    return Need(resources=resources, count_key=count_key, soft=frozenset(soft), node_selector=selector, tolerations=tolerations)


def shapes_of(environment: Environment) -> tuple[RoleShape, ...]:
    """The roles of an environment and what each replica takes."""
    workers = environment.workers if environment.kind == "cluster" else None
    return role_shapes(environment.template_spec, environment.params, environment.flavor.shape(), workers)


def is_gang(template_spec: Mapping[str, Any]) -> bool:
    """Whether all replicas start together or none; without it each pod is placed by itself."""
    return bool((template_spec.get("scheduling") or {}).get("gang", True))


class Needs:
    """`need_of`, worked out once for replicas that are alike."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Need] = {}

    def pods_of(self, shapes: Iterable[RoleShape], chips: Mapping[str, Accelerator], *, gang: bool = True) -> tuple[Pods, ...]:
        """The pods for which there has to be room: all of each role, or without `gang` the first of each, since the others come as room does."""
        return tuple(
            Pods(role=shape.name, count=shape.replicas if gang else min(1, shape.replicas), need=self._need(shape, chips.get(shape.accelerator)))
            for shape in shapes
        )

    def of(self, environment: Environment) -> tuple[Pods, ...]:
        chip = environment.flavor.accelerator
        return self.pods_of(shapes_of(environment), {chip.slug: chip} if chip else {}, gang=is_gang(environment.template_spec))

    def _need(self, shape: RoleShape, chip: Accelerator | None) -> Need:
        devices = (shape.accelerator_count, chip.pk if chip else 0, shape.network_key, shape.network_count)
        key = (shape.cpu_millis, shape.memory_bytes, shape.ephemeral_bytes, *devices)
        if key not in self._known:
            self._known[key] = need_of(shape, chip)
        return self._known[key]


# --- who holds room ---------------------------------------------------------------

_COLUMNS = (
    *("pk", "state", "desired", "team_id", "template_id", "priority_value", "reserved", "placement", "preempt_at", "preempted_for"),
    *("admitted_at", "started_at", "created_at", "expires_at", "expires_in"),
)


def admitted_now(nodes: Sequence[Node], now: datetime, needs: Needs | None = None) -> list[Admitted]:
    """Environments that have been let go and still hold room, with their part of the nodes and the pods that no node shows yet."""
    needs = needs or Needs()
    holding = Q(state=State.QUEUED, admitted_at__isnull=False) | Q(state__in=[State.PROVISIONING, State.RUNNING, State.STOPPING, State.DELETING])
    rows = list(Environment.objects.filter(holding).order_by().values(*_COLUMNS, "template_spec__scheduling"))
    seen: dict[str, dict[str, Mapping[str, Any]]] = {}
    for node in nodes:
        for key, part in node.environments.items():
            seen.setdefault(key, {})[node.name] = part
    incomplete = [row["pk"] for row in rows if _may_lack_pods(row, seen.get(str(row["pk"]), {}))]
    shaped = {}
    if incomplete:
        query = Environment.objects.filter(pk__in=incomplete).select_related("flavor__accelerator", "flavor__network").order_by()
        shaped = {each.pk: needs.of(each) for each in query.only("kind", "template_spec", "params", "workers", "flavor")}
    return [_admitted(row, seen.get(str(row["pk"]), {}), shaped.get(row["pk"], ()), now) for row in rows]


def _may_lack_pods(row: Mapping[str, Any], seen: Mapping[str, Mapping[str, Any]]) -> bool:
    if row["placement"].get("queue") or row["state"] in (State.STOPPING, State.DELETING) or row["desired"] != Desired.RUNNING:
        return False
    if row["state"] != State.RUNNING:
        return True
    cpu: int = sum(part.get("resources", {}).get("cpu", 0) for part in seen.values())
    return cpu < row["reserved"].get(CPU, 0)


def _admitted(row: Mapping[str, Any], seen: Mapping[str, Mapping[str, Any]], pods: Sequence[Pods], now: datetime) -> Admitted:
    # Between admission and provisioning, pods with its name are still those of an earlier run.
    counts = {} if row["state"] == State.QUEUED else _role_counts(seen)
    coming = tuple(Pods(role=each.role, count=max(0, each.count - counts.get(each.role, 0)), need=each.need) for each in pods)
    granted = None if row["expires_in"] is None else timedelta(seconds=row["expires_in"])
    ends = row["expires_at"] if row["started_at"] else (None if granted is None else now + granted)
    scheduling = row["template_spec__scheduling"] or {}
    return Admitted(
        id=str(row["pk"]),
        team=str(row["team_id"]),
        template=str(row["template_id"]),
        since=row["admitted_at"] or row["started_at"] or row["created_at"],
        priority=row["priority_value"],
        preemptible=bool(scheduling.get("preemptible")),
        granted=granted,
        ends=ends,
        leaving=row["desired"] != Desired.RUNNING or row["state"] in (State.STOPPING, State.DELETING),
        coming=tuple(each for each in coming if each.count),
        seats=row["placement"].get("nodes") or {},
        seen={name: part.get("resources", {}) for name, part in seen.items()},
        seen_pods={name: part.get("roles", {}) for name, part in seen.items()},
        elsewhere=bool(row["placement"].get("queue")),
        preempt_at=row["preempt_at"],
        preempted_for=str(row["preempted_for"] or ""),
    )


def _role_counts(seen: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for part in seen.values():
        for role, count in part.get("roles", {}).items():
            counts[role] = counts.get(role, 0) + count
    return counts


def nodes_with_promises(now: datetime) -> list[NodeLike]:
    """The nodes, what admitted environments will still take counted as used."""
    nodes = list(Node.objects.all())
    return with_promises(nodes, admitted_now(nodes, now)) if nodes else []


def preempt_graces(keys: Iterable[str]) -> dict[str, timedelta]:
    """Grace of those whose template gives one of its own, by environment."""
    rows = Environment.objects.filter(pk__in=[UUID(key) for key in keys]).order_by().values_list("pk", "template_spec__scheduling__preempt_grace")
    return {str(key): parse_duration(grace) for key, grace in rows if grace}


# --- who waits --------------------------------------------------------------------


def waiting_rows() -> QuerySet[Environment]:
    """Environments that wait in the portal's own queue."""
    return Environment.objects.filter(state=State.QUEUED, desired=Desired.RUNNING, admitted_at=None)


def waiting_of(rows: Iterable[Environment], nodes: Sequence[Node], needs: Needs, now: datetime, *, may_preempt: bool = True) -> list[Waiting]:
    """Rows with `flavor__accelerator` as the queue sees them. `may_preempt`: whether it matters who may."""
    preempting = set(Priority.objects.filter(preempts=True).values_list("slug", flat=True)) if may_preempt else set()
    return [_waiting(row, nodes, needs, now, row.priority in preempting) for row in rows]


def _waiting(row: Environment, nodes: Sequence[Node], needs: Needs, now: datetime, preempts: bool) -> Waiting:
    return Waiting(
        id=str(row.pk),
        team=str(row.team_id),
        template=str(row.template_id),
        pods=needs.of(row),
        queued_at=row.queued_at or row.created_at,
        priority=row.priority_value,
        preempts=preempts,
        topology=topology_of(row.template_spec, row.flavor.network),
        granted=None if row.expires_in is None else timedelta(seconds=row.expires_in),
        amounts=row.reserved,
        label=row.flavor.accelerator.slug if row.flavor.accelerator and row.flavor.accelerator_count else row.flavor.slug,
        held_back=_held_back(row, nodes, now),
        promised=bool(row.queue.get("promised")),
    )


def nearness_of(template_spec: Mapping[str, Any], network: Network | None) -> Mapping[str, str]:
    """`level` and `mode` that the template asks for, else its flavor's network; empty: nothing is asked. What a network asks for holds where the
    installation knows the level; elsewhere all of its nodes count as near."""
    topology = (template_spec.get("scheduling") or {}).get("topology")
    if not topology and network is not None and network.topology.get("level") in settings.TOPOLOGY_LABELS:
        topology = network.topology
    return topology or {}


def topology_of(template_spec: Mapping[str, Any], network: Network | None) -> Topology | None:
    """What is asked of the nodes' nearness; the level's label is this installation's (`TOPOLOGY_LABELS`)."""
    topology = nearness_of(template_spec, network)
    if not topology:
        return None
    return Topology(level=topology["level"], key=settings.TOPOLOGY_LABELS.get(topology["level"], ""), required=topology["mode"] == "required")


def _held_back(row: Environment, nodes: Sequence[Node], now: datetime) -> str:
    returned = row.placement.get("returned")
    if not returned or now - datetime.fromisoformat(returned["at"]) >= HELD_BACK or returned["nodes"] != nodes_digest(nodes, str(row.pk)):
        return ""
    return str(returned["message"])


def nodes_digest(nodes: Sequence[Node], without: str) -> str:
    """Changes when what others leave free on the nodes changes; `without`: the environment that asks."""
    parts = []
    for node in sorted(nodes, key=lambda node: node.name):
        mine = node.environments.get(without, {}).get("resources", {})
        used = {key: amount - mine.get(key, 0) for key, amount in node.used.items()}
        parts.append([node.name, node.ready, node.labels, node.taints, node.allocatable, {key: amount for key, amount in used.items() if amount}])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


# --- what was used ----------------------------------------------------------------


def cluster_totals(nodes: Sequence[Node]) -> dict[str, int]:
    """Quota resource -> what all nodes have of it."""
    totals = {CPU: sum(node.allocatable.get("cpu", 0) for node in nodes), MEMORY: sum(node.allocatable.get("memory", 0) for node in nodes)}
    for chip in Accelerator.objects.all():
        selector = dict(settings.NODE_SELECTOR) | chip.node_selector
        mine = [node for node in nodes if all(node.labels.get(key) == value for key, value in selector.items())]
        totals[accelerator_resource(chip.slug)] = sum(node.allocatable.get(chip.device_key, 0) for node in mine)
    return totals


def use_within(now: datetime, window: timedelta) -> list[Held]:
    """What teams held within the window that ends now, and for how long those that run may go on."""
    rows = Usage.objects.filter(Q(ended_at=None) | Q(ended_at__gt=now - window)).order_by()
    held = []
    for team, resource, amount, started, ended, granted in rows.values_list("team_id", "resource", "amount", "started_at", "ended_at", "granted_seconds"):
        ends = ended or (None if granted is None else max(now, started + timedelta(seconds=granted)))
        held.append(Held(team=str(team), resource=resource, amount=amount, started=started, ends=ends))
    return held


def early_ends(now: datetime) -> list[tuple[str, str, float]]:
    """(template, team, part of the granted time that was used) of environments that ended within the last 30 days, the latest 1,000."""
    rows = (
        Usage.objects.filter(resource=CPU, ended_at__gt=now - _HISTORY, granted_seconds__gt=0)
        .order_by("-ended_at")
        .values_list("environment_id", "environment__template_id", "team_id", "started_at", "ended_at", "granted_seconds")[:_HISTORY_ROWS]
    )
    # An environment that was scaled has several rows, each beginning when the one before ended.
    runs: dict[tuple[UUID, datetime], tuple[int, int, datetime, datetime, int]] = {}
    for key, template, team, started, ended, granted in rows:
        if ended is None or granted is None:
            continue
        later = runs.pop((key, ended), None)
        runs[key, started] = (template, team, started, later[3] if later else ended, granted)
    open_since = set(Usage.objects.filter(resource=CPU, ended_at=None).order_by().values_list("environment_id", "started_at"))
    result = []
    for (key, _), (template, team, started, ended, granted) in runs.items():
        if (key, ended) not in open_since and ended - started >= _SHORT:
            result.append((str(template), str(team), min(1.0, (ended - started).total_seconds() / granted)))
    return result
