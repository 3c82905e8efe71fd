"""The part of CEL that selects devices."""

from __future__ import annotations

import pytest

from k8s import cel

DEVICE = {
    "name": "gpu-0",
    "attributes": {
        "type": {"string": "mig"},
        "profile": {"string": "1g.10gb"},
        "index": {"int": 3},
        "healthy": {"bool": True},
        "other.example.com/x": {"string": "y"},
    },
    "capacity": {"memory": {"value": "10Gi"}},
}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("device.driver == 'gpu.nvidia.com'", True),
        ("device.driver != 'gpu.nvidia.com'", False),
        ("device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == 'mig'", True),
        ('device.attributes["gpu.nvidia.com"].profile == "1g.10gb"', True),
        ("device.attributes['gpu.nvidia.com'].profile == '3g.40gb'", False),
        ("device.attributes['gpu.nvidia.com'].index >= 3", True),
        ("device.attributes['gpu.nvidia.com'].healthy == true", True),
        ("device.attributes['gpu.nvidia.com'].index == 'three'", False),
        ("device.attributes['gpu.nvidia.com'].missing == 'x'", False),
        ("device.attributes['other.example.com'].x == 'y'", True),
        ("device.attributes['other.example.com'].type == 'mig'", False),
        ("device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('8Gi')) >= 0", True),
        ("device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('40Gi')) >= 0", False),
    ],
)
def test_comparisons_of_what_a_device_is(expression: str, expected: bool) -> None:
    assert cel.matches(expression, "gpu.nvidia.com", DEVICE) is expected


@pytest.mark.parametrize(
    "expression", ["", "true", "a || b", "device.attributes['x'].y.matches('z')", "device.driver == 'a' && (b)", "device.capacity['x'].y == 'z'"]
)
def test_more_than_that_is_told(expression: str) -> None:
    with pytest.raises(cel.Unsupported):
        cel.matches(expression, "gpu.nvidia.com", DEVICE)
