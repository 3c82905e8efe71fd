"""What the cluster's API says that it serves, asked again every five minutes: an operator is installed once, and nobody waits for its first use."""

from __future__ import annotations

import time

from k8s import errors
from k8s.cluster import Cluster

_LOOK_AGAIN_SECONDS = 300.0

# What this process found: (kubeconfig, path) -> (names, when). Saves requests per environment, nothing else.
_found: dict[tuple[str, str], tuple[frozenset[str], float]] = {}


def groups(cluster: Cluster) -> frozenset[str]:
    """Names of the API groups. Raises `k8s.errors` when the cluster never answered."""
    return _names(cluster, "/apis", "groups")


def plurals(cluster: Cluster, api_version: str) -> frozenset[str]:
    """Plural names of the kinds of one group and version; none when it is not served. Raises `k8s.errors` when the cluster never answered."""
    return _names(cluster, f"/apis/{api_version}", "resources")


def forget() -> None:
    """Look again."""
    _found.clear()


def _names(cluster: Cluster, path: str, field: str) -> frozenset[str]:
    key = (str(cluster.kubeconfig), path)
    found, when = _found.get(key, (frozenset(), float("-inf")))
    if time.monotonic() - when > _LOOK_AGAIN_SECONDS:
        try:
            found = frozenset(item["name"] for item in (cluster.read(path) or {}).get(field, ()))
        except errors.ClusterError:
            if key in _found:
                return found  # what was so a while ago is a better answer than none
            raise
        _found[key] = found, time.monotonic()
    return found
