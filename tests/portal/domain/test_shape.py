"""What an environment takes, from its template, parameters and flavor; and the variables of templates. Pure."""

from __future__ import annotations

from typing import Any

import pytest

from portal.domain import variables
from portal.domain.allowed import image_families
from portal.domain.shape import FlavorShape, image_of, parameters, role_shapes, scalable_param, total
from tests.language import changed, everything

FLAVOR = FlavorShape(cpu_millis=8000, memory_bytes=64 * 2**30, shm_bytes=16 * 2**30, accelerator="a100", accelerator_count=2)


def test_a_range_of_replicas_is_a_parameter_called_workers() -> None:
    template = everything()
    assert scalable_param(template) == "workers"
    workers = parameters(template)["properties"]["workers"]
    assert (workers["type"], workers["minimum"], workers["maximum"], workers["default"]) == ("integer", 0, 8, 2)
    assert "workers" not in template["params"]["properties"]
    assert parameters(changed("roles", 0, "replicas", to={"min": 3, "max": 4}))["properties"]["workers"]["default"] == 3


@pytest.mark.parametrize(
    ("params", "workers", "count"), [({}, None, 2), ({"workers": 5}, None, 5), ({"workers": 5}, 7, 7), ({"workers": 0}, None, 0), ({}, 0, 0)]
)
def test_a_range_counts_what_was_asked_for_or_its_default(params: dict[str, Any], workers: int | None, count: int) -> None:
    worker, launcher = role_shapes(everything(), params, FLAVOR, workers)
    assert (worker.replicas, worker.scalable, launcher.replicas, launcher.scalable) == (count, True, 1, False)


def test_a_share_is_a_part_of_the_flavor_without_its_accelerators() -> None:
    worker, launcher = role_shapes(everything(), {}, FLAVOR)
    assert (worker.cpu_millis, worker.memory_bytes, worker.shm_bytes, worker.accelerator_count) == (4000, 32 * 2**30, 8 * 2**30, 0)
    assert (launcher.cpu_millis, launcher.memory_bytes, launcher.shm_bytes, launcher.accelerator_count) == (500, 2**30, 0, 0)
    assert total((worker, launcher)) == {"environments": 1, "cpu": 8500, "memory": 65 * 2**30}


def test_a_share_may_have_the_accelerators() -> None:
    worker, _ = role_shapes(changed("roles", 0, "resources", to={"share": 0.25, "accelerators": True}), {"workers": 3}, FLAVOR)
    assert (worker.cpu_millis, worker.accelerator, worker.accelerator_count) == (2000, "a100", 2)
    assert total((worker,))["accelerator:a100"] == 6


def test_a_small_share_of_a_small_flavor_is_more_than_nothing() -> None:
    worker, _ = role_shapes(changed("roles", 0, "resources", to={"share": 0.0001}), {}, FlavorShape(cpu_millis=100, memory_bytes=2**21))
    assert (worker.cpu_millis, worker.memory_bytes) == (1, 2**20)


@pytest.mark.parametrize(("family", "image"), [("", "img"), ("gpu", "img-cuda"), ("npu", "img"), ("cpu", "img")])
def test_an_image_is_chosen_by_family(family: str, image: str) -> None:
    assert image_of({"default": "img", "gpu": "img-cuda"}, family) == image
    assert image_of("one", family) == "one"


def test_without_a_default_only_the_named_families_have_an_image() -> None:
    assert image_of({"gpu": "img-cuda"}, "") is None
    assert image_families(everything()) is None
    only = changed("roles", 0, "image", to={"gpu": "a", "npu": "b", "cpu": "c"})
    only["roles"][1]["image"] = {"gpu": "d", "cpu": "e"}
    assert image_families(only) == {"gpu", "cpu"}


VALUES = {"a": "text", "n": 3, "yes": True, "list": ("x:1", "y:2"), "items": [1, 2], "quote": 'say "hi"', "cash": "$(POD_IP)"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain $HOME $(POD_IP) {}", "plain $HOME $(POD_IP) {}"),
        ("${a}-${n}", "text-3"),
        ("${yes} ${items}", "true [1, 2]"),
        ("${list}", "x:1,y:2"),
        ("${list:lines}", "x:1\ny:2"),
        ("${list:json}", '["x:1", "y:2"]'),
        ("${quote:json} ${n:json}", '"say \\"hi\\"" 3'),
        ("$${a} $$${a}", "${a} $${a}"),
        ("${cash}", "$(POD_IP)"),
    ],
)
def test_variables_are_replaced_in_one_pass(text: str, result: str) -> None:
    assert variables.resolve(text, VALUES) == result


def test_what_kubernetes_would_expand_in_a_value_is_doubled() -> None:
    assert variables.resolve("$(POD_NAME) ${cash}", VALUES, expanded=True) == "$(POD_NAME) $$(POD_IP)"


@pytest.mark.parametrize("text", ["${b}", "${a:lines}", "${list:yaml}", "${a", "${}"])
def test_an_unknown_variable_is_an_error(text: str) -> None:
    with pytest.raises(variables.UnknownVariable):
        variables.resolve(text, VALUES)
