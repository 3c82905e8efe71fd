"""Dynamic Resource Allocation on the embedded cluster: claims are made, devices given, kept apart and given back; shares and RDMA have nodes."""

from __future__ import annotations

from typing import Any

import pytest

from k8s.local.documents import at, name_of

from .conftest import World, pod, until

pytestmark = pytest.mark.integration


def template(name: str, count: int, *selectors: str, device_class: str = "gpu.nvidia.com") -> dict[str, Any]:
    exactly: dict[str, Any] = {"deviceClassName": device_class, "allocationMode": "ExactCount", "count": count}
    if selectors:
        exactly["selectors"] = [{"cel": {"expression": each}} for each in selectors]
    spec = {"devices": {"requests": [{"name": "devices", "exactly": exactly}]}}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name},
        "spec": {"metadata": {"labels": {"a": "b"}}, "spec": spec},
    }


def claiming(name: str, script: str, template_name: str) -> dict[str, Any]:
    return pod(
        name,
        script,
        container={"resources": {"claims": [{"name": "devices"}]}},
        resourceClaims=[{"name": "devices", "resourceClaimTemplateName": template_name}],
    )


def unscheduled(world: World, name: str) -> str:
    conditions = at(world.pod(name), "status.conditions", [])
    return next((item["message"] for item in conditions if item["type"] == "PodScheduled" and item["status"] == "False"), "")


async def test_a_pod_gets_the_devices_that_it_claims_and_gives_them_back(world: World) -> None:
    world.create(template("three", 3))
    world.create(claiming("first", "sleep 600", "three"))
    await until(lambda: at(world.pod("first"), "status.phase") == "Running")
    assert world.pod("first")["spec"]["nodeName"] == "sim-dra-1"
    (claim,) = world.client.list("ResourceClaim", "default")
    assert at(world.pod("first"), "status.resourceClaimStatuses") == [{"name": "devices", "resourceClaimName": name_of(claim)}]
    assert claim["metadata"]["labels"] == {"a": "b"}
    results = at(claim, "status.allocation.devices.results")
    assert {(each["driver"], each["pool"]) for each in results} == {("gpu.nvidia.com", "sim-dra-1")}
    assert len({each["device"] for each in results}) == 3
    world.create(claiming("second", "true", "three"))
    await until(lambda: "cannot allocate all claims" in unscheduled(world, "second"))
    world.client.delete("Pod", "default", "first", grace=0)
    await until(lambda: at(world.pod("second"), "status.phase") == "Succeeded")
    await until(lambda: not world.client.list("ResourceClaim", "default"))


async def test_a_pod_whose_claim_cannot_be_met_is_told_why(world: World) -> None:
    world.create(template("other", 1, device_class="tpu.example.com"))
    world.create(claiming("classless", "true", "other"))
    await until(lambda: "device class tpu.example.com does not exist" in unscheduled(world, "classless"))
    world.create(template("clever", 1, "device.attributes['gpu.nvidia.com'].productName.matches('A.*')"))
    world.create(claiming("clever", "true", "clever"))
    await until(lambda: "does not understand a selector" in unscheduled(world, "clever"))
    world.create(template("hopper", 1, "device.attributes['gpu.nvidia.com'].architecture == 'Hopper'"))
    world.create(claiming("hopper", "true", "hopper"))
    await until(lambda: "cannot allocate all claims" in unscheduled(world, "hopper"))


async def test_a_hami_share_runs_on_the_node_that_has_shares(world: World) -> None:
    limits = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "10240", "nvidia.com/gpucores": "25"}
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    await world.run("share", "true", container={"resources": {"limits": limits}}, schedulerName="hami-scheduler", tolerations=tolerations)
    assert world.pod("share")["spec"]["nodeName"] == "sim-hami-1"
    world.create(pod("strange", "true", schedulerName="nobody"))
    await world.run("usual", "true")
    assert not world.pod("strange")["spec"].get("nodeName"), "only the schedulers it stands in for"
