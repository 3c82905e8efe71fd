"""A limit that is changed in the portal is changed in the team's namespace: on the embedded cluster, through the task that the change sends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from k8s import cluster as api
from k8s import errors
from k8s.cluster import Cluster
from portal.domain import services
from tests.embedded import EmbeddedCluster
from workers import teams
from workers.tasks import team_sync

from .conftest import World, make_world

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]
SPACE = "atelier-vision"


@pytest.fixture
def cluster(embedded: EmbeddedCluster, settings: Any) -> Iterator[Cluster]:
    teams.forget()
    settings.KUBECONFIG_PATH = embedded.kubeconfig
    cluster = Cluster(embedded.kubeconfig)
    yield cluster
    cluster.close()


def limit(world: World, resource: str, amount: int | None) -> None:
    """Set it, and do what the message that is sent then asks for."""
    services.quota_set(actor=None, team=world.vision, user=None, resource=resource, limit=amount)
    team_sync.apply(args=["vision"], throw=True)


def hard(cluster: Cluster) -> dict[str, str]:
    found = cluster.get(api.QUOTAS, "atelier", SPACE)
    assert found is not None
    return dict(found["spec"]["hard"])


def pod(cpu: str) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": "any",
        "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}, "limits": {"cpu": cpu, "memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": SPACE},
        "spec": {"containers": [container], "automountServiceAccountToken": False},
    }


def test_a_changed_limit_reaches_the_namespace_and_is_enforced_there(cluster: Cluster) -> None:
    world = make_world()
    limit(world, "cpu", 4000)
    assert hard(cluster)["limits.cpu"] == "4"
    with pytest.raises(errors.ClusterError, match="maximum cpu usage per Container is 4, but limit is 6"):
        cluster.apply(pod("6"))

    limit(world, "cpu", 8000)
    limit(world, "accelerator:nvidia-gpu", 3)
    assert (hard(cluster)["limits.cpu"], hard(cluster)["requests.nvidia.com/gpu"]) == ("8", "3")
    cluster.apply(pod("6"))
    made = cluster.get(api.PODS, "probe", SPACE)
    assert made is not None
    cluster.delete(made)

    limit(world, "cpu", None)
    assert "limits.cpu" not in hard(cluster)


def test_a_limit_below_what_pods_take_by_themselves_is_left_to_the_quota(cluster: Cluster) -> None:
    world = make_world()
    limit(world, "cpu", 0)
    assert hard(cluster)["limits.cpu"] == "0"
    with pytest.raises(errors.ClusterError, match="exceeded quota"):
        cluster.apply(pod("1"))
