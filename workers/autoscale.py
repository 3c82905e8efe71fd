"""How busy the workers of elastic environments are, and what their rules make of it. A source that is away changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from django.conf import settings

from k8s import errors, names
from k8s.cluster import Cluster
from portal.domain import selectors, services
from portal.domain.autoscale import ACCELERATOR, CPU, Rule, rule_of
from portal.domain.models import Environment
from portal.domain.shape import RoleShape, role_shapes

from .idleness import Pod, SourceError, accelerator_percents, pod_cores, prometheus_percents

logger = logging.getLogger(__name__)


def measure(cluster: Cluster) -> None:
    """Take one sample of everything that is scaled by a rule, and have it judged."""
    sources: dict[str, Mapping[Pod, float] | None] = {}
    for environment in selectors.environments_that_scale():
        rule = rule_of(environment.template_spec)
        if rule is None:
            continue
        source = rule.query or rule.metric
        if source not in sources:
            sources[source] = _ask(cluster, rule)
        load = load_of(environment, rule, sources[source])
        if load is not None and (outcome := services.environment_autoscale(environment.pk, load)) in ("scaled", "refused"):
            logger.info("autoscale: environment=%s outcome=%s load=%.1f", environment.pk, outcome, load)


def _ask(cluster: Cluster, rule: Rule) -> Mapping[Pod, float] | None:
    """The metric of every pod that has one; None when its source is away."""
    try:
        if rule.metric == CPU:
            return pod_cores(cluster)
        if rule.metric == ACCELERATOR:
            return accelerator_percents(cluster)
        if settings.PROMETHEUS_URL:
            return prometheus_percents(settings.PROMETHEUS_URL, rule.query)
        logger.warning("load not measured: a template asks for a query, and PROMETHEUS_URL is not set")
    except (errors.ClusterError, SourceError) as error:
        logger.warning("load not measured: metric=%s error=%s", rule.metric, error)
    return None


def load_of(environment: Environment, rule: Rule, metrics: Mapping[Pod, float] | None) -> float | None:
    """The mean over the workers that run, in the unit of the rule's target; None while it is not known of each of them, or some still start."""
    shape = _scalable(environment)
    if metrics is None or shape is None:
        return None
    running = [item for item in environment.observed.get("replicas") or [] if item["role"] == shape.name and item.get("state") == "running"]
    pods = [(names.namespace(environment.team.slug), item["name"]) for item in running]
    if not pods or len(pods) != environment.workers or any(pod not in metrics for pod in pods):
        return None
    total = sum(metrics[pod] for pod in pods)
    return 100 * total / (len(pods) * shape.cpu_millis / 1000) if rule.metric == CPU else total / len(pods)


def _scalable(environment: Environment) -> RoleShape | None:
    shapes = role_shapes(environment.template_spec, environment.params, environment.flavor.shape(), environment.workers)
    return next((shape for shape in shapes if shape.scalable), None)
