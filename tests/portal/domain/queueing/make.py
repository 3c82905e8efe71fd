"""Short ways to say what the queue looks at."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from portal.domain.capacity import Need
from portal.domain.queueing import Admitted, Picture, Pods, Topology, Waiting

GPU, NPU = "nvidia.com/gpu", "huawei.com/Ascend910"
T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)


def after(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


@dataclass(frozen=True)
class Box:
    """A node."""

    name: str
    allocatable: dict[str, int]
    used: dict[str, int] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    taints: list[dict[str, Any]] = field(default_factory=list)
    ready: bool = True
    simulated: bool = False


def box(name: str, cpu: int = 8, gpu: int = 0, *, used_cpu: int = 0, used_gpu: int = 0, **more: Any) -> Box:
    devices, used = ({GPU: gpu} if gpu else {}), ({GPU: used_gpu} if used_gpu else {})
    return Box(name, {"cpu": cpu * 1000, "memory": 64 << 30, **devices}, {"cpu": used_cpu * 1000, **used}, **more)


def need(cpu: int = 1, gpu: int = 0, **more: Any) -> Need:
    tolerations = ({"key": GPU, "operator": "Exists"},) if gpu else ()
    return Need(resources={"cpu": cpu * 1000, "memory": 1 << 30, **({GPU: gpu} if gpu else {})}, tolerations=tolerations, **more)


def pods(count: int, cpu: int = 1, gpu: int = 0, role: str = "worker", **more: Any) -> Pods:
    return Pods(role=role, count=count, need=need(cpu, gpu, **more))


def waiting(name: str, *roles: Pods, at: float = 0, hours: float | None = 1, team: str = "vision", **more: Any) -> Waiting:
    granted = None if hours is None else timedelta(hours=hours)
    amounts = {"cpu": sum(each.count * each.need.resources["cpu"] for each in roles)}
    return Waiting(**{"id": name, "team": team, "pods": roles, "queued_at": after(at), "granted": granted, "amounts": amounts, "label": "a100"} | more)


def running(name: str, node: str, cpu: int = 1, gpu: int = 0, *, ends: float | None = None, **more: Any) -> Admitted:
    """One whose pod is seen; the node's `used` must say so too."""
    seen = {node: {"cpu": cpu * 1000, "memory": 1 << 30, "pods": 1, **({GPU: gpu} if gpu else {})}}
    values = {"id": name, "team": "vision", "since": after(-60), "ends": None if ends is None else after(ends), "seen": seen}
    return Admitted(**values | more)


def picture(nodes: list[Box], line: list[Waiting], admitted: list[Admitted] | None = None, **more: Any) -> Picture:
    return Picture(**{"now": T0, "nodes": nodes, "waiting": line, "admitted": admitted or []} | more)


def rack(required: bool = True) -> Topology:
    return Topology(level="rack", key="rack", required=required)
