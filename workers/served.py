"""What the cluster's API says that it serves, asked again every five minutes: an operator is installed once, and nobody waits for its first use."""

from __future__ import annotations

import time
from typing import Any

from k8s import errors
from k8s.cluster import Cluster

_LOOK_AGAIN_SECONDS = 300.0

# What this process found: (kubeconfig, path) -> (document, when). Saves requests per environment, nothing else.
_found: dict[tuple[str, str], tuple[dict[str, Any], float]] = {}


def groups(cluster: Cluster) -> frozenset[str]:
    """Names of the API groups. Raises `k8s.errors` when the cluster never answered."""
    return frozenset(item["name"] for item in _discovery(cluster, "/apis").get("groups", ()))


def plurals(cluster: Cluster, api_version: str) -> frozenset[str]:
    """Plural names of the kinds of one group and version; none when it is not served. Raises `k8s.errors` when the cluster never answered."""
    return frozenset(item["name"] for item in _discovery(cluster, f"/apis/{api_version}").get("resources", ()))


def forget() -> None:
    """Look again."""
    _found.clear()


def _discovery(cluster: Cluster, path: str) -> dict[str, Any]:
    key = (str(cluster.kubeconfig), path)
    document, when = _found.get(key, ({}, float("-inf")))
    if time.monotonic() - when > _LOOK_AGAIN_SECONDS:
        try:
            document = cluster.read(path) or {}
        except errors.ClusterError:
            if key in _found:
                return document  # what was so a while ago is a better answer than none
            raise
        _found[key] = document, time.monotonic()
    return document
