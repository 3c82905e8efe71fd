"""`python -m k8s.local`: the embedded cluster as one process."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from pathlib import Path

from .options import Options
from .server import serve


def _seconds(name: str, otherwise: float) -> float:
    """A time from the environment variable ATELIER_CLUSTER_<name>, for those who do not write the command line themselves."""
    return float(os.environ.get(f"ATELIER_CLUSTER_{name}", otherwise))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m k8s.local", description="A Kubernetes API on loopback whose pods are local processes.")
    parser.add_argument("--port", type=int, default=8013, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--state", type=Path, required=True, help="folder of everything that outlives the process")
    parser.add_argument("--kubeconfig", type=Path, help="where to write the kubeconfig (default: STATE/kubeconfig)")
    parser.add_argument("--nodes", type=Path, help="YAML of the nodes (default: this machine and simulated ones)")
    parser.add_argument("--runtimes", type=Path, help="YAML: which image runs in which local environment")
    parser.add_argument("--service-domain", default="svc.cluster.local")
    parser.add_argument("--node-grace", type=float, default=_seconds("NODE_GRACE", 40), help="a node that is silent for so long is unreachable (%(default)s s)")
    parser.add_argument(
        "--toleration-seconds", type=int, default=int(_seconds("TOLERATION_SECONDS", 300)), help="how long pods bear an unreachable node (%(default)s s)"
    )
    parser.add_argument("--metrics-window", type=float, default=_seconds("METRICS_WINDOW", 15), help="time between two measurements of pods (%(default)s s)")
    found = parser.parse_args()
    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO"), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    state = found.state.resolve()
    options = Options(
        state_dir=state,
        port=found.port,
        nodes_file=found.nodes,
        runtimes_file=found.runtimes,
        service_domain=found.service_domain,
        node_grace=max(0.2, found.node_grace),
        toleration_seconds=max(0, found.toleration_seconds),
        metrics_window=max(0.2, found.metrics_window),
    )
    asyncio.run(serve(options, (found.kubeconfig or state / "kubeconfig").resolve()))


if __name__ == "__main__":
    main()
