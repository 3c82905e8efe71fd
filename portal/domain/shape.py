"""What an environment will take, from its template, parameters and flavor. Pure data in, pure data out; used for quota and for specs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .allowed import CPU

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def parse_bytes(quantity: str) -> int:
    """Bytes of a Kubernetes quantity such as "512Mi" or "10Gi"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMGT]i?|Ki|)", quantity)
    if not match or match[2] not in _UNITS:
        raise ValueError(f"{quantity!r} is not a quantity of bytes such as 512Mi or 10Gi")
    return int(float(match[1]) * _UNITS[match[2]])


def parse_cpu(quantity: str) -> int:
    """Millicores of a Kubernetes quantity such as "500m", "2" or "0.5"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", quantity)
    if not match:
        raise ValueError(f"{quantity!r} is not a CPU quantity such as 500m or 2")
    return int(float(match[1])) if match[2] else int(float(match[1]) * 1000)


@dataclass(frozen=True, kw_only=True)
class RoleShape:
    """Replicas of a role and what each takes. CPU in millicores, memory in bytes."""

    name: str
    replicas: int
    cpu_millis: int
    memory_bytes: int
    shm_bytes: int = 0
    ephemeral_bytes: int = 0  # 0: not limited
    accelerator: str = ""  # slug
    accelerator_count: int = 0
    network: str = ""  # slug
    network_key: str = ""  # resource key of its devices; empty: they are not counted
    network_count: int = 0
    scalable: bool = False


@dataclass(frozen=True, kw_only=True)
class FlavorShape:
    """The figures of a flavor, free of the database."""

    cpu_millis: int
    memory_bytes: int
    shm_bytes: int = 0
    ephemeral_bytes: int = 0
    accelerator: str = ""
    accelerator_count: int = 0
    network: str = ""
    network_key: str = ""
    network_count: int = 0


WORKERS = "workers"  # the parameter that a range of replicas stands for
_MIB = 2**20


def scalable_param(template_spec: Mapping[str, Any]) -> str | None:
    """Parameter that holds the number of replicas of the scalable role; None when the template has no such role."""
    for role in template_spec["roles"]:
        count = role.get("replicas", 1)
        if isinstance(count, Mapping):
            return str(count.get("param", WORKERS))
    return None


def parameters(template_spec: Mapping[str, Any]) -> dict[str, Any]:
    """JSON Schema of the parameters. A range of replicas is one of them, called `workers`."""
    schema: dict[str, Any] = dict(template_spec.get("params") or {"type": "object", "additionalProperties": False})
    properties = dict(schema.get("properties", {}))
    for role in template_spec["roles"]:
        count = role.get("replicas", 1)
        if isinstance(count, Mapping) and "param" not in count:
            least = int(count["min"])
            properties[WORKERS] = {
                "type": "integer",
                "minimum": least,
                "maximum": int(count["max"]),
                "default": int(count.get("default", max(1, least))),
                "title": {"en": "Workers", "zh-hans": "工作进程数"},
            }
    return {**schema, "properties": properties}


def image_of(image: str | Mapping[str, str], family: str) -> str | None:
    """The image for a family of accelerators ("" or `cpu`: none); None where there is none for it."""
    if isinstance(image, str):
        return image
    return image.get(family or CPU) or image.get("default")


def role_shapes(template_spec: Mapping[str, Any], params: Mapping[str, Any], flavor: FlavorShape, workers: int | None = None) -> tuple[RoleShape, ...]:
    """Every role with its replicas and what one replica takes.

    A role without `resources` has the flavor's shape; one with `share` that part of it, without accelerators unless it says so. `replicas`
    is a number, or `{"param": name}` or a range `{"min", "max", "default"}`: the scalable role, whose count is `workers` when given, else
    the parameter's value or its default.
    """
    shapes = []
    for role in template_spec["roles"]:
        count = role.get("replicas", 1)
        scalable = isinstance(count, Mapping)
        if scalable:
            name = count.get("param", WORKERS)
            count = workers if workers is not None else params.get(name, parameters(template_spec)["properties"][name].get("default", 1))
        shape = _shape(role.get("resources") or {}, flavor)
        shapes.append(
            RoleShape(
                name=role["name"],
                replicas=int(count),
                cpu_millis=shape.cpu_millis,
                memory_bytes=shape.memory_bytes,
                shm_bytes=shape.shm_bytes,
                ephemeral_bytes=shape.ephemeral_bytes,
                accelerator=shape.accelerator,
                accelerator_count=shape.accelerator_count,
                network=shape.network,
                network_key=shape.network_key,
                network_count=shape.network_count,
                scalable=scalable,
            )
        )
    return tuple(shapes)


def _shape(own: Mapping[str, Any], flavor: FlavorShape) -> FlavorShape:
    """What one replica of a role takes, by its `resources`."""
    if "share" in own:
        part = float(own["share"])
        without = {"accelerator": "", "accelerator_count": 0, "network": "", "network_key": "", "network_count": 0}
        changes: dict[str, Any] = {} if own.get("accelerators") else without
        return replace(
            flavor,
            cpu_millis=max(1, round(flavor.cpu_millis * part)),
            memory_bytes=max(_MIB, round(flavor.memory_bytes * part) // _MIB * _MIB),
            shm_bytes=round(flavor.shm_bytes * part) // _MIB * _MIB,
            ephemeral_bytes=round(flavor.ephemeral_bytes * part) // _MIB * _MIB,
            **changes,
        )
    if own:
        return FlavorShape(cpu_millis=parse_cpu(str(own["cpu"])), memory_bytes=parse_bytes(str(own["memory"])))
    return flavor


def total(shapes: tuple[RoleShape, ...]) -> dict[str, int]:
    """Quota resources that run-time takes: `environments`, `cpu` (millicores), `memory` (bytes), `accelerator:<slug>` (devices)."""
    amounts = {"environments": 1, "cpu": 0, "memory": 0}
    for shape in shapes:
        amounts["cpu"] += shape.replicas * shape.cpu_millis
        amounts["memory"] += shape.replicas * shape.memory_bytes
        if shape.accelerator and shape.accelerator_count:
            key = f"accelerator:{shape.accelerator}"
            amounts[key] = amounts.get(key, 0) + shape.replicas * shape.accelerator_count
    return amounts
