"""Memory and CPU limits by control groups, below the group of the cluster process itself, where this machine lets us."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path


@dataclass(frozen=True)
class Group:
    """Files of one container's groups, for the shim."""

    procs: list[str] = field(default_factory=list)
    oom: list[str] = field(default_factory=list)
    dirs: list[str] = field(default_factory=list)


def _mounts() -> Iterator[tuple[str, str, str, set[str]]]:
    """(type, mount point, root within the hierarchy, super options) of each cgroup file system."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if tail and tail[0] in ("cgroup", "cgroup2"):
            yield tail[0], fields[4], fields[3], set(tail[-1].split(","))


def _own() -> dict[str, str]:
    """Controller ("" for version 2) to the path of this process's group."""
    found = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):
            found[name] = path
    return found


def _below(mountpoint: str, root: str, path: str) -> Path:
    inner = path[len(root) :] if root != "/" and path.startswith(root) else path
    return Path(mountpoint) / inner.strip("/")


class Cgroups:
    def __init__(self, state_dir: Path) -> None:
        self.name = f"atelier-{sha256(str(state_dir).encode()).hexdigest()[:10]}"
        self.memory: Path | None = None
        self.cpu: Path | None = None
        self.version = 0
        with contextlib.suppress(OSError, ValueError):
            self._find()

    def _find(self) -> None:
        own = _own()
        unified = None
        for kind, mountpoint, root, options in _mounts():
            if kind == "cgroup2":
                unified = _below(mountpoint, root, own.get("", "/"))
            for name in ("memory", "cpu") if kind == "cgroup" else ():
                if name in options and name in own and (made := self._usable(_below(mountpoint, root, own[name]), name, 1)):
                    setattr(self, name, made)
                    self.version = 1
        if self.version == 0 and unified is not None:
            for base in (unified, unified.parent):
                made = self._usable(base, "memory", 2)
                if made:
                    self.memory, self.version = made, 2
                    self.cpu = made if (made / ".probe").exists() or self._enable(made, "cpu") else None
                    break

    def _usable(self, base: Path, controller: str, version: int) -> Path | None:
        """`base`/<ours> when groups with the controller can be made in it."""
        ours, probe = base / self.name, base / self.name / "probe"
        wanted = "memory.limit_in_bytes" if controller == "memory" else "cpu.cfs_quota_us"
        try:
            if version == 2:
                wanted = "memory.max"
                self._enable(base, "memory")
                self._enable(base, "cpu")
            ours.mkdir(exist_ok=True)
            if version == 2:
                self._enable(ours, "memory")
                self._enable(ours, "cpu")
            probe.mkdir(exist_ok=True)
            good = (probe / wanted).exists()
            probe.rmdir()
        except OSError:
            return None
        return ours if good else None

    @staticmethod
    def _enable(group: Path, controller: str) -> bool:
        with contextlib.suppress(OSError):
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
            return True
        return False

    def create(self, name: str, memory: int | None, cpu_millis: int | None, cpu_request: int | None) -> Group:
        """Groups of one container. Limits in bytes and thousandths of a core; None: no limit."""
        group = Group()
        for base in dict.fromkeys(base for base in (self.memory, self.cpu) if base):
            made = base / name
            try:
                made.mkdir(exist_ok=True)
            except OSError:
                continue
            group.dirs.append(str(made))
            group.procs.append(str(made / "cgroup.procs"))
            if base == self.memory:
                group.oom.append(str(made / ("memory.oom_control" if self.version == 1 else "memory.events")))
            self._limit(made, memory, cpu_millis, cpu_request)
        return group

    def _limit(self, group: Path, memory: int | None, cpu_millis: int | None, cpu_request: int | None) -> None:
        wanted: dict[str, str] = {}
        quota = max(cpu_millis, 10) * 100 if cpu_millis else 0
        if self.version == 1:
            if memory:
                wanted.update({"memory.limit_in_bytes": str(memory), "memory.memsw.limit_in_bytes": str(memory)})
            if quota:
                wanted.update({"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": str(quota)})
            if cpu_request:
                wanted["cpu.shares"] = str(max(2, cpu_request * 1024 // 1000))
        else:
            if memory:
                wanted.update({"memory.max": str(memory), "memory.swap.max": "0", "memory.oom.group": "1"})
            if quota:
                wanted["cpu.max"] = f"{quota} 100000"
            if cpu_request:
                wanted["cpu.weight"] = str(min(10000, max(1, cpu_request // 10)))
        for name, value in wanted.items():
            if (group / name).exists():
                with contextlib.suppress(OSError):
                    (group / name).write_text(value)

    def clear(self) -> None:
        """Removes our groups where they are empty."""
        for base in dict.fromkeys(base for base in (self.memory, self.cpu) if base):
            with contextlib.suppress(OSError):
                for child in base.iterdir():
                    if child.is_dir():
                        with contextlib.suppress(OSError):
                            child.rmdir()
                base.rmdir()
