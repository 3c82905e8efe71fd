"""What converging does to the cluster and the Hub for one environment. Every function may be repeated; none opens a transaction around a request."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.conf import settings

from k8s import cluster as api
from k8s import errors, manifests, names
from k8s.cluster import Cluster
from k8s.spec import EnvironmentSpec
from k8s.status import Seen, Server
from portal.domain import services
from portal.domain.lifecycle import State
from portal.domain.models import Event

from . import credentials, operators, storages, teams
from . import queues as handed
from .context import Context
from .hub import HubUnreachable
from .looking import lost_nodes, stuck
from .specs import environment_spec

logger = logging.getLogger(__name__)

Object = dict[str, Any]

ARCHIVE_SECONDS = 15.0  # for all logs of an environment together
_SERVER_GONE_SECONDS = 3.0


# --- the queue, and nodes that are lost ----------------------------------------


def tell_queue(context: Context, seen: Seen) -> None:
    """Pass on what the cluster's queue says of one that waits in it."""
    services.queue_told(context.environment.pk, handed.told(context.cluster, context.spec, [dict(pod) for pod in seen.pods]))


def admit(context: Context) -> bool:
    """Ask the queue, the portal's own or the cluster's, to let the environment go; whether it does."""
    system = handed.system_of(context.cluster)
    return services.queue_hand_over(context.environment.pk, system) if system else services.queue_admit(context.environment.pk)


def release(context: Context, pods: Iterable[Mapping[str, Any]]) -> int:
    """Delete at once what a lost node will never confirm, else no other pod may take its name; how many. Of a living node's pods none."""
    waiting = stuck(pods)
    lost = lost_nodes(context, waiting)
    released = 0
    for pod in waiting:
        node, name = pod["spec"].get("nodeName", ""), pod["metadata"]["name"]
        if node and node not in lost:
            continue
        if any(owner["kind"] == "Job" for owner in pod["metadata"].get("ownerReferences", ())):
            context.cluster.disrupt(pod, f"node {node} no longer answers")
        if context.cluster.delete(pod, grace_seconds=0):
            released += 1
            message = f"{name} was on node {node}, which no longer answers. It is given up there." if node else f"{name} ended without a node. It is given up."
            services.event_record(context.environment.id, "warning", "NodeLost", message, source=f"released:{pod['metadata']['uid']}")
    return released


# --- making --------------------------------------------------------------------


def make(context: Context) -> None:
    """Make or mend the environment's objects and start its server. Raises `k8s.errors`, `HubError`, `TemplateError`."""
    try:
        _make(context)
    except errors.Gone:
        # The namespace was believed to be there: somebody removed it.
        teams.forget()
        _make(context)


def _make(context: Context) -> None:
    if context.is_notebook:
        _make_notebook(context)
        return
    environment, cluster = context.environment, context.cluster
    operators.settle(cluster, environment)
    spec = environment_spec(environment)
    team = teams.team_ensure(cluster, environment.team)
    owner = manifests.owner_reference(cluster.apply(manifests.parent(spec)))
    policies = teams.owner_policy_pending(cluster, team, environment.owner)
    storages.ensure(cluster, environment)
    handed.prepare(cluster, spec)
    cluster.apply_all([*policies, *manifests.support_documents(spec, owner)])
    credentials.ensure(cluster, spec, owner)
    cluster.apply_all(manifests.role_documents(spec, owner))
    teams.remember(cluster, policies)


def _make_notebook(context: Context) -> None:
    """Somebody is waiting at the page, so what does not depend on each other goes side by side."""
    environment, cluster = context.environment, context.cluster
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="hub") as pool:
        user = pool.submit(context.hub.user_ensure, context.owner)
        spec = environment_spec(environment, connect_env=teams.connect_env(environment.owner))
        team = teams.team_ensure(cluster, environment.team)
        policies = teams.owner_policy_pending(cluster, team, environment.owner)
        documents = [*policies, teams.clusters_config(team, environment.owner)]
        if spec.home:
            _tell_of_lost_home(context, spec)
            documents.append(manifests.home_claim(spec))
        storages.ensure(cluster, environment)
        handed.prepare(cluster, spec)
        parent, *_ = cluster.apply_all([manifests.parent(spec), *documents])
        teams.remember(cluster, policies)
        user.result()
    owner = manifests.owner_reference(parent)
    cluster.apply_all(manifests.support_documents(spec, owner))
    credentials.ensure(cluster, spec, owner)
    order = {"environment": spec.id, "namespace": spec.namespace, "pod": manifests.notebook_pod(spec, owner)}
    context.hub.server_start(context.owner, spec.base_name, order)


def _tell_of_lost_home(context: Context, spec: EnvironmentSpec) -> None:
    """Say so when a home volume that was in use is not there any more: what is made in its place is empty."""
    volume = context.environment.volume
    if volume is None or spec.home is None or not was_made(volume=volume):
        return
    if context.cluster.get(api.CLAIMS, spec.home.claim, spec.namespace) is None:
        message = f"The home volume {spec.home.claim} is gone from the cluster, so a new, empty one is made. Ask an admin whether it can be restored."
        last = Event.objects.filter(environment=context.environment, kind=Event.Kind.STATE).order_by("-seq").values_list("seq", flat=True).first()
        services.event_record(context.environment.id, "warning", "HomeLost", message, source=f"home-lost:{last}")


def was_made(**of: Any) -> bool:
    """Whether anything was ever made for an environment (`pk`), or for any with a volume (`volume`): by its history."""
    made = (State.PROVISIONING, State.RUNNING, State.FAILED, State.STOPPED)
    match = {f"environment__{key}": value for key, value in of.items()}
    return Event.objects.filter(kind=Event.Kind.STATE, to_state__in=made, **match).exists()


def clean(context: Context) -> bool:
    """Remove what an earlier run left: objects of another parent, pods that have ended. True when none was there."""
    objects = left_objects(context)
    spec = context.spec
    parent = next((item for item in objects if item["kind"] == "ConfigMap" and item["metadata"]["name"] == spec.base_name), None)
    keep = {parent["metadata"]["uid"]} if parent and not parent["metadata"].get("deletionTimestamp") else set()
    ended = [item for item in objects if item["kind"] == "Pod" and item.get("status", {}).get("phase") in ("Failed", "Succeeded")]
    if context.is_notebook:  # a StatefulSet replaces its own
        archive(context, ended)
    old = [item for item in objects if not _belongs(item, keep) or item in ended]
    _remove(context.cluster, old)
    release(context, old)
    return not old and (not context.is_notebook or _server_ended(context, objects))


def _server_ended(context: Context, objects: Iterable[Object]) -> bool:
    """Whether no server is being stopped. One without a pod is stopped: the Hub looks by itself every few seconds only."""
    server = _stopped_server(context)
    if server is not None and server.ready and not any(item["kind"] == "Pod" for item in objects):
        context.hub.server_stop(context.owner, context.spec.base_name)
        server = _stopped_server(context)
    return server is None or server.pending != "stop"


def _belongs(item: Object, keep: set[str]) -> bool:
    metadata = item["metadata"]
    if metadata.get("deletionTimestamp"):
        return False
    owners = {reference["uid"] for reference in metadata.get("ownerReferences", ())}
    # Pods of a StatefulSet or Job belong to it, and go with it.
    return metadata["uid"] in keep or bool(owners & keep) or (item["kind"] == "Pod" and names.ROLE in metadata.get("labels", {}) and bool(keep))


# --- unmaking ------------------------------------------------------------------


def left_objects(context: Context) -> list[Object]:
    """Everything in the cluster that bears the environment's label."""
    found = context.cluster.list_labelled(names.namespace(context.environment.team.slug), {names.ENVIRONMENT: str(context.environment.id)})
    return [*found, *operators.left(context.cluster, context.environment)]


def is_empty(context: Context) -> bool:
    """True when nothing with the environment's label is left, nor a server at the Hub."""
    if left_objects(context):
        return False
    return not context.is_notebook or _stopped_server(context) is None


def _stopped_server(context: Context) -> Server | None:
    """The server, once it is not just being stopped: the pod is gone a moment before the Hub knows, and nobody would tell of that moment."""
    deadline, pause = time.monotonic() + _SERVER_GONE_SECONDS, 0.05
    while (server := context.hub.server_get(context.owner, context.spec.base_name)) is not None:
        if server.pending != "stop" or time.monotonic() > deadline:
            break
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)
    return server


def tear_down(context: Context) -> None:
    """Archive logs, stop the server, delete every object. Returns before they are gone. The home volume stays.

    With the Hub away the objects are deleted all the same; HubUnreachable is raised at the end.
    """
    objects = left_objects(context)
    archive(context, [item for item in objects if item["kind"] == "Pod"])
    hub_error: HubUnreachable | None = None
    if context.is_notebook:
        try:
            server = context.hub.server_get(context.owner, context.spec.base_name)
            if server is not None and server.pending != "stop":
                context.hub.server_stop(context.owner, context.spec.base_name)
        except HubUnreachable as error:
            hub_error = error
    _remove(context.cluster, objects)
    release(context, objects)
    if not context.is_notebook:
        teams.clusters_announce(context.cluster, context.environment.owner)
    if hub_error:
        raise hub_error


def _remove(cluster: Cluster, objects: Iterable[Object]) -> None:
    """Delete what is not being deleted yet: controllers before pods, or they would make new ones."""
    live = [item for item in objects if not item["metadata"].get("deletionTimestamp")]
    for item in sorted(live, key=lambda item: (item["kind"] == "Pod", item["kind"] not in ("StatefulSet", "Job"))):
        cluster.delete(item)


def archive(context: Context, pods: Iterable[Object]) -> None:
    """Keep the end of each container's log, of pods that nobody has deleted yet. What cannot be read in time is given up, with a note in the log."""
    wanted = [
        (pod, container["name"])
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
        for container in pod.get("status", {}).get("containerStatuses", ())
        if "waiting" not in container.get("state", {}) or container.get("restartCount", 0)
    ]
    if not wanted:
        return
    deadline = time.monotonic() + ARCHIVE_SECONDS
    with ThreadPoolExecutor(max_workers=6, thread_name_prefix="archive") as pool:
        logs = list(pool.map(lambda item: _read(context.cluster, item[0], item[1], deadline), wanted))
    for (pod, container), log in zip(wanted, logs, strict=True):
        if log is not None:
            role = pod["metadata"].get("labels", {}).get(names.ROLE, "")
            services.archive_store(context.environment.id, pod["metadata"]["name"], role, container, log[0], log[1])


def _read(cluster: Cluster, pod: Object, container: str, deadline: float) -> tuple[bytes, bool] | None:
    metadata, limit = pod["metadata"], settings.LOG_ARCHIVE_BYTES
    for previous in (False, True):
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            logger.warning("log not archived for want of time: pod=%s container=%s", metadata["name"], container)
            return None
        with contextlib.suppress(errors.Rejected, errors.Gone):  # a container that has not started has no log
            data, cut = cluster.read_log(metadata["namespace"], metadata["name"], container, max_bytes=limit, previous=previous, seconds=seconds)
            if data:
                return data, cut
    return None


def forget_volume(context: Context, *, untouched: bool = False) -> bool:
    """Delete the claim of a home volume that is to be purged with its environment. True when it is gone, or stays.

    `untouched`: nothing was made of the environment, so there is a claim only if an earlier one had the volume.
    """
    environment = context.environment
    if not environment.purge or environment.volume is None or (untouched and not was_made(volume=environment.volume)):
        return True
    return claim_gone(context.cluster, names.namespace(environment.team.slug), environment.volume.claim)


def claim_gone(cluster: Cluster, namespace: str, claim: str) -> bool:
    """Delete a claim; True when it is gone. A claim of someone else is left alone, and counts as gone."""
    found = cluster.get(api.CLAIMS, claim, namespace)
    if found is None or found["metadata"].get("labels", {}).get(names.INSTALL) != settings.INSTALL_ID:
        return True
    if not found["metadata"].get("deletionTimestamp"):
        cluster.delete(found)
        return cluster.get(api.CLAIMS, claim, namespace) is None
    return False
