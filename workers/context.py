"""One environment and the ways to where it lives: what every part of converging is handed."""

from __future__ import annotations

from dataclasses import dataclass

from k8s import names
from k8s.cluster import Cluster
from k8s.spec import EnvironmentSpec
from portal.domain.models import Environment

from .hub import Hub
from .specs import environment_spec


@dataclass(frozen=True, kw_only=True)
class Context:
    """One environment and the ways to where it lives."""

    environment: Environment
    cluster: Cluster
    hub: Hub

    @property
    def spec(self) -> EnvironmentSpec:
        return environment_spec(self.environment)

    @property
    def is_notebook(self) -> bool:
        return self.environment.kind == "notebook"

    @property
    def owner(self) -> str:
        return self.environment.owner.username


def selector(environment_id: object) -> str:
    """Label selector of an environment's objects."""
    return f"{names.ENVIRONMENT}={environment_id}"
