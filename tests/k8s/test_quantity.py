"""Kubernetes quantities as numbers."""

from __future__ import annotations

import pytest

from k8s import quantity


@pytest.mark.parametrize(
    ("resource", "text", "amount"),
    [
        ("cpu", "500m", 500),
        ("cpu", "2", 2000),
        ("cpu", "0.1", 100),
        ("cpu", "1500u", 2),  # rounded up: less than a millicore is still something
        ("memory", "2Gi", 2**31),
        ("memory", "1e3", 1000),
        ("memory", "128974848", 128974848),
        ("memory", "123Mi", 123 * 2**20),
        ("nvidia.com/gpu", 8, 8),
        ("pods", "110", 110),
    ],
)
def test_amounts(resource: str, text: str | int, amount: int) -> None:
    assert quantity.amount(resource, text) == amount


@pytest.mark.parametrize("text", ["", "five", "5 Gi", "1Zi", "--1", "1e"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity.parse(text)


def test_a_pod_asks_for_its_containers_and_sidecars_or_for_an_init_container_that_is_larger() -> None:
    def container(cpu: str, memory: str, **more: str) -> dict:
        return {"resources": {"requests": {"cpu": cpu, "memory": memory}}, **more}

    spec = {
        "containers": [container("1", "1Gi"), container("500m", "1Gi")],
        "initContainers": [container("4", "100Mi"), container("250m", "1Gi", restartPolicy="Always")],
        "overhead": {"memory": "64Mi"},
    }
    assert quantity.pod_requests(spec) == {"cpu": 4000, "memory": 3 * 2**30 + 64 * 2**20}


def test_a_pod_without_requests_asks_for_nothing() -> None:
    assert quantity.pod_requests({"containers": [{"name": "a"}]}) == {}
