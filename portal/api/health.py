"""For those who watch the portal: is it alive, is it ready, figures for Prometheus."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import redis
from django.conf import settings
from django.db import Error, connection
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from portal.domain.lifecycle import State
from portal.domain.models import Environment, Node

logger = logging.getLogger(__name__)


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """200 while the process answers at all."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when the database answers, else 503. Redis down is told, but the portal works on without it, only less promptly."""
    database, messages = _database(), _redis()
    status = "ready" if database == messages == "ok" else "degraded" if database == "ok" else "unavailable"
    return JsonResponse({"status": status, "checks": {"database": database, "redis": messages}}, status=200 if database == "ok" else 503)


def _database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error as error:
        logger.warning("database not available: %s", type(error).__name__)
        return "unavailable"
    return "ok"


def _redis() -> str:
    hosts = settings.CHANNEL_LAYERS["default"].get("CONFIG", {}).get("hosts")
    if not hosts:
        return "not used"
    try:
        with redis.Redis.from_url(hosts[0], socket_timeout=1, socket_connect_timeout=1) as client:
            client.ping()
    except (redis.RedisError, OSError):
        return "unavailable"
    return "ok"


class _Figures(Collector):
    """Counts read from the database at each scrape, so that every web process tells the same."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        counts = dict(Environment.objects.exclude(state=State.DELETED).values_list("state").annotate(n=Count("pk")).order_by())
        environments = GaugeMetricFamily("atelier_environments", "Environments by state", labels=["state"])
        for state in State:
            if state is not State.DELETED:
                environments.add_metric([state.value], counts.get(state.value, 0))
        yield environments
        failing = Environment.objects.filter(attempts__gt=0).exclude(state=State.DELETED).count()
        yield GaugeMetricFamily("atelier_environments_retrying", "Environments whose last try to converge failed", value=failing)
        nodes = GaugeMetricFamily("atelier_nodes", "Nodes as last observed", labels=["ready"])
        ready = Node.objects.filter(ready=True).count()
        nodes.add_metric(["true"], ready)
        nodes.add_metric(["false"], Node.objects.count() - ready)
        yield nodes


_registry = CollectorRegistry()
_registry.register(_Figures())


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Figures in Prometheus' text format: counts only, no names of people or teams."""
    return HttpResponse(generate_latest(_registry), content_type=CONTENT_TYPE_LATEST)
