"""Environments with claimed devices and with RDMA on the embedded cluster: what the workers apply is taken, placed, and counted on the nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k8s import cluster as api
from k8s.cluster import Cluster
from portal.domain import services
from portal.domain.models import Flavor
from tests.embedded import EmbeddedCluster
from workers import nodes, teams
from workers.nodes import Claimable

from .conftest import make_world
from .test_converge import Site

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def site(embedded: EmbeddedCluster, transactional_db: None) -> Iterator[Site]:
    teams.forget()
    cluster = Cluster(embedded.kubeconfig)
    world = make_world()
    # Small, so that a busy machine bears it; the chips are what matters.
    Flavor.objects.filter(slug__in=["gpu-dra-1", "h100-8-rdma"]).update(cpu_millis=200, memory_bytes=2**28, shm_bytes=0, ephemeral_bytes=0)
    yield Site(world, cluster)
    cluster.close()


def test_claimed_devices_are_allocated_and_seen_as_the_environments(site: Site) -> None:
    services.quota_set(actor=None, team=site.world.vision, user=None, resource="accelerator:nvidia-gpu-dra", limit=2)
    environment = site.world.request("claims", flavor="gpu-dra-1", params={"workers": 1})
    site.until(environment, lambda row: any(each["role"] == "worker" and each["node"] for each in row.observed.get("replicas", ())), "a worker with a node")
    found = site.look(environment)
    (worker,) = [each for each in found.observed["replicas"] if each["role"] == "worker"]
    assert worker["node"] == "sim-dra-1"
    slices, classes, claims = (site.cluster.find(kind) for kind in (api.DEVICE_SLICES, api.DEVICE_CLASSES, api.DEVICE_CLAIMS))
    install = claims[0]["metadata"]["labels"]["atelier.dev/install"]
    uses = [use for pod in site.cluster.find(api.PODS) if (use := nodes.usage(pod, install))]
    rows = nodes.rows([nodes.described(node) for node in site.cluster.find(api.NODES)], uses)
    key = "gpu.nvidia.com.deviceclass.resource.k8s.io/devices"
    counted = {row["name"]: row for row in nodes.with_claimed(rows, [Claimable(key=key, device_class="gpu.nvidia.com")], slices, classes, claims, install)}
    assert (counted["sim-dra-1"]["allocatable"][key], counted["sim-dra-1"]["used"][key]) == (4, 1)
    assert counted["sim-dra-1"]["environments"][str(environment.pk)]["resources"][key] == 1
    quota = site.cluster.get(api.QUOTAS, "atelier", "atelier-vision")
    assert quota is not None
    assert (quota["spec"]["hard"][key], quota["status"]["used"][key]) == ("2", "1")


def test_rdma_needs_the_teams_exception_and_then_its_pods_are_taken(site: Site) -> None:
    services.quota_set(actor=None, team=site.world.vision, user=None, resource="accelerator:nvidia-h100-80g", limit=16)
    services.exception_grant(actor=None, team=site.world.vision, capability="IPC_LOCK", reason="NCCL over InfiniBand")
    environment = site.world.request("fabric", flavor="h100-8-rdma", params={"workers": 2})
    site.until(
        environment,
        lambda row: sum(each["role"] == "worker" and bool(each["node"]) for each in row.observed.get("replicas", ())) == 2,
        "two workers with nodes",
    )
    workers = [each for each in site.look(environment).observed["replicas"] if each["role"] == "worker"]
    assert {each["node"] for each in workers} == {"sim-rdma-1", "sim-rdma-2"}
    namespace = site.cluster.get(api.NAMESPACES, "atelier-vision")
    assert namespace is not None
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/warn"] == "restricted"
