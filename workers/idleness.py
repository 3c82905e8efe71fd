"""Signs of use of running environments: the Hub's word on notebooks, CPU from metrics.k8s.io, accelerators from Prometheus or NVML.

Each source is asked once for everything. One that does not answer makes its sign unknown (None), which the judge does not take for idle.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import httpx
from django.conf import settings
from django.utils import timezone

from k8s import errors, names
from k8s.cluster import Cluster
from k8s.quantity import parse
from portal.domain import selectors, services
from portal.domain.models import Environment, Template
from portal.domain.quantities import CPU, accelerator_of

from .hub import Hub, HubError

logger = logging.getLogger(__name__)

Pod = tuple[str, str]  # namespace and name
_POD_METRICS = "/apis/metrics.k8s.io/v1beta1/pods"
_ACCELERATOR_METRIC = "DCGM_FI_DEV_GPU_UTIL"
_SAMPLE = re.compile(rf"^{_ACCELERATOR_METRIC}\{{(.*)\}} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_TIMEOUT = httpx.Timeout(15.0, connect=3.0)
_T = TypeVar("_T")


class SourceError(Exception):
    """A source of signs does not answer, or not in a way that can be read."""


def measure(cluster: Cluster, hub: Hub) -> None:
    """Take one sample of everything that runs and has an idle rule, and have it judged."""
    environments = [environment for environment in selectors.environments_with_idle_rule() if environment.template_spec["idle"]]
    if not environments:
        return
    cores = _ask("metrics.k8s.io", lambda: pod_cores(cluster))
    servers = _ask("JupyterHub", hub.activity) if any(environment.kind == Template.Kind.NOTEBOOK for environment in environments) else None
    busy = _ask("accelerators", lambda: accelerator_percents(cluster)) if any(map(_has_accelerators, environments)) else None
    now = timezone.now()
    for environment in environments:
        outcome = services.activity_record(environment.pk, signs_of(environment, servers, cores, busy), now)
        if outcome in ("warned", "stopped"):
            logger.info("idle: environment=%s outcome=%s", environment.pk, outcome)


def _has_accelerators(environment: Environment) -> bool:
    return any(accelerator_of(resource) for resource in environment.reserved)


def _ask(source: str, question: Callable[[], _T]) -> _T | None:
    """The answer, or None with a warning when the source is away."""
    try:
        return question()
    except (errors.ClusterError, HubError, SourceError) as error:
        logger.warning("use not measured: source=%s error=%s", source, error)
        return None


# --- what the sources say ------------------------------------------------------


def pod_cores(cluster: Cluster) -> dict[Pod, float]:
    """Cores that each pod of this installation uses. SourceError where the cluster serves no metrics."""
    found = cluster.read(f"{_POD_METRICS}?labelSelector={names.INSTALL}%3D{settings.INSTALL_ID}")
    if found is None:
        raise SourceError("the cluster serves no metrics.k8s.io")
    cores: dict[Pod, float] = {}
    try:
        for item in found.get("items") or []:
            metadata = item["metadata"]
            cores[metadata["namespace"], metadata["name"]] = float(sum(parse(each["usage"]["cpu"]) for each in item["containers"]))
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"its answer cannot be read: {error!r}") from error
    return cores


def accelerator_percents(cluster: Cluster) -> dict[Pod, float]:
    """How busy the busiest accelerator of each pod is: by Prometheus where that is configured, else by the embedded cluster's own measurement."""
    if settings.PROMETHEUS_URL:
        return prometheus_percents(settings.PROMETHEUS_URL, settings.PROMETHEUS_ACCELERATOR_QUERY)
    if settings.EMBEDDED_CLUSTER:
        return text_percents(cluster.read_text("/metrics") or "")
    return {}


def prometheus_percents(url: str, query: str) -> dict[Pod, float]:
    """The samples of one instant query, by their labels `namespace` and `pod`. SourceError when there is no such answer."""
    try:
        with httpx.Client(timeout=_TIMEOUT, trust_env=False) as client:
            answer = client.get(f"{url}/api/v1/query", params={"query": query})
            document = answer.json()
        if answer.status_code != 200 or document.get("status") != "success":
            raise SourceError(f"Prometheus refuses the query: {document.get('error') or answer.status_code}")
        samples = [(each["metric"], each["value"][1]) for each in document["data"]["result"]]
        return _highest(samples)
    except httpx.HTTPError as error:
        raise SourceError(f"Prometheus does not answer: {type(error).__name__}") from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"Prometheus' answer cannot be read: {error!r}") from error


def text_percents(text: str) -> dict[Pod, float]:
    """The accelerators' samples in Prometheus' text format."""
    return _highest((dict(_LABEL.findall(labels)), value) for labels, value in _SAMPLE.findall(text))


def _highest(samples: Iterable[tuple[Mapping[str, str], str]]) -> dict[Pod, float]:
    """The highest sample of each pod; samples of no pod and those that are no number are left out."""
    found: dict[Pod, float] = {}
    for labels, value in samples:
        pod, percent = (labels.get("namespace", ""), labels.get("pod", "")), float(value)
        if all(pod) and math.isfinite(percent):
            found[pod] = max(percent, found.get(pod, 0.0))
    return found


# --- what that means for an environment ------------------------------------------


def signs_of(
    environment: Environment,
    servers: Mapping[tuple[str, str], Mapping[str, Any]] | None,
    cores: Mapping[Pod, float] | None,
    busy: Mapping[Pod, float] | None,
) -> dict[str, Any]:
    """The signs of one environment, as `services.activity_record` takes them. None for a source: it was away."""
    namespace = names.namespace(environment.team.slug)
    pods = [(namespace, replica["name"]) for replica in environment.observed.get("replicas") or [] if replica.get("state") == "running"]
    return {"notebook": _notebook(environment, servers), "cpu_percent": _cpu(environment, pods, cores), "accelerator_percent": _accelerator(pods, busy)}


def _notebook(environment: Environment, servers: Mapping[tuple[str, str], Mapping[str, Any]] | None) -> dict[str, Any] | None:
    if environment.kind != Template.Kind.NOTEBOOK or servers is None:
        return None
    found = servers.get((environment.owner.username, names.object_name(environment.name, str(environment.pk))))
    # A server that does not say whether a kernel is busy may well have one.
    return dict(found) if found is not None and found["kernels_busy"] is not None else None


def _cpu(environment: Environment, pods: list[Pod], cores: Mapping[Pod, float] | None) -> float | None:
    """Percent of what it was given; not measured unless all that runs is."""
    given = environment.reserved.get(CPU, 0) / 1000
    if cores is None or not pods or not given or any(pod not in cores for pod in pods):
        return None
    return 100 * sum(cores[pod] for pod in pods) / given


def _accelerator(pods: list[Pod], busy: Mapping[Pod, float] | None) -> float | None:
    """The busiest: one accelerator at work among many idle ones is work."""
    return max((busy[pod] for pod in pods if pod in busy), default=None) if busy is not None else None
