"""Objects in a cluster for tests and benchmarks of orphans: some that nobody wants any more, and some that only look so."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

from k8s import names
from k8s.cluster import Cluster

Object = dict[str, Any]

NAMESPACE = "atelier-vision"


def labels(install: str, environment: str, **more: str) -> dict[str, str]:
    """What this project puts on an environment's objects."""
    given = {names.MANAGED_BY: names.MANAGER, names.INSTALL: install, names.ENVIRONMENT: environment, names.OWNER: "alice", names.TEAM: "vision"}
    return {key: value for key, value in (given | more).items() if value}


def config_map(name: str, marks: dict[str, str], namespace: str = NAMESPACE) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace, "labels": marks}, "data": {}}


def service(name: str, marks: dict[str, str], namespace: str = NAMESPACE) -> Object:
    metadata = {"name": name, "namespace": namespace, "labels": marks}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"clusterIP": "None", "selector": {"nobody": name}}}


def stateful_set(name: str, marks: dict[str, str], namespace: str = NAMESPACE) -> Object:
    """With no pods."""
    template = {"metadata": {"labels": {"set": name}}, "spec": {"containers": [{"name": "c", "image": "dask:1"}]}}
    spec = {"replicas": 0, "serviceName": name, "selector": {"matchLabels": {"set": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name, "namespace": namespace, "labels": marks}, "spec": spec}


def policy(name: str, marks: dict[str, str], namespace: str = NAMESPACE) -> Object:
    metadata = {"name": name, "namespace": namespace, "labels": marks}
    spec = {"podSelector": {"matchLabels": {"nobody": name}}, "policyTypes": ["Ingress"]}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def secret(name: str, marks: dict[str, str], namespace: str = NAMESPACE) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace, "labels": marks}, "stringData": {}}


MAKERS: tuple[Callable[..., Object], ...] = (config_map, service, stateful_set, policy, secret)


def orphans(count: int, install: str) -> list[Object]:
    """Of environments that no row knows, of every kind in turn."""
    return [MAKERS[number % len(MAKERS)](f"lost-{number}", labels(install, str(uuid4()))) for number in range(count)]


def look_alikes(count: int, install: str, living: str, deleted: str) -> list[Object]:
    """Of every sort in turn; charlie is a user, of no team. `living`: id of an environment that runs, `deleted`: of one of alice's that is deleted."""
    unknown = str(uuid4())
    sorts: list[tuple[dict[str, str], str]] = [
        (labels("other-install", unknown), NAMESPACE),
        (labels(install, unknown, **{names.INSTALL: ""}), NAMESPACE),
        (labels(install, unknown, **{names.MANAGED_BY: "helm"}), NAMESPACE),
        (labels(install, unknown, **{names.MANAGED_BY: ""}), NAMESPACE),
        (labels(install, unknown, **{names.OWNER: "nobody-here"}), NAMESPACE),
        (labels(install, deleted, **{names.OWNER: "charlie"}), NAMESPACE),
        (labels(install, unknown, **{names.OWNER: "charlie"}), NAMESPACE),
        (labels(install, unknown, **{names.TEAM: "speech"}), NAMESPACE),
        (labels(install, unknown), "default"),
        (labels(install, "not-an-id"), NAMESPACE),
        (labels(install, unknown.upper()), NAMESPACE),
        (labels(install, living), NAMESPACE),
        (labels(install, unknown, **{names.ENVIRONMENT: ""}), NAMESPACE),
    ]
    made = []
    for number in range(count):
        marks, namespace = sorts[number % len(sorts)]
        maker = MAKERS[(number // len(sorts)) % len(MAKERS)]
        made.append(maker(f"alike-{number}", marks, namespace))
    return made


def create_all(cluster: Cluster, documents: Iterable[Object]) -> list[Object]:
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(cluster.create, documents))


def places(cluster: Cluster, prefix: str) -> set[tuple[str, str, str]]:
    """(kind, namespace, uid) of the objects whose name begins so."""
    from k8s.cluster import CONFIG_MAPS, POLICIES, SECRETS, SERVICES, STATEFUL_SETS

    found = cluster.gather([(kind, "", "", "") for kind in (CONFIG_MAPS, POLICIES, SECRETS, SERVICES, STATEFUL_SETS)])
    mine = [item for items in found for item in items if item["metadata"]["name"].startswith(prefix)]
    return {(item["kind"], item["metadata"]["namespace"], item["metadata"]["uid"]) for item in mine}
