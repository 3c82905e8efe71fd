"""Celery tasks: thin. Each names its environment or subject in every log line and leaves the work to its module."""

from __future__ import annotations

import logging
import threading
from typing import Any

import structlog
from celery import Task
from celery.signals import task_postrun, task_prerun, worker_process_init
from django.conf import settings

from k8s import cluster as api
from k8s import errors
from k8s.cluster import Cluster
from portal.celery import app
from portal.domain import outbound, services
from portal.domain.models import Team

from . import autoscale, housekeeping, hub, idleness, queues, storages, teams
from . import clock as _clock  # noqa: F401 - its signals start a clock in each worker
from .converge import converge as converge_environment

logger = logging.getLogger(__name__)

_SWEEP_LIMIT = 200  # environments per sweep; the most overdue first, so nobody starves
_QUEUE_LIMIT = 400  # messages in the queue from which on sweeps add no more: workers that cannot keep up must not drown in old news


# A line for each task that came and went would be most of the log; what tasks do, they say themselves.
for _name in ("celery.app.trace", "celery.worker.strategy"):
    logging.getLogger(_name).setLevel(logging.WARNING)


@worker_process_init.connect(weak=False)
def _warm_up(**_: Any) -> None:
    """Connect before the first request is waiting for it. Nobody waits for it, and failing is fine: the first task connects then. A process
    of the pool takes no work, and hears of no stop, before this returns, and a cluster may be silent for long."""
    hub.connect()
    threading.Thread(target=_look, args=(api.connect(settings.KUBECONFIG_PATH),), name="warm-up", daemon=True).start()


def _look(cluster: Cluster) -> None:
    try:
        cluster.get(api.NAMESPACES, "default")
    except errors.ClusterError as error:
        logger.info("not connected yet: error=%s", error)


@task_prerun.connect(weak=False)
def _bind(task_id: str = "", task: Task | None = None, args: tuple[Any, ...] = (), **_: Any) -> None:
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(task=task.name if task else "", task_id=task_id)
    if task is not None and task.name == "workers.converge" and args:
        structlog.contextvars.bind_contextvars(environment=str(args[0]))


@task_postrun.connect(weak=False)
def _unbind(**_: Any) -> None:
    structlog.contextvars.clear_contextvars()


@app.task(name="workers.converge")
def converge(environment_id: str) -> None:
    """Bring one environment towards what is wanted."""
    converge_environment(environment_id)


@app.task(name="workers.sweep")
def sweep() -> None:
    """Nudge what is overdue: losing every message loses nothing."""
    for environment_id in services.environments_claim(min(_SWEEP_LIMIT, _QUEUE_LIMIT - _queued())):
        outbound.nudge(environment_id)


def _queued() -> int:
    """Messages that wait for a worker."""
    with app.connection_for_write() as connection:
        # Declared, not just asked for: a Redis list without messages does not exist.
        return int(connection.default_channel.queue_declare(app.conf.task_default_queue, durable=True, auto_delete=False).message_count)


@app.task(name="workers.queue")
def queue() -> None:
    """Look at the queue: who may start now, and what the others are told. Where the cluster has a queue of its own, that decides."""
    try:
        if queues.system_of(api.connect(settings.KUBECONFIG_PATH)):
            return
    except errors.ClusterError as error:
        logger.warning("queue not looked at, tried again later: error=%s", error)
        return
    services.queue_pass()


@app.task(name="workers.timers")
def timers() -> None:
    """What happens because time passes."""
    for name, count in services.timers_run().items():
        if count:
            logger.info("timer acted: timer=%s environments=%d", name, count)


@app.task(name="workers.idleness")
def idleness_measure() -> None:
    """Sample the use of what runs, and judge it."""
    try:
        idleness.measure(api.connect(settings.KUBECONFIG_PATH), hub.connect())
    except (errors.ClusterError, hub.HubError) as error:
        logger.warning("use not measured, tried again later: error=%s", error)


@app.task(name="workers.autoscale")
def autoscale_measure() -> None:
    """Sample how busy the workers of elastic environments are, and scale them by their rules."""
    try:
        autoscale.measure(api.connect(settings.KUBECONFIG_PATH))
    except errors.ClusterError as error:
        logger.warning("load not measured, tried again later: error=%s", error)


@app.task(name="workers.volumes")
def volumes() -> None:
    """Destroy home volumes that somebody asked to purge."""
    try:
        housekeeping.volumes_purge(api.connect(settings.KUBECONFIG_PATH))
    except errors.ClusterError as error:
        logger.warning("volumes not purged, tried again later: error=%s", error)


@app.task(name="workers.teams")
def all_teams() -> None:
    """Bring every team's namespace in line, whatever was missed."""
    for slug in Team.objects.values_list("slug", flat=True):
        team_sync(slug)


@app.task(name="workers.team_sync")
def team_sync(team_slug: str) -> None:
    """Bring a team's namespace in line: quota, policies, volumes to purge. What fails is tried again by `workers.teams`."""
    team = Team.objects.filter(slug=team_slug).first()
    if team is None:
        return
    cluster = api.connect(settings.KUBECONFIG_PATH)
    try:
        teams.team_ensure(cluster, team, force=True)
        housekeeping.volumes_purge(cluster, team)
        storages.sync(cluster, team)
    except errors.ClusterError as error:
        logger.warning("team namespace not in line, tried again later: team=%s error=%s", team_slug, error)


@app.task(name="workers.revoke_hub_access", bind=True, max_retries=60, retry_backoff=2, retry_backoff_max=60)
def revoke_hub_access(self: Task, username: str) -> None:
    """End every session that a user has at the Hub. Tried for about an hour when the Hub is away."""
    try:
        hub.connect().sessions_end(username)
    except hub.HubUnreachable as error:
        raise self.retry(exc=error, countdown=min(60, 2 ** min(self.request.retries, 6))) from error
