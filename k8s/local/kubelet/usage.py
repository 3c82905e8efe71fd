"""What pods use: processor time and memory, from control groups where containers have them, else from their processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from k8s.local.kubelet.process import Process

if TYPE_CHECKING:
    from k8s.local.kubelet.manager import Kubelet

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MACHINE = ""  # key of this machine as a whole


@dataclass(frozen=True)
class Reading:
    """Processor seconds since the beginning, and bytes of memory now."""

    cpu: float
    memory: int


@dataclass(frozen=True)
class Use:
    """Of one container, or of this machine: cores on average over a window, and bytes at its end. Times in seconds since 1970."""

    cpu: float
    memory: int
    at: float
    window: float


@dataclass(frozen=True)
class Target:
    """A running container: its processes are below its supervisor `shim`."""

    key: tuple[str, str, int]  # pod's uid, container, start of the run in whole seconds
    shim: int
    groups: tuple[str, ...]


@dataclass
class _Row:
    """What is read of one process, times in ticks."""

    parent: int
    own: int
    reaped: int  # of children that have ended and were waited for
    children: list[int] = field(default_factory=list)


def read_all(targets: Iterable[Target]) -> dict[tuple[str, str, int], Reading]:
    """One reading of each container; those that ended meanwhile are left out. The process table is read once, and only if it is needed."""
    found: dict[tuple[str, str, int], Reading] = {}
    table: dict[int, _Row] = {}
    for target in targets:
        cpu, memory = _group_cpu(target.groups), _group_memory(target.groups)
        if cpu is None or memory is None:
            table = table or _processes()
            if target.shim not in table:
                continue
            members = list(_below(table, target.shim))
            if cpu is None:
                cpu = (table[target.shim].reaped + sum(table[pid].own + table[pid].reaped for pid in members)) / _TICKS
            if memory is None:
                memory = sum(map(_private, members))
        found[target.key] = Reading(cpu, memory)
    return found


def _group_cpu(groups: Iterable[str]) -> float | None:
    """Seconds, from cgroup version 1 or 2; None where no group counts them."""
    for group in groups:
        with contextlib.suppress(OSError, ValueError):
            return int(Path(group, "cpuacct.usage").read_text()) / 1e9
        with contextlib.suppress(OSError, ValueError, KeyError):
            return _pairs(Path(group, "cpu.stat"))["usage_usec"] / 1e6
    return None


def _group_memory(groups: Iterable[str]) -> int | None:
    """The working set: what is charged less the file cache that would be given up first. None where no group counts it."""
    for group in groups:
        for total, cache in (("memory.usage_in_bytes", "total_inactive_file"), ("memory.current", "inactive_file")):
            with contextlib.suppress(OSError, ValueError, KeyError):
                return max(0, int(Path(group, total).read_text()) - _pairs(Path(group, "memory.stat"))[cache])
    return None


def _pairs(path: Path) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in path.read_text().splitlines())}


def _processes() -> dict[int, _Row]:
    found: dict[int, _Row] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                text = Path("/proc", name, "stat").read_text(errors="replace")
                fields = text[text.rindex(")") + 2 :].split()  # from the third field on: state, parent, ...
                found[int(name)] = _Row(int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14]))
    for pid, row in found.items():
        if row.parent in found:
            found[row.parent].children.append(pid)
    return found


def _below(table: dict[int, _Row], root: int) -> Iterator[int]:
    left = list(table[root].children)
    while left:
        pid = left.pop()
        yield pid
        left += table[pid].children


def _private(pid: int) -> int:
    """Bytes that a process has for itself: what is resident less what it shares."""
    try:
        _, resident, shared, *_ = Path("/proc", str(pid), "statm").read_text().split()
    except (OSError, ValueError):  # ended just now
        return 0
    return (int(resident) - int(shared)) * _PAGE


def _read_machine() -> Reading:
    times, memory = psutil.cpu_times(), psutil.virtual_memory()
    busy = sum(value for name, value in times._asdict().items() if name not in ("idle", "iowait", "guest", "guest_nice", "steal"))
    return Reading(busy, memory.total - memory.available)


class Meter:
    """Measures every running container once in a window; what lies between two measurements is its use."""

    def __init__(self, kubelet: Kubelet, window: float) -> None:
        self.kubelet = kubelet
        self.window = window
        self.uses: dict[tuple[str, str], Use] = {}  # pod's uid and container
        self.machine: Use | None = None
        self._last: dict[tuple[str, str, int], tuple[float, Reading]] = {}
        self._groups: dict[tuple[str, str, int], tuple[str, ...]] = {}

    async def run(self) -> None:
        while True:
            await self.measure()
            await asyncio.sleep(self.window)

    async def measure(self) -> None:
        targets = list(self._targets())
        readings = await asyncio.to_thread(read_all, targets)  # thousands of small files: the loop need not wait for them
        machine = (_MACHINE, "", 0)
        readings[machine] = _read_machine()
        moment, stamp = time.monotonic(), time.time()
        uses: dict[tuple[str, str], Use] = {}
        for key, reading in readings.items():
            before = self._last.get(key)
            if before is not None and moment > before[0]:
                span = moment - before[0]
                use = Use(max(0.0, reading.cpu - before[1].cpu) / span, reading.memory, stamp, span)
                if key == machine:
                    self.machine = use
                else:
                    uses[key[0], key[1]] = use
        self.uses = uses
        self._last = {key: (moment, reading) for key, reading in readings.items()}
        self._groups = {key: groups for key, groups in self._groups.items() if key in readings}

    def _targets(self) -> Iterator[Target]:
        for uid, worker in self.kubelet.workers.items():
            for runner in worker.runners:
                running = runner.process
                if running is not None and running.alive:
                    key = (uid, runner.container.name, int(running.started_at))
                    yield Target(key, running.shim, self._groups_of(key, running))

    def _groups_of(self, key: tuple[str, str, int], running: Process) -> tuple[str, ...]:
        if key not in self._groups:
            try:
                self._groups[key] = tuple(running.spec().get("cgroup_dirs") or ())
            except (OSError, ValueError):
                return ()
        return self._groups[key]
