"""Namespaces of teams, and what an owner shares among his environments there: brought in line, and remembered as long as it is unchanged."""

from __future__ import annotations

import logging
import time
from hashlib import sha256
from typing import Any

from django.conf import settings

from k8s import cluster as api
from k8s import errors, manifests, names, tenancy
from k8s.cluster import Cluster
from k8s.spec import TeamSpec
from portal.domain import selectors
from portal.domain.lifecycle import Desired, State
from portal.domain.models import Environment, Team, User

from .specs import environment_spec, team_spec

logger = logging.getLogger(__name__)

Document = dict[str, Any]

# Annotation of a namespace: digest of the team's spec when everything in it was last applied.
_IN_LINE = f"{names.PREFIX}/team-in-line"
_REMEMBER_SECONDS = 300.0
_ACCOUNT_SECONDS = 15.0

# What this process has applied: (kubeconfig, what) -> (digest, when). Only saves requests: whoever finds a namespace missing forgets it.
_applied: dict[tuple[str, str], tuple[str, float]] = {}


def _is_fresh(cluster: Cluster, what: str, content: Any) -> bool:
    digest, when = _applied.get((str(cluster.kubeconfig), what), ("", 0.0))
    return digest == _digest(content) and time.monotonic() - when < _REMEMBER_SECONDS


def _remember(cluster: Cluster, what: str, content: Any) -> None:
    _applied[str(cluster.kubeconfig), what] = (_digest(content), time.monotonic())


def _digest(content: Any) -> str:
    return sha256(repr(content).encode()).hexdigest()


def forget() -> None:
    """Trust nothing: the cluster turned out not to hold what was applied."""
    _applied.clear()


def team_ensure(cluster: Cluster, team: Team, *, force: bool = False) -> TeamSpec:
    """Bring the team's namespace, quota, limits and policies in line. Raises `k8s.errors`."""
    spec = team_spec(team)
    if not force and _is_fresh(cluster, f"team/{spec.slug}", spec):
        return spec
    found = None if force else cluster.get(api.NAMESPACES, spec.namespace)
    if found and _in_line(found, spec):  # another worker did it
        _remember(cluster, f"team/{spec.slug}", spec)
        return spec
    made = cluster.apply(tenancy.namespace(spec))
    cluster.apply_all(tenancy.namespace_documents(spec))
    if not spec.hard:
        quota = cluster.get(api.QUOTAS, tenancy.QUOTA_NAME, spec.namespace)
        if quota and quota["metadata"].get("labels", {}).get(names.INSTALL) == spec.install:
            cluster.delete(quota)
    _await_account(cluster, spec.namespace)
    cluster.annotate(made, {_IN_LINE: _digest(spec)})
    logger.info("team namespace in line: namespace=%s", spec.namespace)
    _remember(cluster, f"team/{spec.slug}", spec)
    return spec


def _in_line(namespace: dict[str, Any], spec: TeamSpec) -> bool:
    metadata = namespace["metadata"]
    ours = metadata.get("labels", {}).get(names.INSTALL) == spec.install
    return ours and not metadata.get("deletionTimestamp") and metadata.get("annotations", {}).get(_IN_LINE) == _digest(spec)


def _await_account(cluster: Cluster, namespace: str) -> None:
    """A namespace gets its `default` service account a moment after it is made, and until then refuses every pod."""
    deadline = time.monotonic() + _ACCOUNT_SECONDS
    pause = 0.02
    while cluster.get(api.SERVICE_ACCOUNTS, "default", namespace) is None:
        if time.monotonic() > deadline:
            raise errors.Conflict(f"namespace {namespace} has no service account yet", reason="NoServiceAccount")
        time.sleep(pause)
        pause = min(pause * 2, 0.5)


def owner_policy(team: TeamSpec, owner: User) -> Document:
    return tenancy.owner_policy(namespace=team.namespace, install=team.install, owner=owner.username)


def clusters_config(team: TeamSpec, owner: User) -> Document:
    return manifests.clusters_config(namespace=team.namespace, install=team.install, owner=owner.username, entries=cluster_entries(owner))


def owner_policy_pending(cluster: Cluster, team: TeamSpec, owner: User) -> list[Document]:
    """The owner's network policy, unless this process has applied it as it is."""
    policy = owner_policy(team, owner)
    return [] if _is_fresh(cluster, _place(policy), policy) else [policy]


def remember(cluster: Cluster, documents: list[Document]) -> None:
    """These have just been applied. Only for documents that no other process applies with other content."""
    for document in documents:
        _remember(cluster, _place(document), document)


def _place(document: Document) -> str:
    return f"{document['kind']}/{document['metadata']['namespace']}/{document['metadata']['name']}"


def cluster_entries(owner: User) -> list[dict[str, Any]]:
    """The owner's running clusters, as `clusters.json` tells them to his notebooks."""
    entries = []
    for environment in selectors.clusters_of(owner).filter(state=State.RUNNING):
        spec = environment_spec(environment)
        entries.append(
            {
                "name": spec.name,
                "template": environment.template.slug,
                "env": dict(spec.connect_env),
                "snippet": spec.connect_snippet,
                "endpoints": environment.observed.get("endpoints", []),
            }
        )
    return entries


def connect_env(owner: User) -> dict[str, str]:
    """Variables by which a notebook finds the clusters that run when it starts; of several the one that started last wins."""
    env: dict[str, str] = {}
    for environment in selectors.clusters_of(owner).filter(state=State.RUNNING).order_by("started_at"):
        env |= environment_spec(environment).connect_env
    return env


def clusters_announce(cluster: Cluster, owner: User) -> None:
    """Tell the owner's notebooks, in each namespace where he has any, which clusters are up now."""
    live = Environment.objects.filter(owner=owner, kind="notebook").exclude(state=State.DELETED).exclude(desired=Desired.DELETED)
    teams = [TeamSpec(slug=slug, install=settings.INSTALL_ID, namespace=names.namespace(slug)) for slug in set(live.values_list("team__slug", flat=True))]
    cluster.apply_all(clusters_config(team, owner) for team in teams)


def owner_forget(cluster: Cluster, environment: Environment) -> None:
    """Remove what the owner's environments shared in a namespace, if this one was the last there."""
    others = Environment.objects.filter(owner=environment.owner, team=environment.team).exclude(state=State.DELETED).exclude(pk=environment.pk)
    if others.exists():
        return
    spec = team_spec(environment.team)
    for document in (owner_policy(spec, environment.owner), clusters_config(spec, environment.owner)):
        found = cluster.get(api.kind_of(document), document["metadata"]["name"], spec.namespace)
        if found and found["metadata"].get("labels", {}).get(names.INSTALL) == spec.install:
            cluster.delete(found)
        _applied.pop((str(cluster.kubeconfig), _place(document)), None)
