"""What converging sees of one environment in the cluster and at the Hub. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from k8s import cluster as api
from k8s import manifests, names, queues
from k8s.spec import EnvironmentSpec
from k8s.status import Seen, Server
from portal.domain.lifecycle import State

from . import credentials, operators
from .context import Context, selector

Object = dict[str, Any]

_OVERDUE = timedelta(seconds=10)  # after a pod's grace time; a node that lives has reported its end by then
_SETTLING = timedelta(seconds=30)  # a pod this young is not ready yet for better reasons than a lost node
_WAITS = frozenset({"Unschedulable", "SchedulingGated"})


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is there; whether the objects differ from the spec, and which of them (kind and name) are not there at all."""

    seen: Seen
    stale: bool
    missing: tuple[str, ...] = ()

    @property
    def leaving(self) -> bool:
        """Whether a pod is being deleted and not gone yet."""
        return any(pod["metadata"].get("deletionTimestamp") for pod in self.seen.pods)


def look(context: Context, spec: EnvironmentSpec) -> Look:
    """List what tells how the environment is. Raises `k8s.errors`, `HubError`."""
    label = selector(spec.id)
    kinds = [(api.PODS, spec.namespace, label, "")]
    own = manifests.own_roles(spec)
    steady, once = [role for role in own if not role.once], [role for role in own if role.once]
    if not context.is_notebook:
        kinds.append((api.STATEFUL_SETS, spec.namespace, label, ""))
    if once:
        kinds.append((api.JOBS, spec.namespace, label, ""))
    pods, *rest = context.cluster.gather(kinds)
    sets, jobs = rest[0] if rest else [], rest[1] if once else []
    maps = {item["metadata"]["name"]: item for item in context.cluster.find_at(api.CONFIG_MAPS, spec.namespace, labels=label, metadata_only=True)[0]}
    parent = maps.get(spec.base_name)
    server = _server(context, spec) if context.is_notebook else None
    claim = context.cluster.get(api.CLAIMS, spec.home.claim, spec.namespace) if spec.home else None
    custom = operators.object_of(context.cluster, spec)
    events: list[Object] = []
    if not all(_is_well(pod) for pod in pods) or len(pods) < sum(role.replicas for role in spec.roles):
        # Events have no labels; those of other environments are passed over by their object's uid.
        events = context.cluster.find(api.EVENTS, spec.namespace, fields="type=Warning")
    lost = lost_nodes(context, [pod for pod in pods if not _is_well(pod) and (context.environment.started_at or _is_overdue(pod, "creation", _SETTLING))])
    seen = Seen(pods=pods, sets=sets, jobs=jobs, custom=custom, events=events, claim=claim, server=server, lost_nodes=lost)
    there = {(item["kind"], item["metadata"]["name"]) for item in (*sets, *jobs) if not item["metadata"].get("deletionTimestamp")}
    missing = [f"ConfigMap {spec.base_name}"] if parent is None or parent["metadata"].get("deletionTimestamp") else []
    if not context.is_notebook:
        runners = [("StatefulSet", role) for role in steady] + [("Job", role) for role in once]
        missing += [f"{kind} {name}" for kind, role in runners if (kind, name := names.role_name(spec.base_name, role.name)) not in there]
    if spec.operator and (custom is None or custom["metadata"].get("deletionTimestamp")):
        missing.append(f"{spec.operator.kind} {spec.base_name}")
    missing += [f"ConfigMap {name}" for role in spec.roles if role.files and (name := names.role_name(spec.base_name, role.name)) not in maps]
    if spec.secrets:
        secrets = credentials.there(context.cluster, spec)
        missing += [f"Secret {name}" for secret in spec.secrets if (name := names.secret_name(spec.base_name, secret)) not in secrets]
    if spec.home and claim is None:
        missing.append(f"PersistentVolumeClaim {spec.home.claim}")
    return Look(seen=seen, stale=bool(missing) or _is_stale(context, spec, parent, [*sets, *([custom] if custom else [])]), missing=tuple(missing))


def held_outside(context: Context, seen: Seen) -> bool:
    """Whether a queue of the cluster still holds the environment's pods back."""
    system = context.environment.placement.get("queue", "")
    return system in queues.SYSTEMS and queues.is_held(system, seen.pods, context.spec)


def lost_nodes(context: Context, pods: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Nodes of `pods` that are not ready or are gone, by a live look at each."""
    lost = set()
    for name in {pod["spec"].get("nodeName", "") for pod in pods} - {""}:
        node = context.cluster.get(api.NODES, name)
        if node is None or not _is_ready(node):
            lost.add(name)
    return frozenset(lost)


def stuck(pods: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Pods that should have been gone for a while: their node did not confirm it."""
    return [pod for pod in pods if pod["kind"] == "Pod" and _is_overdue(pod, "deletion", _OVERDUE)]


def _is_overdue(item: Mapping[str, Any], stamp: str, by: timedelta) -> bool:
    when = item["metadata"].get(f"{stamp}Timestamp")
    return bool(when) and timezone.now() - datetime.fromisoformat(when) > by


def _is_well(pod: Object) -> bool:
    """Whether there is nothing to look for: it is ready, or has done its work."""
    return _is_ready(pod) or pod.get("status", {}).get("phase") == "Succeeded"


def _is_ready(pod: Object) -> bool:
    return any(item["type"] == "Ready" and item["status"] == "True" for item in pod.get("status", {}).get("conditions", ()))


def _is_stale(context: Context, spec: EnvironmentSpec, parent: Object | None, there: list[Object]) -> bool:
    if parent is None or parent["metadata"].get("deletionTimestamp"):
        return True
    if context.is_notebook:
        return False  # its pod is made once, by the Hub; what is asked for later holds from the next start
    owner = manifests.owner_reference(parent)
    present = {item["metadata"]["name"]: item for item in there}
    wanted = [manifests.role_set(spec, role, owner) for role in manifests.own_roles(spec) if not role.once]  # of a Job nothing can be changed
    wanted += [manifests.operator_object(spec, owner)] if spec.operator else []
    return any((found := present.get(each["metadata"]["name"])) is None or not api.is_current(found, manifests.sealed(each)) for each in wanted)


def _server(context: Context, spec: EnvironmentSpec) -> Server | None:
    server = context.hub.server_get(context.owner, spec.base_name)
    if server is None or server.active or context.environment.state != State.PROVISIONING:
        return server
    if context.environment.reason in _WAITS:
        # The Hub gives a start up after some minutes. One that only waited for room is started again.
        return server
    return Server(url=server.url, failure=context.hub.failure(context.owner, spec.base_name))
