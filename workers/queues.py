"""Handing the waiting over to Kueue or Volcano where the cluster has one of them, and telling what they say."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from django.conf import settings

from k8s import cluster as api
from k8s import errors, queues
from k8s.cluster import Cluster
from k8s.spec import EnvironmentSpec, QueueOrder
from portal.domain import selectors
from portal.domain.models import Environment, Priority

from . import served

logger = logging.getLogger(__name__)

Object = dict[str, Any]

# Priority classes that this process made.
_classes: set[tuple[str, str, int]] = set()


def system_of(cluster: Cluster) -> str:
    """`kueue`, `volcano` or empty (the portal's own queue): the setting, or with `auto` what the cluster serves. Raises `k8s.errors`."""
    if settings.QUEUE_SYSTEM != "auto":
        return "" if settings.QUEUE_SYSTEM == "builtin" else str(settings.QUEUE_SYSTEM)
    there = served.groups(cluster)
    return next((name for name in queues.SYSTEMS if queues.GROUPS[name] in there), "")


def order_of(environment: Environment) -> QueueOrder | None:
    """What the queue that was chosen for an environment at its admission has to know; None for the portal's own."""
    system = environment.placement.get("queue", "")
    if system not in queues.SYSTEMS:
        return None
    scheduling = environment.template_spec.get("scheduling") or {}
    topology = selectors.nearness_of(environment.template_spec, environment.flavor.network)
    usual = settings.KUEUE_LOCAL_QUEUE if system == queues.KUEUE else settings.VOLCANO_QUEUE
    return QueueOrder(
        system=system,
        queue=scheduling.get("queue") or usual,
        priority=environment.priority if Priority.objects.filter(slug=environment.priority).exists() else "",
        topology_label=settings.TOPOLOGY_LABELS.get(topology.get("level", ""), ""),
        topology_required=topology.get("mode") == "required",
    )


def prepare(cluster: Cluster, spec: EnvironmentSpec) -> None:
    """Make the priority class that the environment's pods are going to name. Raises `k8s.errors`."""
    if spec.queue is None or not spec.queue.priority:
        return
    priority = Priority.objects.get(slug=spec.queue.priority)
    key = (f"{cluster.kubeconfig}/{spec.queue.system}", priority.slug, priority.value)
    if key in _classes:
        return
    document = queues.priority_class(spec.queue.system, spec.install, priority.slug, priority.value)
    kind = api.kind_of(document)
    found = cluster.get(kind, document["metadata"]["name"])
    if found is not None and found.get("value") != priority.value:
        cluster.delete(found)  # the value of a class cannot be changed
    cluster.apply(document)
    _classes.add(key)


def told(cluster: Cluster, spec: EnvironmentSpec, pods: Sequence[Object]) -> dict[str, Any]:
    """`Environment.queue` in the words of the queue that holds it. What cannot be read is left out; raises nothing but `Unreachable`."""
    order = spec.queue
    if order is None:
        raise ValueError(f"environment {spec.id} waits in no other system's queue")
    if order.system == queues.VOLCANO:
        return queues.told_by_volcano(order.queue, _optional(lambda: cluster.get(api.POD_GROUPS, spec.base_name, spec.namespace)))
    workloads = _optional(lambda: cluster.find(api.WORKLOADS, spec.namespace)) or []
    pending = _optional(lambda: cluster.read(queues.pending_path(spec.namespace, order.queue))) or {}
    return queues.told_by_kueue(order.queue, queues.workload_of(spec, workloads, pods), pending.get("items") or [])


def _optional(read: Any) -> Any:
    """What `read` gives, or None where the cluster does not serve it or does not let us: the visibility API is an add-on."""
    try:
        return read()
    except errors.Unreachable:
        raise
    except errors.ClusterError as error:
        logger.info("not told by the queue: error=%s", error)
        return None
