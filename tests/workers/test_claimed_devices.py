"""Devices of Dynamic Resource Allocation in the portal's picture of nodes: counted per accelerator, by class and selector, whoever holds them."""

from __future__ import annotations

from typing import Any

from workers.nodes import Claimable, with_claimed

A100 = "device.attributes['gpu.nvidia.com'].architecture == 'Ampere'"
ANY = Claimable(key="any", device_class="gpu.nvidia.com")
AMPERE = Claimable(key="ampere", device_class="gpu.nvidia.com", selectors=(A100,))
CLEVER = Claimable(key="clever", device_class="gpu.nvidia.com", selectors=("device.driver.startsWith('gpu')",))
ABSENT = Claimable(key="absent", device_class="tpu.google.com")
CLASSES = [{"metadata": {"name": "gpu.nvidia.com"}, "spec": {"selectors": [{"cel": {"expression": "device.driver == 'gpu.nvidia.com'"}}]}}]


def row(name: str, **environments: Any) -> dict[str, Any]:
    return {"name": name, "allocatable": {"cpu": 8000}, "used": {"cpu": 500}, "environments": environments}


def published(node: str, *architectures: str, driver: str = "gpu.nvidia.com") -> dict[str, Any]:
    devices = [{"name": f"gpu-{index}", "attributes": {"architecture": {"string": each}}} for index, each in enumerate(architectures)]
    return {"metadata": {"name": node}, "spec": {"driver": driver, "nodeName": node, "pool": {"name": node}, "devices": devices}}


def claim(node: str, device: str, **labels: str) -> dict[str, Any]:
    result = {"request": "devices", "driver": "gpu.nvidia.com", "pool": node, "device": device}
    return {"metadata": {"labels": labels}, "status": {"allocation": {"devices": {"results": [result]}}}}


def test_devices_are_counted_for_each_accelerator_that_may_claim_them() -> None:
    slices = [published("a", "Ampere", "Ampere", "Hopper"), published("b", "Hopper"), published("c", "Ampere", driver="other.example.com")]
    found = {
        each["name"]: each["allocatable"] for each in with_claimed([row("a"), row("b"), row("c")], [ANY, AMPERE, CLEVER, ABSENT], slices, CLASSES, [], "i")
    }
    assert found == {
        "a": {"cpu": 8000, "any": 3, "ampere": 2, "clever": 3},
        "b": {"cpu": 8000, "any": 1, "clever": 1},
        "c": {"cpu": 8000},
    }


def test_what_is_held_counts_as_used_and_as_ours_where_it_is() -> None:
    mine = {"atelier.dev/install": "i", "atelier.dev/environment": "env"}
    entry = {"roles": {"worker": 1}, "resources": {"cpu": 500}}
    claims = [claim("a", "gpu-0", **mine), claim("a", "gpu-2"), {"metadata": {}, "status": {}}]
    before = row("a", env=entry)
    (found,) = with_claimed([before], [ANY, AMPERE], [published("a", "Ampere", "Ampere", "Hopper")], CLASSES, claims, "i")
    assert found["used"] == {"cpu": 500, "any": 2, "ampere": 1}
    assert found["environments"]["env"]["resources"] == {"cpu": 500, "any": 1, "ampere": 1}
    assert before == row("a", env=entry), "nothing is changed in place"
    (other,) = with_claimed([before], [ANY], [published("a", "Ampere")], CLASSES, [claim("a", "gpu-0", **mine)], "another installation")
    assert other["environments"]["env"]["resources"] == {"cpu": 500}
