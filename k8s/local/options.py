"""What the embedded cluster was started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Options:
    state_dir: Path  # everything that outlives the process: objects, volumes, certificates, the token
    port: int  # of the API, on 127.0.0.1
    nodes_file: Path | None = None  # YAML of the nodes; None: this machine and the simulated ones
    runtimes_file: Path | None = None  # YAML: which image runs in which local environment
    service_domain: str = "svc.cluster.local"
