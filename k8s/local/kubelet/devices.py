"""Accelerators of the real machine, and which pod has which."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k8s.local.documents import Doc, at, meta
from k8s.local.quantity import parse

if TYPE_CHECKING:
    from k8s.local.client import Client

log = logging.getLogger(__name__)
GPU = "nvidia.com/gpu"
SIMULATED = "atelier.dev/simulated"


@dataclass(frozen=True)
class Gpu:
    index: int
    uuid: str
    product: str
    memory_mib: int


def find_gpus() -> list[Gpu]:
    """What NVML finds; nothing when there is no driver."""
    try:
        import pynvml
    except ImportError:
        return []
    found: list[Gpu] = []
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            for index in range(pynvml.nvmlDeviceGetCount()):
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                uuid, name = _text(pynvml.nvmlDeviceGetUUID(handle)), _text(pynvml.nvmlDeviceGetName(handle))
                memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) // 2**20
                found.append(Gpu(index, uuid, name.replace(" ", "-"), memory))
        finally:
            pynvml.nvmlShutdown()
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def accelerators(spec: Mapping[str, Any]) -> dict[str, int]:
    """The extended resources that a pod's containers ask for, summed."""
    found: dict[str, int] = {}
    for container in spec.get("containers") or []:
        for name, amount in at(container, "resources.limits", {}).items():
            if "/" in name and not name.startswith("hugepages-"):
                found[name] = found.get(name, 0) + int(parse(amount))
    return found


class Devices:
    """Gives GPUs to pods. What was given is written into the pod's directory, so that it holds across restarts."""

    def __init__(self, client: Client, gpus: list[Gpu], pods_dir: Path) -> None:
        self.client = client
        self.gpus = gpus
        self.pods_dir = pods_dir
        self.given: dict[str, list[str]] = {}
        for file in pods_dir.glob("*/devices.json"):
            with contextlib.suppress(OSError, ValueError):
                self.given[file.parent.name] = json.loads(file.read_text())

    def assign(self, pod: Doc) -> dict[str, str]:
        """Variables that show a pod its accelerators and no others. LookupError when they are not to be had."""
        uid, wanted = meta(pod)["uid"], accelerators(pod["spec"])
        node = self.client.get("Node", None, pod["spec"]["nodeName"]) or {}
        if (meta(node).get("labels") or {}).get(SIMULATED) == "true":
            return {"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "void", "ASCEND_VISIBLE_DEVICES": "", "ATELIER_SIMULATED": "true"}
        count = wanted.get(GPU, 0)
        if not count:
            return {"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "void"} if self.gpus else {}
        mine = self.given.get(uid)
        if mine is None:
            taken = {item for items in self.given.values() for item in items}
            free = [gpu.uuid for gpu in self.gpus if gpu.uuid not in taken]
            if len(free) < count:
                raise LookupError(f"requested number of devices unavailable for {GPU}. Requested: {count}, Available: {len(free)}")
            mine = self.given[uid] = free[:count]
            (self.pods_dir / uid / "devices.json").write_text(json.dumps(mine))
        return {"CUDA_VISIBLE_DEVICES": ",".join(mine), "NVIDIA_VISIBLE_DEVICES": ",".join(mine)}

    def release(self, uid: str) -> None:
        self.given.pop(uid, None)
        with contextlib.suppress(OSError):
            (self.pods_dir / uid / "devices.json").unlink(missing_ok=True)


class GpuMeter:
    """How busy each GPU is. NVML tells of the last second at most, so the highest of a minute is kept: work in bursts is work."""

    SECONDS = 5.0

    def __init__(self, devices: Devices) -> None:
        self.devices = devices
        self._samples: dict[str, deque[int]] = {gpu.uuid: deque(maxlen=int(60 / self.SECONDS)) for gpu in devices.gpus}

    async def run(self) -> None:
        """Does nothing on a machine without GPUs."""
        if not self._samples:
            return
        import pynvml

        pynvml.nvmlInit()
        try:
            while True:
                for uuid, percent in (await asyncio.to_thread(_utilization, list(self._samples))).items():
                    self._samples[uuid].append(percent)
                await asyncio.sleep(self.SECONDS)
        finally:
            pynvml.nvmlShutdown()

    def read(self) -> list[tuple[Gpu, int, str]]:
        """Every GPU that was measured: itself, percent, and the uid of the pod that has it ("" for none)."""
        owners = {uuid: uid for uid, uuids in self.devices.given.items() for uuid in uuids}
        return [(gpu, max(self._samples[gpu.uuid]), owners.get(gpu.uuid, "")) for gpu in self.devices.gpus if self._samples[gpu.uuid]]


def _utilization(uuids: list[str]) -> dict[str, int]:
    """Percent by UUID; a GPU that does not tell (one in MIG mode, for example) is left out. NVML must be initialised."""
    import pynvml

    found: dict[str, int] = {}
    for uuid in uuids:
        with contextlib.suppress(pynvml.NVMLError):
            found[uuid] = int(pynvml.nvmlDeviceGetUtilizationRates(pynvml.nvmlDeviceGetHandleByUUID(uuid)).gpu)
    return found
