"""What the embedded cluster was started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Options:
    """Times in seconds."""

    state_dir: Path  # everything that outlives the process: objects, volumes, certificates, the token
    port: int  # of the API, on 127.0.0.1
    nodes_file: Path | None = None  # YAML of the nodes; None: this machine and the simulated ones
    runtimes_file: Path | None = None  # YAML: which image runs in which local environment
    service_domain: str = "svc.cluster.local"
    node_grace: float = 40.0  # a node that was silent for so long is unreachable
    toleration_seconds: int = 300  # how long pods that do not say otherwise bear a node that is unreachable or not ready
    metrics_window: float = 15.0  # between two measurements of what pods use

    @property
    def heartbeat(self) -> float:
        """Between two signs of life of a node."""
        return min(10.0, self.node_grace / 4)
