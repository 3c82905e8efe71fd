"""Signs of use of running environments: the Hub's activity, CPU from metrics.k8s.io, accelerators from Prometheus."""

from __future__ import annotations

from k8s.cluster import Cluster

from .hub import Hub


def measure(cluster: Cluster, hub: Hub) -> None:
    """Take one sample of everything that runs and has an idle rule."""
