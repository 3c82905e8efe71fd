"""The list of controllers."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from k8s.local.client import Client
from k8s.local.controllers.base import Controller
from k8s.local.controllers.claims import PodClaims
from k8s.local.controllers.disruption import DisruptionBudgets
from k8s.local.controllers.eviction import TaintEviction
from k8s.local.controllers.job import Jobs
from k8s.local.controllers.node_lifecycle import NodeLifecycle, PodGarbage
from k8s.local.controllers.replicas import Deployments, ReplicaSets
from k8s.local.controllers.statefulset import StatefulSets
from k8s.local.controllers.volumes import Claims, ensure_class
from k8s.local.options import Options


def controllers(client: Client, options: Options) -> list[tuple[str, Coroutine[Any, Any, None]]]:
    """Name and endless work of each."""
    ensure_class(client)
    claims = Claims(client, options.state_dir / "volumes")
    claims.remove_leftovers()
    others: list[Controller] = [StatefulSets(client), ReplicaSets(client), Deployments(client), Jobs(client), DisruptionBudgets(client), PodClaims(client)]
    about_nodes = [
        ("node lifecycle", NodeLifecycle(client, options.node_grace).run()),
        ("eviction by taints", TaintEviction(client).run()),
        ("pods without nodes", PodGarbage(client, options.node_grace).run()),
    ]
    return [("claims", claims.run()), *about_nodes, *((f"{each.kind} controller", each.run()) for each in others)]
