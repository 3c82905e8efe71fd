"""What nodes hold of chips that are counted, shared, or only known to the vendor's own scheduler, and how large a request could be."""

from __future__ import annotations

from typing import Any

import pytest

from portal.domain import selectors, services
from portal.domain.capacity import Need, capacity_for
from portal.domain.models import Accelerator, Flavor, Node, Template
from portal.domain.queueing.room import Room
from portal.domain.shape import role_shapes
from tests.portal.world import World


def node(name: str, devices: dict[str, int], labels: dict[str, str] | None = None, used: dict[str, int] | None = None) -> dict[str, Any]:
    allocatable = {"cpu": 64000, "memory": 512 * 2**30, "pods": 110, **devices}
    return {"name": name, "allocatable": allocatable, "used": used or {}, "labels": labels or {}, "taints": [], "ready": True, "simulated": False}


def flavor(slug: str) -> selectors.FlavorCapacity:
    return next(row for row in selectors.flavors_with_capacity() if row.flavor.slug == slug)


def test_a_share_fits_where_only_the_devices_are_told_and_counts_where_the_share_is_told_too() -> None:
    need = Need(resources={"nvidia.com/gpu": 1, "nvidia.com/gpumem": 10240}, count_key="nvidia.com/gpu", soft=frozenset({"nvidia.com/gpumem"}))
    silent, telling = Node(**node("a", {"nvidia.com/gpu": 10})), Node(**node("b", {"nvidia.com/gpu": 10, "nvidia.com/gpumem": 40960}))
    assert capacity_for([silent], need).total == 10
    assert capacity_for([telling], need).total == 4
    assert capacity_for([Node(**node("c", {"nvidia.com/gpumem": 40960}))], need).total == 0, "a share without a device"


def test_room_that_a_share_takes_is_given_back_and_never_below_nothing() -> None:
    need = Need(resources={"nvidia.com/gpu": 1, "nvidia.com/gpumem": 10240}, soft=frozenset({"nvidia.com/gpumem"}))
    room = Room([Node(**node("a", {"nvidia.com/gpu": 10}))])
    for _ in range(3):
        room.take({"a": dict(need.items)})
    assert room.count(need) == 7
    room.give({"a": dict(need.items)})
    assert room.count(need) == 8


def test_nodes_and_the_most_for_one_pod_are_told(world: World) -> None:
    labels = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
    services.nodes_observed(
        [
            node("a", {"nvidia.com/gpu": 8}, labels, used={"nvidia.com/gpu": 5}),
            node("b", {"nvidia.com/gpu": 8}, labels, used={"nvidia.com/gpu": 8}),
            node("c", {"nvidia.com/mig-1g.10gb": 7}),
        ]
    )
    chips = {row.accelerator.slug: row for row in selectors.accelerators_with_capacity()}
    a100 = chips["nvidia-a100-80g"]
    assert (a100.total, a100.free, a100.nodes, a100.nodes_free, a100.largest, a100.largest_ever) == (16, 3, 2, 1, 3, 8)
    assert (chips["nvidia-mig-1g-10gb"].free, chips["nvidia-mig-1g-10gb"].reason) == (7, "")
    assert chips["nvidia-h100-80g"].reason == "no node has nvidia.com/gpu and the labels nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3"
    assert chips["nvidia-mig-1g-10gb-dra"].reason == "no node has mig.nvidia.com.deviceclass.resource.k8s.io/devices"
    assert (flavor("a100-1").capacity.nodes, flavor("a100-1").capacity.nodes_free) == (2, 1)
    assert not flavor("h100-1").capacity.fits
    assert "NVIDIA-H100-80GB-HBM3" in flavor("h100-1").capacity.reason


def test_ephemeral_storage_counts_where_nodes_tell_of_it(world: World) -> None:
    Flavor.objects.filter(slug="cpu-small").update(ephemeral_bytes=100 * 2**30)
    services.nodes_observed([node("a", {"ephemeral-storage": 250 * 2**30})])
    assert flavor("cpu-small").capacity.total == 2
    services.nodes_observed([node("a", {})])
    assert flavor("cpu-small").capacity.total > 2


def test_workers_of_one_cluster_with_rdma_have_to_share_a_domain(world: World, settings: Any) -> None:
    keys = {"nvidia.com/gpu": 8, "rdma/hca_shared_devices_a": 100}
    base = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
    services.nodes_observed([node(name, keys, base | {"example.com/fabric": name[0]}) for name in ("a1", "a2", "b1")])
    assert flavor("a100-8-rdma").capacity.largest == 3, "where nobody tells of domains the cluster is one"
    settings.TOPOLOGY_LABELS = {"rdma": "example.com/fabric"}
    capacity = flavor("a100-8-rdma").capacity
    assert (capacity.free, capacity.largest) == (3, 2)
    row = Flavor.objects.select_related("accelerator", "network").get(slug="a100-8-rdma")
    topology = selectors.nearness_of({}, row.network)
    assert topology == {"level": "rdma", "mode": "required"}
    assert selectors.nearness_of({"scheduling": {"topology": {"level": "rack", "mode": "preferred"}}}, row.network)["level"] == "rack", "the template's own"


@pytest.mark.parametrize(("used", "expected"), [(33500, 7), (60000, 0)])
def test_the_largest_cluster_that_starts_at_once_counts_its_other_roles_too(world: World, used: int, expected: int) -> None:
    services.nodes_observed([node("a", {"nvidia.com/gpu": 8}, used={"cpu": used})])
    template = Template.objects.get(slug="dask")
    row = Flavor.objects.select_related("accelerator", "network").get(slug="gpu-1")
    shapes = role_shapes(template.spec, {"workers": 1}, row.shape())
    scheduler = next(shape for shape in shapes if not shape.scalable)
    assert scheduler.cpu_millis <= 2000
    assert selectors.largest_now(template.spec, shapes, row, 32) == expected
    assert selectors.largest_now(template.spec, shapes, row, 3) == min(3, expected)


def test_a_slice_takes_its_weight_of_what_all_accelerators_may_be(world: World) -> None:
    world.limit("accelerator:nvidia-mig-1g-10gb", 8)
    services.nodes_observed([node("c", {"nvidia.com/mig-1g.10gb": 7})])
    world.request(flavor="mig-1g-10gb")
    assert (world.used("accelerator:nvidia-mig-1g-10gb"), world.used("accelerators")) == (1, 143)
    assert Accelerator.objects.get(slug="nvidia-mig-1g-10gb").slice_of == "nvidia-a100-80g"
